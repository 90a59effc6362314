//! Signals by name and number, and the dispositions a program starts with.

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use crate::sys::tail::reset_disposition;

/// Highest signal number (`SIGRTMAX` of Linux).
const MAX: i32 = 64;
/// glibc's `SIGRTMIN`: the kernel's 32 and 33 are taken by its threads.
const RTMIN: i32 = 34;

const NAMES: [(&str, i32); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", RTMIN),
    ("RTMAX", MAX),
];

/// A signal that is none.
#[derive(Debug, thiserror::Error)]
#[error("unknown signal `{0}`; hint: a name such as TERM or SIGRTMIN+3, or a number from 0 to 64")]
pub struct UnknownSignal(String);

/// Reads a number (`15`, `37`), a name with or without `SIG`, or `RTMIN+n`/`RTMAX-n`.
///
/// # Errors
/// [`UnknownSignal`].
pub fn parse(text: &str) -> Result<i32, UnknownSignal> {
    let unknown = || UnknownSignal(text.chars().take(32).collect());
    if let Ok(number) = text.parse::<i32>()
        && !text.starts_with('+')
    {
        return if (0..=MAX).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let offset = |prefix: &str, sign: i32, base: i32| -> Option<i32> {
        let number: i32 = name.strip_prefix(prefix)?.parse().ok()?;
        let number = base + sign * number;
        (RTMIN..=MAX).contains(&number).then_some(number)
    };
    offset("RTMIN+", 1, RTMIN)
        .or_else(|| offset("RTMAX-", -1, MAX))
        .ok_or_else(unknown)
}

/// Default dispositions and nothing blocked: Rust ignores SIGPIPE, and an engine may have changed others.
///
/// # Errors
/// As `man 2 sigprocmask`.
pub fn reset_all() -> nix::Result<()> {
    for signal in 1..=MAX {
        if !matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            reset_disposition(signal);
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Tests that change the whole process run in one of their own: the test program starts itself once more.
#[cfg(test)]
pub(crate) mod alone {
    const MARK: &str = "FLEET_TEST_ALONE";

    /// True in the process of its own, where the caller does its test; otherwise starts that process, behind a
    /// shell that ignores some signals, and wants the test to pass there.
    pub(crate) fn alone(module: &str, test: &str) -> bool {
        if std::env::var_os(MARK).is_some_and(|name| name == test) {
            return true;
        }
        let (_, module) = module.split_once("::").unwrap();
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", "trap '' HUP PIPE USR1; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
            .env(MARK, test)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{}: {said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        let cases = [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("5", 5),
            ("7", 7),
            ("TRAP", 5),
            ("BUS", 7),
            ("37", 37),
            ("RTMIN+3", 37),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("0", 0),
            ("64", 64),
            ("CLD", 17),
            ("SIGPOLL", 29),
            ("SIGIOT", 6),
            ("sigrtmin+0", 34),
            ("SIGRTMAX-30", 34),
            ("poll", 29),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        for text in [
            "",
            "SIG",
            "65",
            "-1",
            "RTMIN+31",
            "RTMAX-31",
            "TERMX",
            "9 ",
            "RTMIN+x",
            "+9",
            "SIGSIGTERM",
            "RTMIN+-1",
            "99999999999999999999",
            "\u{131}NT",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
    #[test]
    fn nothing_stays_ignored_or_blocked() {
        if !alone::alone(module_path!(), "nothing_stays_ignored_or_blocked") {
            return;
        }
        let masks = || -> Vec<u64> {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            ["SigBlk:", "SigIgn:", "SigCgt:"]
                .iter()
                .map(|name| status.lines().find_map(|l| l.strip_prefix(name)).unwrap())
                .map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap())
                .collect()
        };
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).unwrap();
        let before = masks();
        assert!(before[0] != 0, "blocked");
        assert!(
            before[1] & 1 << (libc::SIGHUP - 1) != 0,
            "ignored by whoever started us"
        );
        reset_all().unwrap();
        assert_eq!(masks(), [0, 0, 0]);
    }
}
