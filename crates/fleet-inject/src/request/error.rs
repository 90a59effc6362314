//! Requests that cannot be understood, or that nobody may have.

use super::{MAX_DEVICES, MAX_VALUE, Source};
use crate::capabilities::CapabilityError;

/// A request that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a CDI name.
    #[error("{why} (in {origin})")]
    Name {
        /// Who asked.
        origin: Source,
        /// The name and what is wrong with it.
        why: fleet_cdi::NameError,
    },
    /// A bare id beside names of another kind than the default one.
    #[error(
        "device id {id} in {origin} stands beside devices of {kind}, but means {default_kind}; \
         hint: write it as {kind}={id}"
    )]
    MixedKinds {
        /// Who asked.
        origin: Source,
        /// The bare id.
        id: String,
        /// Kind of its neighbours.
        kind: String,
        /// The kind that a bare id has.
        default_kind: String,
    },
    /// An automatic name of NVIDIA's that asks for something else than is known.
    #[error("device mode {mode} in {origin} {why}")]
    Mode {
        /// Who asked.
        origin: Source,
        /// The mode.
        mode: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Not quite the name that drivers before 470 gave a MIG device.
    #[error(
        "device id {id} in {origin} is no name of a MIG device; \
         hint: MIG-GPU-<uuid>/<GPU instance>/<compute instance>, its MIG-… UUID as `nvidia-smi -L` prints it, or GPU:MIG numbers such as 0:1"
    )]
    OldMig {
        /// Who asked.
        origin: Source,
        /// The id.
        id: String,
    },
    /// Not the number of an IMEX channel.
    #[error(
        "{id} in {origin} is no IMEX channel; hint: channels are numbers from 0 to 1048575, or channel0 and so on"
    )]
    Channel {
        /// Who asked.
        origin: Source,
        /// As written.
        id: String,
    },
    /// The right over some MIG devices.
    #[error("{origin} is {value}; hint: only all is known there")]
    MigDevices {
        /// Who asked.
        origin: Source,
        /// Its value.
        value: String,
    },
    /// The right over MIG without privileges.
    #[error(
        "the right to {right} MIG, asked for by {origin}, needs CAP_SYS_ADMIN; \
         hint: run the container privileged or with that capability"
    )]
    MigRights {
        /// Who asked.
        origin: Source,
        /// `configure` or `monitor`.
        right: String,
    },
    /// A limit that would not be kept.
    #[error(
        "{origin} asks for a limit of {value} of GPU memory, which cannot be set here yet; \
         hint: unset it, or use a MIG device of that size"
    )]
    MemoryLimit {
        /// Who asked.
        origin: Source,
        /// Its value.
        value: String,
    },
    /// A driver capability that cannot be had.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// A value too long to be a list of devices.
    #[error(
        "the list of devices in {origin} is {bytes} bytes long, more than the {MAX_VALUE} that are read"
    )]
    TooLong {
        /// Who asked.
        origin: Source,
        /// Its length.
        bytes: usize,
    },
    /// More names than any machine has devices.
    #[error(
        "{count} devices are asked for by {origin}, more than the {MAX_DEVICES} that are accepted"
    )]
    TooMany {
        /// Who asked.
        origin: Source,
        /// How many.
        count: usize,
    },
}
