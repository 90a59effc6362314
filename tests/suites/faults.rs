//! Faults: the runtime killed at every step, system calls that fail, full disks, crowds, and what is left afterwards.
//!
//! `make test` takes a sample of the steps; `FLEET_FAULTS=all` (`make faults`) takes each one.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

#[path = "faults/census.rs"]
mod census;
#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/full.rs"]
mod full;
#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/recovery.rs"]
mod recovery;
#[path = "faults/refused.rs"]
mod refused;
#[path = "faults/steps.rs"]
mod steps;

use fleet_tests::Output;

/// A failure is told in one line, with what to do, and the code is that of a failed runtime.
#[track_caller]
fn assert_clear(output: &Output, code: i32, context: &str) {
    assert_eq!(output.code, code, "{context}: {output:#?}");
    assert_eq!(
        output.stderr.trim_end().lines().count(),
        1,
        "{context}: {output:#?}"
    );
    assert!(
        output.stderr.starts_with("fleet-nvidia: ") && output.stderr.contains("hint: "),
        "{context}: {output:#?}"
    );
}
