//! `lab console`: a machine's serial line on this terminal, until Ctrl-].

use super::rack::{Rack, RackMachine};
use super::{LabError, at};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{Stdin, stdin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Ctrl-], as telnet and virsh have it.
const ESCAPE: u8 = 0x1d;

/// Joins this terminal and the serial console of `machine`, until Ctrl-], the end of the input, or power off.
pub async fn attach(rack: &Rack, machine: &RackMachine) -> Result<(), LabError> {
    let path = rack.console_socket(&machine.name);
    let (mut from, mut to) = UnixStream::connect(&path).await.map_err(at(&path))?.into_split();
    eprintln!("console of {}, Ctrl-] to leave", machine.name);
    let _raw = RawTerminal::enter();
    let (mut keys, mut screen) = (tokio::io::stdin(), tokio::io::stdout());
    let (mut typed, mut shown) = ([0; 256], [0; 4096]);
    loop {
        tokio::select! {
            read = keys.read(&mut typed) => {
                let bytes = &typed[..read.map_err(at(&path))?];
                if bytes.is_empty() || bytes.contains(&ESCAPE) {
                    return Ok(());
                }
                to.write_all(bytes).await.map_err(at(&path))?;
            }
            read = from.read(&mut shown) => {
                let bytes = &shown[..read.map_err(at(&path))?];
                if bytes.is_empty() {
                    return Ok(());
                }
                screen.write_all(bytes).await.map_err(at(&path))?;
                screen.flush().await.map_err(at(&path))?;
            }
        }
    }
}

/// The terminal without line editing and echo; as it was when dropped.
struct RawTerminal(Stdin, Termios);

impl RawTerminal {
    /// `None` where the input is no terminal.
    fn enter() -> Option<Self> {
        let input = stdin();
        let before = isatty(&input).then(|| tcgetattr(&input).ok())??;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw).ok()?;
        Some(Self(input, before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.0, OptionalActions::Now, &self.1);
    }
}
