//! `HOME` for a program whose environment has none (libcontainer 0.7: L15, L19).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// Bytes of the container's passwd file that are read: far above real ones, bounded since the image wrote it.
const LIMIT: u64 = 4 * 1024 * 1024;

/// The environment, with `HOME` added when it is missing.
pub(super) fn complete(env: &[String], uid: u32) -> Vec<String> {
    let mut all = env.to_vec();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = directory(uid).unwrap_or_else(|| "/".to_owned());
        all.push(format!("HOME={home}"));
    }
    all
}

fn directory(uid: u32) -> Option<String> {
    // Not a FIFO that would block, not a device: a regular file of the container or nothing.
    let meta = std::fs::metadata("/etc/passwd").ok()?;
    if !meta.is_file() {
        return None;
    }
    home_of(
        BufReader::new(File::open("/etc/passwd").ok()?.take(LIMIT)),
        uid,
    )
}

fn home_of(passwd: impl BufRead, uid: u32) -> Option<String> {
    let wanted = uid.to_string();
    passwd.lines().map_while(Result::ok).find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found = fields.get(2) == Some(&wanted.as_str());
        let home = fields.get(5).filter(|home| !home.is_empty())?;
        found.then(|| (*home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:\nnohome:x:7:7:::\n";
        let cases = [
            (0, Some("/root")),
            (1000, Some("/home/ann")),
            (7, None),
            (5, None),
        ];
        for (uid, want) in cases {
            assert_eq!(home_of(text.as_bytes(), uid).as_deref(), want);
        }
    }

    #[test]
    fn a_given_home_stays() {
        let env = ["HOME=/x".to_owned(), "A=1".to_owned(), "A=2".to_owned()];
        assert_eq!(complete(&env, 0), env);
    }
}
