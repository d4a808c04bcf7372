//! metalgate turns a rack of powered-off servers into a Kubernetes cluster with an API gateway in front.
//!
//! ```text
//! spec + inventory -> plan -> bootstrap -> netboot + power -> agent -> node -> pivot -> gateway
//! ```

pub mod agent;
pub mod api;
pub mod bootstrap;
pub mod cli;
pub mod controllers;
pub mod diagnostic;
pub mod discover;
pub mod error;
pub mod event;
pub mod gateway;
pub mod hardware;
pub mod image;
pub mod inventory;
pub mod kubeconfig;
pub mod lab;
pub mod manager;
pub mod names;
pub mod netboot;
pub mod node;
pub mod pivot;
pub mod pki;
pub mod plan;
pub mod power;
pub mod preflight;
pub mod secret;
pub mod spec;
pub mod template;
pub mod tls;
pub mod workflow;
