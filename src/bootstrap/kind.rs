//! A kind cluster, for those who have Docker and want a whole cluster to look into.

use super::BootstrapCluster;
use super::existing::{self, ExistingError};
use std::io;
use std::path::Path;
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
    #[error("`--bootstrap kind` needs the program {program}; leave the option away to do without Docker")]
    NoProgram {
        /// The program.
        program: &'static str,
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
    /// The cluster that kind made does not answer.
    #[error(transparent)]
    Existing(#[from] ExistingError),
}

/// Makes the kind cluster `metalgate-NAME`, or finds the one that an earlier run made. It is kept when we end, as its data
/// lives in it.
pub async fn start(work_dir: &Path, cluster: &str) -> Result<BootstrapCluster, KindError> {
    if let Err(text) = run("docker", &["info", "--format", "{{.ServerVersion}}"], DOCKER_ANSWERS).await? {
        return Err(KindError::NoDocker(text));
    }
    let (name, kubeconfig) = (format!("metalgate-{cluster}"), work_dir.join("kind.kubeconfig"));
    let kind = async |args: &[&str]| {
        let done = run("kind", args, KIND_CREATES).await?;
        done.map_err(|output| KindError::Failed { command: args.join(" "), output })
    };
    let clusters = kind(&["get", "clusters"]).await?;
    let file = kubeconfig.display().to_string();
    if clusters.lines().any(|line| line == name) {
        kind(&["export", "kubeconfig", "--name", &name, "--kubeconfig", &file]).await?;
    } else {
        kind(&["create", "cluster", "--name", &name, "--kubeconfig", &file, "--wait", "120s"]).await?;
    }
    Ok(existing::connect(&kubeconfig).await?)
}

/// Runs a program: its stdout, or, if it fails or takes too long, what it printed on stderr.
async fn run(program: &'static str, args: &[&str], limit: Duration) -> Result<Result<String, String>, KindError> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Err(_) => Ok(Err(format!("no answer for {} s", limit.as_secs()))),
        Ok(Err(source)) => Err(KindError::NoProgram { program, source }),
        Ok(Ok(output)) if output.status.success() => Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(Ok(output)) => Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_missing_fails_or_hangs_is_told_apart() {
        let limit = Duration::from_millis(300);
        assert!(matches!(run("metalgate-no-such-program", &[], limit).await, Err(KindError::NoProgram { .. })));
        assert_eq!(run("sh", &["-c", "echo no engine >&2; exit 1"], limit).await.unwrap(), Err("no engine".into()));
        assert_eq!(run("sleep", &["5"], limit).await.unwrap(), Err("no answer for 0 s".into()));
        assert_eq!(run("echo", &["v28"], limit).await.unwrap(), Ok("v28\n".into()));
    }
}
