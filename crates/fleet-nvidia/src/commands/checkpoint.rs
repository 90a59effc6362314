//! `checkpoint` and `restore`: not there, and said so in the words that containerd and Docker pass on to their user.

use fleet_lifecycle::Error;

/// Podman and CRI-O look at the exit status of `checkpoint --help` alone, and at the output of `restore` for
/// `requires an argument`, which must not be in it.
pub(super) fn refusal(verb: &str) -> Error {
    Error::Invalid(format!(
        "{verb} is not supported: fleet-nvidia does not drive CRIU; hint: a container that is to be checkpointed has to be made with another runtime"
    ))
}
