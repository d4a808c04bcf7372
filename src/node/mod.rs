//! An installed machine, over SSH: prepared for Kubernetes, made a node by kubeadm, taken out of the cluster again.
//!
//! `ssh` logs in, `supplies` says what a machine fetches from us, `prepare` has the steps, `registries` one of them, `kubeadm` the
//! cluster's own part, `script` runs one step. Fed by `controllers` once the agent has left; every connection verifies the host key that the
//! installer generated and the agent wrote, so there is no first use to trust. What a step does is a shell script of
//! `templates/node/`, and every step can be repeated: it looks before it acts, and again after.

pub mod kubeadm;
pub mod placed;
pub mod prepare;
pub mod registries;
pub mod script;
pub mod ssh;
pub mod supplies;
