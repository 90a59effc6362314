//! Functions that are not simulated. C passes arguments in registers and clears its own stack: a function without
//! parameters can be called with any.
#![allow(unsafe_code, non_snake_case, missing_docs, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/absent.rs"));
