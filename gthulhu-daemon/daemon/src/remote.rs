//! `config get` and `config set`: runtime configuration of a running daemon, over its socket.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use gthulhu_config::Kind;
use serde_json::{Map, Value, json};

use crate::{Error, ExitCode, Result, status};

/// What holds, one field in a line.
pub(crate) fn get(socket: &Path, as_json: bool) -> Result<(String, u8)> {
    let mut object = status::fetch_after(socket, |stream| stream.write_all(b"runtime-config\n"))?;
    if let Some(why) = object["error"].as_str() {
        return Err(Error::new(ExitCode::NoPermission, why.to_owned()));
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("code");
    }
    if as_json {
        return Ok((format!("{object}\n"), 0));
    }
    let lines = object.as_object().into_iter().flatten().map(|(name, value)| format!("{name}: {value}\n"));
    Ok((lines.collect(), 0))
}

/// Changes fields. The exit code says whether it was done.
pub(crate) fn set(
    socket: &Path,
    pairs: &[String],
    version: Option<&str>,
    reattach: bool,
) -> Result<(String, u8)> {
    let mut body = pairs.iter().map(|pair| field(pair)).collect::<std::result::Result<Map<_, _>, _>>();
    let body = body.as_mut().map_err(|why| Error::new(ExitCode::Usage, why.clone()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    body.insert("configVersion".into(), version.map_or_else(|| format!("cli-{now}"), str::to_owned).into());
    let order = if reattach { "runtime-config apply reattach" } else { "runtime-config apply" };
    let text = format!("{order}\n{}", Value::Object(body.clone()));
    let answer = status::fetch_after(socket, |stream| stream.write_all(text.as_bytes()))?;
    match answer["code"].as_u64() {
        Some(200) => Ok((format!("{}\n", summary(&answer)), 0)),
        code => {
            let why = answer["error"].as_str().unwrap_or("the daemon does not say why").to_owned();
            let why = why.replace("?reattach=true", "--reattach");
            let keys = answer["reattach"].as_array().into_iter().flatten();
            let keys: Vec<&str> = keys.filter_map(|one| one["key"].as_str()).collect();
            let keys = if keys.is_empty() { String::new() } else { format!(" ({})", keys.join(", ")) };
            let exit = if code == Some(400) { ExitCode::Usage } else { ExitCode::Failed };
            Err(Error::new(exit, format!("{why}{keys}")))
        }
    }
}

/// `FIELD=VALUE` as JSON: what the field's key takes decides what the text means.
fn field(pair: &str) -> std::result::Result<(String, Value), String> {
    let (name, text) = pair
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("'{pair}' has not the form FIELD=VALUE, such as kernelMode=on"))?;
    let kind = gthulhu_config::keys().iter().find(|key| key.runtime == Some(name)).map(|key| key.kind);
    let value = match (kind, text) {
        // The field's name, and what is allowed, are the daemon's to judge.
        (_, "null") => Value::Null,
        (Some(Kind::Switch), "on" | "true") => true.into(),
        (Some(Kind::Switch), "off" | "false") => false.into(),
        (Some(Kind::Number { .. }), text) => text.parse::<u64>().map_or_else(|_| text.into(), Value::from),
        (Some(Kind::Pairs), "") => json!([]),
        (Some(Kind::Pairs), text) => text.split(',').collect(),
        (_, text) => text.into(),
    };
    Ok((name.to_owned(), value))
}

fn summary(answer: &Value) -> String {
    let mut text = answer["status"].as_str().unwrap_or("applied").to_owned();
    for (name, what) in [
        ("attached", "; the scheduler is attached"),
        ("detached", "; the scheduler is detached"),
        ("reattached", "; the scheduler is attached anew"),
        ("loading", "; it loads still"),
    ] {
        if answer[name] == true {
            text += what;
        }
    }
    if let Some(gap) = answer["gapMs"].as_u64() {
        text += &format!(", the kernel's own was in charge for {gap} ms");
    }
    for held in answer["shadowed"].as_array().into_iter().flatten() {
        text += &format!("\n{} is held by a flag or the environment and stays", held["key"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_field_takes_decides_what_a_text_means() {
        let value = |pair: &str| field(pair).unwrap().1;
        assert_eq!(value("kernelMode=on"), json!(true));
        assert_eq!(value("kernelMode=off"), json!(false));
        assert_eq!(value("permit=0"), json!(0));
        assert_eq!(value("permit=null"), Value::Null);
        assert_eq!(value("agentCpus=3"), json!("3"));
        assert_eq!(value("options=a=1,b=2"), json!(["a=1", "b=2"]));
        assert_eq!(value("options="), json!([]));
        // For the daemon to refuse, with its words.
        assert_eq!(value("kernelMode=perhaps"), json!("perhaps"));
        assert_eq!(value("nonsense=1"), json!("1"));
        assert!(field("kernelMode").is_err() && field("=1").is_err());
    }
}
