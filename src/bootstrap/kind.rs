//! A kind cluster, for those who have Docker and want a whole cluster to look into.

use super::existing::{self, ExistingError};
use super::{BootstrapCluster, BootstrapError, Running};
use async_trait::async_trait;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long `docker info` may take: a dead engine's socket can hang.
const DOCKER_ANSWERS: Duration = Duration::from_secs(10);
/// How long kind may take, with images to be pulled.
const KIND_CREATES: Duration = Duration::from_secs(600);

/// kind cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// A program is missing.
    #[error("`--bootstrap kind` needs the program {}; leave the option away to do without Docker", .program.display())]
    NoProgram {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Docker's engine does not answer.
    #[error(
        "`--bootstrap kind` needs a running Docker engine, and `docker info` says: {0}; leave the option away to do without"
    )]
    NoDocker(String),
    /// kind failed.
    #[error("`kind {command}` failed: {output}")]
    Failed {
        /// What was run.
        command: String,
        /// What it printed.
        output: String,
    },
    /// The cluster is there but does not answer: its creation was killed, or its containers are stopped.
    #[error("the kind cluster {name} cannot be used: start its containers, or run `kind delete cluster --name {name}`")]
    Unusable {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ExistingError,
    },
}

/// The kind cluster `metalgate-NAME`.
#[derive(Clone, Debug)]
pub struct Kind {
    docker: PathBuf,
    kind: PathBuf,
    name: String,
    kubeconfig: PathBuf,
}

#[async_trait]
impl Running for Kind {
    fn describe(&self) -> String {
        format!("the kind cluster {}", self.name)
    }

    async fn died(&mut self) -> BootstrapError {
        std::future::pending().await
    }

    /// It is kept: its data lives in it.
    async fn stop(self: Box<Self>) {}
}

impl Kind {
    /// The cluster as kind and docker of PATH know it; its kubeconfig goes into `work_dir`.
    pub fn on_path(work_dir: &Path, cluster: &str) -> Self {
        Self {
            docker: "docker".into(),
            kind: "kind".into(),
            name: format!("metalgate-{cluster}"),
            kubeconfig: work_dir.join("kind.kubeconfig"),
        }
    }

    /// Makes the cluster, or finds the one that an earlier run made, and connects to it.
    pub async fn start(self) -> Result<BootstrapCluster, KindError> {
        self.ensure().await?;
        let connected = existing::connect(&self.kubeconfig).await;
        let cluster = connected.map_err(|source| KindError::Unusable { name: self.name.clone(), source })?;
        Ok(BootstrapCluster { running: Box::new(self), ..cluster })
    }

    async fn ensure(&self) -> Result<(), KindError> {
        self.check_docker().await?;
        let file = self.kubeconfig.display().to_string();
        if self.exists().await? {
            self.kind(&["export", "kubeconfig", "--name", &self.name, "--kubeconfig", &file]).await?;
        } else {
            self.kind(&["create", "cluster", "--name", &self.name, "--kubeconfig", &file, "--wait", "120s"]).await?;
        }
        Ok(())
    }

    /// Deletes the cluster, if there is one.
    pub async fn remove(&self) -> Result<(), KindError> {
        self.check_docker().await?;
        let file = self.kubeconfig.display().to_string();
        // Without such a cluster it does nothing, and says so.
        self.kind(&["delete", "cluster", "--name", &self.name, "--kubeconfig", &file]).await?;
        Ok(())
    }

    async fn exists(&self) -> Result<bool, KindError> {
        let clusters = self.kind(&["get", "clusters"]).await?;
        Ok(clusters.lines().any(|line| line == self.name))
    }

    async fn check_docker(&self) -> Result<(), KindError> {
        let answer = run(&self.docker, &["info", "--format", "{{.ServerVersion}}"], DOCKER_ANSWERS).await?;
        answer.map(drop).map_err(KindError::NoDocker)
    }

    async fn kind(&self, args: &[&str]) -> Result<String, KindError> {
        let done = run(&self.kind, args, KIND_CREATES).await?;
        done.map_err(|output| KindError::Failed { command: args.join(" "), output })
    }
}

