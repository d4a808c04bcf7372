//! The gateway for real: `metalgate gateway` against a real API server.
//!
//! Envoy Gateway and Envoy are the real programs, run as processes by what stands here for kubelet (`node.rs`): it starts what
//! Deployments ask for, gives it its Secrets as files, and says when it is ready. Kong is played by a peer that speaks its
//! protocols (`kong_peer`); its certificates are judged by nginx with Kong's own TLS calls (`mtls_oracle`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod envoy;
mod kong;
mod kong_peer;
mod mtls_oracle;
mod node;

use metalgate::bootstrap::{self, BootstrapCluster, Provider};
use metalgate::image::manifest::Manifest;
use std::path::{Path, PathBuf};
use std::process::Output;
use tokio::process::Command;

const METALGATE: &str = env!("CARGO_BIN_EXE_metalgate");

fn artifacts() -> Manifest {
    let dir = std::env::var_os("METALGATE_ARTIFACTS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| metalgate::image::default_dir().expect("an artifact directory"));
    Manifest::load(&dir).expect("artifacts: run `make artifacts`")
}

async fn api_server(dir: &Path) -> BootstrapCluster {
    let cluster = bootstrap::start(METALGATE.as_ref(), &Provider::Embedded, &artifacts(), dir, "test").await;
    cluster.expect("the API server starts")
}

/// `metalgate gateway COMMAND` on a file, as a user would run it.
async fn gateway(kubeconfig: &Path, file: &Path, arguments: &[&str]) -> Output {
    let (command, more) = arguments.split_first().unwrap();
    let output = Command::new(METALGATE)
        .args(["gateway", command, "-f"])
        .arg(file)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--reach", "direct"])
        .args(more)
        .env("METALGATE_ARTIFACTS", artifacts().dir())
        .kill_on_drop(true)
        .output();
    output.await.unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}
