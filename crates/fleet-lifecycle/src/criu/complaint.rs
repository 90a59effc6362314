//! What CRIU says about a failure: one line of its log, and what to do about the common ones.

use std::io::{BufRead, BufReader, Read};

use super::directory::Directory;

/// As much of a log is read.
const MOST: u64 = 64 * 1024 * 1024;
/// Longest piece of it that goes into an error, in characters.
const LONGEST: usize = 300;

/// What to do, by words of CRIU's.
const ADVICE: [(&[&str], &str); 9] = [
    (
        &["(chr 195:", "`/dev/nvidia"],
        "a process has a GPU open: CRIU needs its CUDA plugin (`cuda_plugin.so`) and NVIDIA's `cuda-checkpoint` for that",
    ),
    (
        &["onnected TCP socket", "TCP connections"],
        "`--tcp-established` saves TCP connections, too",
    ),
    (
        &["file lock", "file leases", "file-locks"],
        "`--file-locks` saves file locks, too",
    ),
    (
        &["xternal socket", "external unix"],
        "`--ext-unix-sk` lets connections to sockets of the host be cut off",
    ),
    (
        &["link-remap"],
        "`--link-remap` saves files that are open and have no name any more",
    ),
    (
        &["has bad size"],
        "a stream that is a file is restored to the same file, or to one that is appended to (`>>`)",
    ),
    (
        &["Can't get rlimit"],
        "CRIU needs the capability CAP_SYS_RESOURCE for processes of other users than its own",
    ),
    (
        &["Tracking memory is not available"],
        "the kernel does not tell which memory has changed: leave `--pre-dump` and `--parent-path` out",
    ),
    (
        &["vdso", "Can't get 1:"],
        "this CRIU is too old for the running kernel",
    ),
];

/// Errors that CRIU goes on after, and that are not why it gave up in the end.
const HARMLESS: [&str; 1] = ["Can't setup RLIMIT_NOFILE for self"];

/// The first error of the log `name`, which is what made CRIU give up, as one line; `None` where there is none.
pub(super) fn of_log(directory: &Directory, name: &str) -> Option<String> {
    let file = directory.file(name).ok()??;
    first(BufReader::new(file.take(MOST)))
}

fn first(log: impl BufRead) -> Option<String> {
    log.split(b'\n')
        .map_while(Result::ok)
        .find_map(|line| error(&String::from_utf8_lossy(&line)))
}

/// The text of a line such as `(00.012345) Error (criu/files-ext.c:98): Can't dump file 5`.
fn error(line: &str) -> Option<String> {
    let (_, said) = line.split_once("Error (")?;
    let (_, said) = said.split_once("): ")?;
    let plain: String = said
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect();
    let harmless = HARMLESS.iter().any(|words| plain.contains(words));
    (!plain.is_empty() && !harmless).then_some(plain)
}

/// What to do about it.
pub(super) fn advice(said: &str) -> Option<&'static str> {
    let named = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let found = ADVICE.iter().find(|(words, _)| named(words));
    found.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_counts() {
        let log = "(00.001) Warn  (criu/x.c:1): odd\n(00.001) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n(00.002) 12: Error (criu/files-ext.c:98): Can't dump file 5 of that type [20666] (chr 195:255)\n\
            (00.003) Error (criu/cr-dump.c:1): Dumping FAILED.\n";
        let said = first(log.as_bytes()).unwrap();
        assert_eq!(said, "Can't dump file 5 of that type [20666] (chr 195:255)");
        assert!(advice(&said).unwrap().contains("cuda_plugin.so"));
        assert_eq!(first(&b"(00.001) all is well\n"[..]), None);
        assert_eq!(first(&b""[..]), None);
        assert_eq!(advice("something else"), None);
    }

    #[test]
    fn what_a_log_holds_stays_on_one_line() {
        let said = error("Error (a:1): one\u{1b}[31m\ttwo\r").unwrap();
        assert_eq!(said, "one [31m two");
        let long = format!("Error (a:1): {}", "x".repeat(5000));
        assert_eq!(error(&long).unwrap().len(), LONGEST);
        for line in ["Error (a:1): ", "Error (a", "", "Error: x"] {
            assert_eq!(error(line), None, "{line}");
        }
    }
}