/// Runs a program: its stdout, or, if it fails or takes too long, what it printed on stderr.
async fn run(program: &Path, args: &[&str], limit: Duration) -> Result<Result<String, String>, KindError> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Err(_) => Ok(Err(format!("no answer for {} s", limit.as_secs()))),
        Ok(Err(source)) => Err(KindError::NoProgram { program: program.to_owned(), source }),
        Ok(Ok(output)) if output.status.success() => Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(Ok(output)) => Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(path: &Path, text: &str) -> PathBuf {
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_owned()
    }

    /// A kind that knows one cluster and writes down what it was asked for, with a docker that does `docker`.
    fn fake(dir: &Path, docker: &str) -> Kind {
        let kind = r#"
            cd "${0%/*}" && echo "$*" >>asked
            case "$1" in
            get) cat clusters 2>/dev/null || true ;;
            create) echo "$4" >clusters ;;
            delete) rm -f clusters ;;
            esac"#;
        let docker = script(&dir.join("docker"), docker);
        Kind { docker, kind: script(&dir.join("kind"), kind), ..Kind::on_path(dir, "rack-a") }
    }

    fn asked(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("asked")).unwrap_or_default();
        let _ = std::fs::remove_file(dir.join("asked"));
        text.lines().map(|line| line.replace(&dir.display().to_string(), "DIR")).collect()
    }

    #[tokio::test]
    async fn a_cluster_is_made_once_found_again_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let kind = fake(dir.path(), "echo 28.1");
        kind.ensure().await.unwrap();
        let create = "create cluster --name metalgate-rack-a --kubeconfig DIR/kind.kubeconfig --wait 120s";
        assert_eq!(asked(dir.path()), ["get clusters", create]);
        kind.ensure().await.unwrap();
        let export = "export kubeconfig --name metalgate-rack-a --kubeconfig DIR/kind.kubeconfig";
        assert_eq!(asked(dir.path()), ["get clusters", export]);
        // A cluster that kind knows but that cannot be reached is told with the way out.
        let unusable = kind.clone().start().await.err().unwrap();
        assert!(unusable.to_string().contains("kind delete cluster --name metalgate-rack-a"), "{unusable}");
        asked(dir.path());
        kind.remove().await.unwrap();
        let delete = "delete cluster --name metalgate-rack-a --kubeconfig DIR/kind.kubeconfig";
        assert_eq!(asked(dir.path()), [delete]);
        assert!(!kind.exists().await.unwrap());
    }

    #[tokio::test]
    async fn without_docker_or_kind_it_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let stopped = fake(dir.path(), "echo Cannot connect to the Docker daemon >&2; exit 1");
        let error = stopped.ensure().await.unwrap_err().to_string();
        assert!(error.contains("Cannot connect") && error.contains("leave the option away"), "{error}");
        assert!(asked(dir.path()).is_empty(), "kind is not asked without Docker");

        for missing in ["docker", "kind"] {
            let mut kind = fake(dir.path(), "true");
            let path = dir.path().join("no such program");
            if missing == "docker" {
                kind.docker = path
            } else {
                kind.kind = path
            }
            let error = kind.ensure().await.unwrap_err();
            assert!(matches!(error, KindError::NoProgram { .. }), "{error}");
            assert!(error.to_string().contains("leave the option away"), "{error}");
        }

        let mut failing = fake(dir.path(), "true");
        failing.kind = script(&dir.path().join("kind"), "echo no space left >&2; exit 1");
        assert_eq!(failing.ensure().await.unwrap_err().to_string(), "`kind get clusters` failed: no space left");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_given_up() {
        let limit = Duration::from_millis(300);
        assert_eq!(run("sleep".as_ref(), &["5"], limit).await.unwrap(), Err("no answer for 0 s".into()));
        assert_eq!(run("echo".as_ref(), &["v28"], limit * 20).await.unwrap(), Ok("v28\n".into()));
    }
}
