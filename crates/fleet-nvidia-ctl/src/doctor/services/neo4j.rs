//! Neo4j: its HTTP page, and the handshake of Bolt (neo4j.com/docs/bolt, "Handshake").

use serde_json::Value;

use super::Answer;
use super::net::{Talk, Url, get};
use crate::doctor::check::Finding;

/// Says that Bolt follows.
const MAGIC: [u8; 4] = [0x60, 0x60, 0xb0, 0x17];
/// 5.4 down to 5.0, 4.4 down to 4.2, 4.1, 3: zero, range, minor, major.
const VERSIONS: [[u8; 4]; 4] = [[0, 4, 4, 5], [0, 2, 4, 4], [0, 0, 1, 4], [0, 0, 0, 3]];

pub(super) fn ask_http(url: &Url) -> Answer {
    let (code, body) = get(url, "/")?;
    let page: Value = serde_json::from_str(&body).unwrap_or_default();
    let text = |key: &str| page.get(key).and_then(Value::as_str);
    match (code, text("neo4j_version")) {
        (200, Some(version)) => Ok(format!("version {version}")),
        _ => Err(Finding::error(
            format!("{url} says {code} and names no version of Neo4j"),
            "is it Neo4j that listens there?",
        )),
    }
}

pub(super) fn ask_bolt(url: &Url) -> Answer {
    let mut talk = Talk::open(url)?;
    talk.say(&[&MAGIC[..], VERSIONS.concat().as_slice()].concat())?;
    let chosen = talk.bytes(4)?;
    match chosen.as_slice() {
        [0, 0, 0, 0] => Err(Finding::error(
            format!("{url} knows none of the Bolt versions 3 to 5.4"),
            "drivers of these versions cannot connect either",
        )),
        [0, _, minor, major] => Ok(format!("Bolt {major}.{minor}")),
        _ => Err(Finding::error(
            format!("{url} answers the Bolt handshake with something else"),
            "7687 is Bolt's usual port, 7474 is HTTP's",
        )),
    }
}
