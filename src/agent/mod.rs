//! The agent: PID 1 in memory on a machine that is being installed.
//!
//! Fed by the kernel command line and a [`protocol::WorkOrder`]; leaves an operating system on the disk.

pub mod protocol;
