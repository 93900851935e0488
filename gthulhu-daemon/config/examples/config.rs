//! What `gthulhu-daemon config` does, in few lines: `config explain [FILE] [--json]`, `config check FILE`, `config
//! default`.

use std::io::Write;
use std::process::ExitCode;

use gthulhu_config::{Loader, Problems, check_file, default_file};

const PLUGINS: [&str; 3] = ["gthulhu", "simple", "simple-fifo"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["default"] => Ok(default_file(PLUGINS)),
        ["check", file] => check_file(file.as_ref(), PLUGINS).map(|notices| {
            notices.iter().fold(format!("{file} is in order\n"), |text, notice| format!("{text}{notice}\n"))
        }),
        ["explain", file] => explain(file, false),
        ["explain", file, "--json"] => explain(file, true),
        _ => {
            eprintln!("config explain FILE [--json] | config check FILE | config default");
            return ExitCode::from(64);
        }
    };
    match done {
        // A reader that has gone away (`| head`) is no error.
        Ok(text) => drop(std::io::stdout().write_all(text.as_bytes())),
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn explain(file: &str, json: bool) -> Result<String, Problems> {
    let loaded = Loader::new().plugins(PLUGINS).file(file).env(std::env::vars_os()).look_only().load()?;
    for notice in loaded.notices() {
        eprintln!("{notice}");
    }
    Ok(if json { format!("{:#}\n", loaded.explain_json()) } else { loaded.explain_text() })
}
