//! Why there is no spec.

use fleet_host::files::FilesError;

/// No spec. Each message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// A directory that stands for a root.
    #[error("open {what} {path}: it {}", fleet_inject::io_cause(.source))]
    Root {
        /// Which root.
        what: &'static str,
        /// The directory.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// No usable driver files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Nothing to give to a container.
    #[error("find devices in mode {mode}: {why}{}", advice(.hint))]
    NoDevice {
        /// Mode.
        mode: &'static str,
        /// The cause.
        why: String,
        /// What may help.
        hint: Option<&'static str>,
    },
    /// A device that was asked for.
    #[error("find device `{id}`: {why}")]
    UnknownDevice {
        /// As asked for.
        id: String,
        /// The cause.
        why: String,
    },
    /// The spec needs more than its reader knows.
    #[error("write a spec for readers of CDI {newest}: {why}")]
    TooNew {
        /// The reader's version.
        newest: String,
        /// What cannot be said.
        why: String,
    },
    /// Our own fault or an impossible name.
    #[error("check the generated spec: {0}")]
    Invalid(#[from] fleet_cdi::InvalidSpec),
}

fn advice(hint: &Option<&'static str>) -> String {
    hint.map(|hint| format!("; hint: {hint}"))
        .unwrap_or_default()
}
