//! Redis: AUTH and PING in its own protocol (RESP, redis.io/docs/reference/protocol-spec).

use super::Answer;
use super::net::{Talk, Url};
use crate::doctor::check::Finding;

pub(super) fn ask(url: &Url, password: Option<&str>) -> Answer {
    let mut talk = Talk::open(url)?;
    if let Some(password) = url.password.as_deref().or(password) {
        let login: Vec<&str> = url.user.as_deref().into_iter().chain([password]).collect();
        talk.say(&command("AUTH", &login))?;
        let said = talk.line()?;
        if let Some(why) = said.strip_prefix('-') {
            return Err(refused(url, why));
        }
    }
    talk.say(&command("PING", &[]))?;
    let said = talk.line()?;
    match said.strip_prefix('-') {
        None if said == "+PONG" => Ok("PONG".to_owned()),
        None => Err(Finding::error(
            format!("{url} answers PING with {said:?}"),
            "is it Redis that listens there?",
        )),
        Some(why) => Err(refused(url, why)),
    }
}

fn refused(url: &Url, why: &str) -> Finding {
    let hint = match why.split(' ').next().unwrap_or_default() {
        "NOAUTH" => "give the password: REDIS_PASSWORD, or `password` in the services file",
        "WRONGPASS" => "the password is another one: `requirepass` or the ACL of the server",
        "LOADING" => "it reads its data set: try again",
        _ if why.contains("without any password") => {
            "no password is set in the server: anybody who reaches it may use it"
        }
        _ => "see the server's log",
    };
    Finding::error(format!("{url} says: {why}"), hint)
}

/// An array of bulk strings.
fn command(name: &str, args: &[&str]) -> Vec<u8> {
    let words = [&[name], args].concat();
    let head = format!("*{}\r\n", words.len());
    let bulk = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    (head + &bulk.collect::<String>()).into_bytes()
}
