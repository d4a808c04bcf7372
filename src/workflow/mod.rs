//! What `create cluster` does, in order: [`PHASES`] is the list. One file per phase.
//!
//! A phase starts what the next ones need and leaves it in the [`Run`]; at the end, however it comes, everything that was
//! started is stopped in reverse order. Nothing is remembered here: what was done is in the objects of the bootstrap
//! cluster, so a killed run is continued by running it again. Fed by `plan`; feeds `controllers`.

pub mod board;
pub mod journal;
pub mod work_dir;
