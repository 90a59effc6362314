//! The simulated `libnvidia-ml.so.1`: NVML's C ABI over a machine described by a file.
//!
//! It shows what the container really has: a GPU is there if its device node can be opened, as with the real library.
//! Every documented function exists; those that are not simulated answer "not supported", as on many real GPUs.

mod abi;
mod absent;
mod place;
mod session;
