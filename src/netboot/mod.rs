//! Everything a machine meets between power-on and the agent: DHCP, TFTP, iPXE's scripts, HTTP and the agent's API.
//!
//! Fed by the [`BootTable`], which `controllers` keep equal to the machines that are being installed now; a machine that
//! is not in it gets no answer, so that an installed one falls through to its disk. Feeds `agent` with its work order.
//! Every exchange is an event.

pub mod dhcp;
pub mod http;
pub mod installations;
pub mod table;
pub mod tftp;

pub use table::{BootEntry, BootTable};
