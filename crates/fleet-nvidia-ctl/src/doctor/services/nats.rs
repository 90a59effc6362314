//! NATS: INFO, CONNECT and PING (docs.nats.io, "Client Protocol").

use serde_json::{Value, json};

use super::Answer;
use super::net::{Talk, Url};
use crate::doctor::check::Finding;

pub(super) fn ask(url: &Url, password: Option<&str>) -> Answer {
    let mut talk = Talk::open(url)?;
    let hello = talk.line()?;
    let Some(info) = hello.strip_prefix("INFO ") else {
        return Err(Finding::error(
            format!("{url} does not greet with INFO"),
            "is it NATS that listens there?",
        ));
    };
    let info: Value = serde_json::from_str(info).unwrap_or_default();
    let flag = |key: &str| info.get(key).and_then(Value::as_bool) == Some(true);
    let version = info
        .get("version")
        .and_then(Value::as_str)
        .unwrap_or("unknown")
        .to_owned();
    if flag("tls_required") {
        return Ok(format!(
            "version {version}; it asks for TLS, so nothing more was tried"
        ));
    }
    let mut connect = json!({"verbose": false, "pedantic": false, "lang": "rust", "version": env!("CARGO_PKG_VERSION")});
    match (url.user.as_deref(), url.password.as_deref().or(password)) {
        (Some(user), Some(password)) => {
            connect["user"] = user.into();
            connect["pass"] = password.into();
        }
        // A login without a password is a token.
        (None, Some(token)) | (Some(token), None) => connect["auth_token"] = token.into(),
        (None, None) => {}
    }
    talk.say(format!("CONNECT {connect}\r\nPING\r\n").as_bytes())?;
    let said = talk.line()?;
    match said.strip_prefix("-ERR ") {
        None if said == "PONG" => Ok(format!("version {version}, PONG")),
        None => Err(Finding::error(
            format!("{url} answers PING with {said:?}"),
            "is it NATS that listens there?",
        )),
        Some(why) => Err(Finding::error(
            format!("{url} says: {}", why.trim_matches('\'')),
            "give user and password in the address, or `password` in the services file",
        )),
    }
}
