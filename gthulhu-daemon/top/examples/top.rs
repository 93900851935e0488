//! Without the daemon around it: `cargo run -p gthulhu-top --example top`, as root.

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    top: gthulhu_top::Args,
}

fn main() -> std::process::ExitCode {
    match gthulhu_top::run(&Cli::parse().top) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("top: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
