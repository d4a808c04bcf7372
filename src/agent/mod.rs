//! The agent: PID 1 in memory on a machine that is being installed.
//!
//! Fed by the kernel command line and a [`protocol::WorkOrder`]; leaves an operating system on the disk and restarts the
//! machine into it. In order: [`boot`] mounts the kernel's file systems, [`modules`] loads drivers, [`network`] brings up
//! the interface, [`facts`] describes the machine, [`server`] trades the one-time token for the work order, [`install`]
//! does the work and reports every step of it.
//!
//! The machine never restarts unless its disk is whole. What stops it is shown on its console and reported, and it stays
//! as it is, for somebody to look at.

pub mod arguments;
pub mod boot;
pub mod boot_entry;
pub mod console;
pub mod disk;
pub mod facts;
pub mod fetch;
pub mod install;
pub mod modules;
pub mod network;
pub mod partition;
pub mod pinned;
pub mod protocol;
pub mod report;
pub mod run;
pub mod seed;
pub mod server;
pub mod stream;
pub mod verify;
pub mod write;
