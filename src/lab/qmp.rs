//! QEMU's monitor protocol on the standard input and output of a child: one command at a time, events on the way.

use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

/// QEMU answers a command within milliseconds, but a loaded host may take long to start it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What QEMU's monitor refused or did not do.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU ended, or closed its monitor.
    #[error("QEMU is gone")]
    Closed,
    /// No answer in time.
    #[error("QEMU's monitor did not answer `{command}` within {} s", PATIENCE.as_secs())]
    Timeout {
        /// The command.
        command: String,
    },
    /// QEMU refused a command.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
}

/// Why QEMU ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest reset itself: it is to be started again.
    GuestReset,
    /// The guest shut down, or somebody stopped QEMU.
    Off,
}

/// A monitor.
pub struct Qmp<W = ChildStdin, R = ChildStdout> {
    input: W,
    output: Lines<BufReader<R>>,
    ending: Ending,
    commands: u64,
}

impl<W: AsyncWrite + Unpin, R: AsyncRead + Unpin> Qmp<W, R> {
    /// Waits for QEMU's greeting and opens the session.
    pub async fn open(input: W, output: R) -> Result<Self, QmpError> {
        let mut qmp = Self { input, output: BufReader::new(output).lines(), ending: Ending::Off, commands: 0 };
        qmp.execute("qmp_capabilities", None).await?;
        Ok(qmp)
    }

    /// Runs a command and gives its result.
    pub async fn execute(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        tokio::time::timeout(PATIENCE, self.exchange(command, arguments))
            .await
            .map_err(|_| QmpError::Timeout { command: command.to_owned() })?
    }

    async fn exchange(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        self.commands += 1;
        // The id tells this answer from the late one to a command that was given up.
        let id = json!(self.commands);
        let mut request = json!({"execute": command, "id": id});
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        self.input.write_all(format!("{request}\n").as_bytes()).await.map_err(|_| QmpError::Closed)?;
        loop {
            let message = self.message().await.ok_or(QmpError::Closed)?;
            if message["id"] != id {
                continue;
            }
            if let Some(result) = message.get("return") {
                return Ok(result.clone());
            }
            if let Some(error) = message.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), reason });
            }
        }
    }

    /// Reads until QEMU ends, and says why it did.
    ///
    /// Cancel-safe: what was read stays noted, so the daemon may select on this.
    pub async fn ended(&mut self) -> Ending {
        while self.message().await.is_some() {}
        self.ending
    }

    /// The next message; notes why QEMU is about to end. `None` at the end of the stream.
    async fn message(&mut self) -> Option<Value> {
        let line = self.output.next_line().await.ok()??;
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        if message["event"] == "SHUTDOWN" {
            self.ending = match message["data"]["reason"].as_str() {
                Some("guest-reset") => Ending::GuestReset,
                _ => Ending::Off,
            };
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex, split};

    /// A monitor whose other end answers each command with the next of `answers` and then closes.
    async fn qemu(mut end: DuplexStream, answers: Vec<&'static str>) {
        end.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
        for answer in answers {
            let mut buffer = [0; 1024];
            assert!(end.read(&mut buffer).await.unwrap() > 0);
            end.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn events_on_the_way_say_why_it_ended() {
        for (reason, ending) in [("guest-reset", Ending::GuestReset), ("guest-shutdown", Ending::Off)] {
            let (ours, theirs) = duplex(4096);
            let (output, input) = split(ours);
            let event =
                format!("{{\"event\": \"SHUTDOWN\", \"data\": {{\"guest\": true, \"reason\": \"{reason}\"}}}}\n")
                    .leak();
            let answers = vec!["{\"return\": {}, \"id\": 1}\n", event];
            let peer = tokio::spawn(qemu(theirs, answers));
            let mut qmp = Qmp::open(input, output).await.unwrap();
            assert!(matches!(qmp.execute("quit", None).await, Err(QmpError::Closed)));
            assert_eq!(qmp.ended().await, ending);
            peer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_refusal_carries_qemus_words_and_a_late_answer_is_no_answer() {
        let (ours, theirs) = duplex(4096);
        let (output, input) = split(ours);
        let refusal = "{\"return\": {}, \"id\": 1}\n{\"error\": {\"desc\": \"no such drive\"}, \"id\": 2}\n";
        let peer = tokio::spawn(qemu(theirs, vec!["{\"return\": {}, \"id\": 1}\n", refusal]));
        let mut qmp = Qmp::open(input, output).await.unwrap();
        let error = qmp.execute("eject", None).await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused `eject`: no such drive");
        peer.await.unwrap();
    }
}
