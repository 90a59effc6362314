//! The man pages and completions of the runtime.

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
            (
                "/run/fleet-nvidia, $XDG_RUNTIME_DIR/fleet-nvidia",
                "State of the containers, of root and of other users.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Done."),
            ("1", "Failed; one line on standard error says why."),
            ("255", "exec failed before the program ran."),
            ("other", "run and exec end with the status of the program."),
        ],
    ),
    (
        "SEE ALSO",
        &[(
            "fleet-nvidia-config(5), fleet-nvidia-ctl(8), podman(1), crio(8)",
            "",
        )],
    ),
];

pub(crate) fn intercept(args: &[OsString]) -> Option<ExitCode> {
    let extra = Extra {
        sections: SECTIONS,
        config: None,
    };
    fleet_docgen::intercept(args, crate::cli::Command::command(), extra)
}
