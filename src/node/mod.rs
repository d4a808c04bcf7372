//! An installed machine, over SSH.
//!
//! Fed by `controllers` once the agent has left; every connection verifies the host key that the installer generated and
//! the agent wrote, so there is no first use to trust.

pub mod ssh;
