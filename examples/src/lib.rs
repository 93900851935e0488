//! Small schedulers. Each is a module here, so that the tests run it on the in-process model, and a
//! program in `examples/`, which runs it on the kernel.

#![forbid(unsafe_code)]

pub mod fifo;
