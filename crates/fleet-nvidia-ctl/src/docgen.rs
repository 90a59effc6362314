//! The man pages and completions of the admin tool, and the page of the configuration file.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;
use fleet_docgen::{Extra, Section};

const SECTIONS: &[Section<'_>] = &[
    (
        "FILES",
        &[
            (
                "/etc/fleet-nvidia/config.toml",
                "Which containers get devices; see fleet-nvidia-config(5).",
            ),
            (
                "/etc/cdi, /var/run/cdi",
                "CDI specs: what each device brings.",
            ),
        ],
    ),
    (
        "SEE ALSO",
        &[("fleet-nvidia(8), fleet-nvidia-config(5)", "")],
    ),
];

pub(crate) fn intercept() -> Option<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let extra = Extra {
        sections: SECTIONS,
        config: Some(fleet_inject::DEFAULT_CONFIG),
    };
    fleet_docgen::intercept(&args, crate::cli::Cli::command(), extra)
}
