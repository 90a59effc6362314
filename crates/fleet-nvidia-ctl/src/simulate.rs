//! `simulate`: a GPU node without GPUs, on any machine.

use std::io::Write;

use fleet_sim::command::{Simulate, run};

use crate::{CtlError, Verdict};

pub(crate) fn simulate(verb: &Simulate, out: &mut dyn Write) -> Result<Verdict, CtlError> {
    run(verb, out)?;
    Ok(Verdict::Fine)
}
