//! The checks, by what they look at. A new one is added to its module's list and to nothing else.

mod cdi;
mod configuration;
mod containerd;
mod containers;
mod crio;
mod docker;
mod driver;
mod hooks;
mod kernel;
mod kubernetes;
mod nodes;
mod podman;
mod security;
mod storage;

use super::check::Check;

/// In the order of the report: what lies below first.
pub(crate) fn all() -> impl Iterator<Item = &'static Check> {
    [
        kernel::CHECKS,
        security::CHECKS,
        driver::CHECKS,
        nodes::CHECKS,
        cdi::CHECKS,
        configuration::CHECKS,
        podman::CHECKS,
        crio::CHECKS,
        containerd::CHECKS,
        docker::CHECKS,
        kubernetes::CHECKS,
        containers::CHECKS,
        hooks::CHECKS,
        storage::CHECKS,
    ]
    .into_iter()
    .flatten()
}

pub(crate) use cdi::any_device;

#[cfg(test)]
mod tests;
