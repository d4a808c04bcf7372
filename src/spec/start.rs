//! A spec to start from, with comments, from `templates/spec/start.yaml`.

use crate::image::choice::ImageChoice;
use minijinja::value::Serde;
use serde::Serialize;
use std::net::Ipv4Addr;

/// What is known of a cluster that is begun; the rest is marked in the file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Start {
    /// Its name.
    pub name: String,
    /// Address of the API server.
    pub endpoint: Option<Ipv4Addr>,
    /// Our interface in the machines' network.
    pub interface: Option<String>,
    /// What the machines get, where the artifacts have it.
    pub image: Option<ImageChoice>,
    /// Who may log in.
    pub ssh_key: Option<String>,
    /// How many machines of each kind.
    pub control_planes: u32,
    pub workers: u32,
    /// `envoy` or `kong`.
    pub gateway: Option<&'static str>,
}

impl Start {
    /// The file.
    pub fn render(&self) -> Result<String, minijinja::Error> {
        crate::template::render(include_str!("../../templates/spec/start.yaml"), &Serde(self).into())
    }
}
