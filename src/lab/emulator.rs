//! One start of QEMU: the process, and its monitor on pipes.

use super::qmp::{Ending, Qmp, QmpError};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long QEMU may take to close its disks before it is killed.
const QUIT_PATIENCE: Duration = Duration::from_secs(10);

/// QEMU while it runs.
pub struct Emulator {
    child: Child,
    qmp: Qmp,
}

impl Emulator {
    /// Starts QEMU and waits until its monitor answers; an error is its last words, which are in the file `errors`.
    pub async fn start(arguments: &[String], errors: &Path) -> Result<Self, String> {
        let io = |error: std::io::Error| error.to_string();
        let mut child = command(arguments, errors).map_err(io)?.spawn().map_err(io)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its monitor has no pipe".to_owned());
        };
        match Qmp::open(input, output).await {
            Ok(qmp) => Ok(Self { child, qmp }),
            Err(error) => {
                // Dropping the child kills it, if it is still there.
                let words = std::fs::read_to_string(errors).unwrap_or_default();
                Err(words.lines().last().map_or_else(|| error.to_string(), str::to_owned))
            }
        }
    }

    /// QEMU's process id.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Runs a command of the monitor.
    pub async fn execute(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        self.qmp.execute(command, arguments).await
    }

    /// Waits for its end. Cancel-safe.
    pub async fn ended(&mut self) -> Ending {
        self.qmp.ended().await
    }

    /// Waits for a QEMU whose pipes are closed: no longer than it takes to close the disks.
    pub async fn reap(&mut self) {
        if tokio::time::timeout(QUIT_PATIENCE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Ends it. It is asked first: killed, it could leave a write of several blocks half done.
    pub async fn quit(&mut self) {
        let quit = async {
            // It ends in the middle of its answer.
            let _ = self.qmp.execute("quit", None).await;
            self.child.wait().await
        };
        if tokio::time::timeout(QUIT_PATIENCE, quit).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// QEMU with its monitor on pipes; it dies with the daemon, however that ends.
fn command(arguments: &[String], errors: &Path) -> std::io::Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(errors)?);
    command.kill_on_drop(true);
    Ok(command)
}
