//! Our executor: the library calls it inside the container, after the root was changed.

use std::collections::HashMap;
use std::io::Write;
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};

use crate::error::Error;
use crate::tail::Tail;

/// Runs a [`Tail`] at the two points the library offers.
#[derive(Debug, Clone)]
pub struct TailExecutor {
    tail: Rc<Tail>,
}

impl TailExecutor {
    pub(super) fn new(tail: Rc<Tail>) -> Self {
        Self { tail }
    }
}

impl Executor for TailExecutor {
    /// Before "ready" is reported: a failure here fails `create`.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        self.tail.prepare().map_err(|err| {
            let text = err.to_string();
            self.tail.report.store_first(&text);
            ExecutorValidationError::ArgValidationError(text)
        })
    }

    /// The environment is given to `execve` as it stands in the spec, order and duplicates included.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    /// After `start`; returns only on failure.
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let err = self.tail.run();
        let text = err.to_string();
        if matches!(err, Error::Told(_)) {
            return Err(ExecutorError::Other(text));
        }
        self.tail.report.store_first(&text);
        // `create` has long returned and nobody waits for an answer: the container's own stderr is what is left.
        let _ = writeln!(std::io::stderr().lock(), "fleet-nvidia: {text}");
        Err(ExecutorError::Other(text))
    }
}
