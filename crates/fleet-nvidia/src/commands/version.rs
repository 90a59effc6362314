//! `--version`: the first line's form is read by Docker, the feature line by crun's test suite.

/// The text.
pub(crate) fn text() -> String {
    format!(
        "fleet-nvidia version {}\nspec: 1.0.0\n+SYSTEMD +SECCOMP +EBPF +CAP +CDI\n",
        env!("CARGO_PKG_VERSION")
    )
}
