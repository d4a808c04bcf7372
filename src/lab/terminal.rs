//! The console of a machine that runs as a container: a pseudo-terminal that is written to the console's log and offered on the
//! console's socket, as QEMU does with an emulated machine's serial line.

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A terminal whose output is being logged; it ends when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    /// The end that the machine uses.
    pub path: PathBuf,
    relay: JoinHandle<()>,
}

impl Terminal {
    /// Opens a terminal, logs to `log`, and lets one visitor at a time in at `socket`.
    pub fn open(log: &Path, socket: &Path) -> io::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&ours)?;
        let path = PathBuf::from(ptsname(&ours, Vec::new())?.into_string().map_err(io::Error::other)?);
        // Held open here, too: a terminal that nobody has open says that it is gone.
        let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        let log = File::options().create(true).append(true).open(log)?;
        // QEMU leaves its socket behind, as we do.
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let listener = UnixListener::bind(socket)?;
        // A terminal is polled, read and written like a pipe.
        let input = pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?;
        let output = pipe::Receiver::from_owned_fd_unchecked(ours)?;
        let relay = tokio::spawn(async move {
            // An end of this costs the log, not the machine.
            if let Err(error) = relay(output, input, log, &listener).await {
                tracing::error!(%error, "a console is no longer read");
            }
            drop(theirs);
        });
        Ok(Self { path, relay })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(
    mut output: pipe::Receiver,
    mut input: pipe::Sender,
    mut log: File,
    listener: &UnixListener,
) -> io::Result<()> {
    let mut visitor: Option<UnixStream> = None;
    let (mut shown, mut typed) = ([0; 4096], [0; 256]);
    loop {
        tokio::select! {
            read = output.read(&mut shown) => {
                let bytes = &shown[..read?];
                log.write_all(bytes)?;
                if let Some(stream) = &mut visitor
                    && stream.write_all(bytes).await.is_err()
                {
                    visitor = None;
                }
            }
            accepted = listener.accept(), if visitor.is_none() => visitor = Some(accepted?.0),
            read = read_from(&mut visitor, &mut typed) => match read {
                Ok(0) | Err(_) => visitor = None,
                Ok(read) => input.write_all(&typed[..read]).await?,
            },
        }
    }
}

/// What the visitor types; for ever while there is none.
async fn read_from(visitor: &mut Option<UnixStream>, typed: &mut [u8]) -> io::Result<usize> {
    match visitor {
        Some(stream) => stream.read(typed).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_the_machine_writes_is_logged_and_shown_and_what_is_typed_reaches_it() {
        let dir = tempfile::tempdir().unwrap();
        let (log, socket) = (dir.path().join("log"), dir.path().join("socket"));
        let terminal = Terminal::open(&log, &socket).unwrap();
        let mut visitor = UnixStream::connect(&socket).await.unwrap();
        let mut machine = File::options().read(true).write(true).open(&terminal.path).unwrap();
        visitor.write_all(b"hello\r").await.unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = [0; 16];
            let read = std::io::Read::read(&mut machine, &mut line).unwrap();
            machine.write_all(b"welcome\n").unwrap();
            line[..read].to_vec()
        });
        assert_eq!(line.await.unwrap(), b"hello\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"welcome\r\n") {
            let reading = tokio::time::timeout(Duration::from_secs(5), visitor.read_buf(&mut seen)).await;
            assert!(reading.unwrap().unwrap() > 0);
        }
        // The terminal's own echo is part of it.
        assert_eq!(std::fs::read(&log).unwrap(), b"hello\r\nwelcome\r\n");
    }
}
