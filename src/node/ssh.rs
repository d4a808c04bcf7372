//! SSH to an installed machine: the host key is known beforehand, the login is by key, every wait is bounded.

use crate::secret::Secret;
use rand::Rng;
use russh::client::{self, Handle};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

/// Where to log in.
#[derive(Clone, Debug)]
pub struct Target {
    /// The machine's address.
    pub address: IpAddr,
    /// TCP port; 22.
    pub port: u16,
    /// Account.
    pub user: String,
}

/// A machine that answered as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Of its host key, `SHA256:...`.
    pub fingerprint: String,
    /// What `uname -n` said.
    pub hostname: String,
}

/// Why a machine does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No TCP connection: it is still starting, or its network is not what the inventory says.
    #[error("{address} does not accept SSH connections")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Connected, but it says nothing.
    #[error("{address} did not finish the SSH login within {} s", .limit.as_secs())]
    Timeout {
        /// Where.
        address: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// Another machine, or another system on its disk.
    #[error(
        "{address} has the SSH host key {found} instead of {expected}, which the installer wrote: another machine has this \
         address, or an older system started from another disk"
    )]
    HostKeyMismatch {
        /// Where.
        address: SocketAddr,
        /// Fingerprint of the key that was installed.
        expected: String,
        /// Fingerprint of the key that it showed.
        found: String,
    },
    /// The login was refused.
    #[error("{address} refuses the installer's key for user `{user}`: cloud-init has not made the account (yet)")]
    AuthRefused {
        /// Where.
        address: SocketAddr,
        /// Account.
        user: String,
    },
    /// The connection broke, or the other side does not speak SSH as we do.
    #[error("SSH to {address} broke")]
    Protocol {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: russh::Error,
    },
    /// A command did not end in time.
    #[error("a command on {address} did not end within {} s", .limit.as_secs())]
    Slow {
        /// Where.
        address: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// The connection ended before the command did.
    #[error("SSH to {address} was lost while a command ran")]
    Lost {
        /// Where.
        address: SocketAddr,
    },
    /// A key of ours cannot be read or made.
    #[error("an SSH key of this cluster is unusable")]
    Key(#[source] russh::keys::ssh_key::Error),
}

/// A fresh Ed25519 key pair: the private key in OpenSSH's format, and the public key's line.
pub fn generate_ed25519() -> Result<(Secret<String>, String), SshError> {
    let mut seed = Zeroizing::new([0u8; 32]);
    rand::rng().fill_bytes(seed.as_mut_slice());
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(pair, "").map_err(SshError::Key)?;
    let private = key.to_openssh(LineEnding::LF).map_err(SshError::Key)?;
    let public = key.public_key().to_openssh().map_err(SshError::Key)?;
    Ok((Secret::new(private.to_string()), public))
}

/// The public key's line of a private key in OpenSSH's format.
pub fn public_key(private: &Secret<String>) -> Result<String, SshError> {
    let key = PrivateKey::from_openssh(private.expose()).map_err(SshError::Key)?;
    key.public_key().to_openssh().map_err(SshError::Key)
}

/// Compares the host key that is shown with the one that was installed.
struct HostKeyCheck {
    expected: PublicKey,
    /// Fingerprint of a key that did not fit.
    foreign: Arc<Mutex<Option<String>>>,
}

impl client::Handler for HostKeyCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let (fits, found) = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                (key.key_data() == self.expected.key_data(), key.fingerprint(HashAlg::Sha256).to_string())
            }
            PublicKeyOrCertificate::Certificate(_) => (false, String::from("a certificate")),
        };
        if !fits {
            *self.foreign.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
        Ok(fits)
    }
}

/// What a command on a machine ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; none if a signal ended it.
    pub status: Option<u32>,
    /// What it printed, stdout and stderr as they came.
    pub text: String,
}

/// A login on a machine whose host key is the one that it was given.
pub struct Session {
    handle: Handle<HostKeyCheck>,
    address: SocketAddr,
    fingerprint: String,
}

impl Session {
    /// Logs in to `target` with `key`, within `limit`.
    ///
    /// `host_key` is the public key's line that the machine was given; nothing else is accepted.
    pub async fn connect(
        target: &Target,
        key: &Secret<String>,
        host_key: &str,
        limit: Duration,
    ) -> Result<Self, SshError> {
        let address = SocketAddr::new(target.address, target.port);
        let expected = PublicKey::from_openssh(host_key).map_err(SshError::Key)?;
        let key = PrivateKey::from_openssh(key.expose()).map_err(SshError::Key)?;
        let login = login(address, target, key, expected);
        tokio::time::timeout(limit, login).await.unwrap_or(Err(SshError::Timeout { address, limit }))
    }

    /// Of the machine's host key, `SHA256:...`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Runs a shell script as root. It travels over stdin, so nothing of it shows in an argument list. `line` is given
    /// each line that it prints. A script that takes longer than `limit` is left alone on the machine, and is an error.
    pub async fn run_as_root(
        &self,
        script: &Secret<String>,
        limit: Duration,
        line: impl FnMut(&str) + Send,
    ) -> Result<Output, SshError> {
        let run = self.exec("sudo -n /bin/sh -s", script.expose().as_bytes(), line);
        let timeout = SshError::Slow { address: self.address, limit };
        tokio::time::timeout(limit, run).await.unwrap_or(Err(timeout))
    }

    async fn exec(&self, command: &str, input: &[u8], mut line: impl FnMut(&str) + Send) -> Result<Output, SshError> {
        let broke = |source| SshError::Protocol { address: self.address, source };
        let mut channel = self.handle.channel_open_session().await.map_err(broke)?;
        channel.exec(true, command).await.map_err(broke)?;
        channel.data(input).await.map_err(broke)?;
        channel.eof().await.map_err(broke)?;
        let (mut output, mut shown, mut ended, mut status) = (Vec::new(), 0, false, None);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => output.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => (ended, status) = (true, Some(exit_status)),
                ChannelMsg::ExitSignal { .. } => ended = true,
                _ => {}
            }
            while let Some(end) = output[shown..].iter().position(|byte| *byte == b'\n') {
                line(&String::from_utf8_lossy(&output[shown..shown + end]));
                shown += end + 1;
            }
        }
        // A connection that breaks ends the channel without a word of how the command ended.
        if !ended {
            return Err(SshError::Lost { address: self.address });
        }
        Ok(Output { status, text: String::from_utf8_lossy(&output).into_owned() })
    }

    /// Says goodbye; how the other side takes it does not matter.
    pub async fn close(self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }
}

/// Logs in to `target` with `key` and asks for its name. All of it takes `limit` at most.
pub async fn verify(
    target: &Target,
    key: &Secret<String>,
    host_key: &str,
    limit: Duration,
) -> Result<Verified, SshError> {
    let session = Session::connect(target, key, host_key, limit).await?;
    let address = session.address;
    let named = tokio::time::timeout(limit, session.exec("uname -n", b"", |_| {})).await;
    let hostname = named.unwrap_or(Err(SshError::Timeout { address, limit }))?.text.trim().to_owned();
    let verified = Verified { fingerprint: session.fingerprint.clone(), hostname };
    session.close().await;
    Ok(verified)
}

async fn login(
    address: SocketAddr,
    target: &Target,
    key: PrivateKey,
    expected: PublicKey,
) -> Result<Session, SshError> {
    let fingerprint = expected.fingerprint(HashAlg::Sha256).to_string();
    let foreign = Arc::new(Mutex::new(None));
    let broke = |source| SshError::Protocol { address, source };
    let stream = TcpStream::connect(address).await.map_err(|source| SshError::Unreachable { address, source })?;
    let config = client::Config {
        // A machine that is cut off is noticed after three of these.
        keepalive_interval: Some(Duration::from_secs(10)),
        keepalive_max: 3,
        ..client::Config::default()
    };
    let check = HostKeyCheck { expected, foreign: foreign.clone() };
    let mut handle = client::connect_stream(Arc::new(config), stream, check).await.map_err(|source| {
        match foreign.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(found) => SshError::HostKeyMismatch { address, expected: fingerprint.clone(), found },
            None => broke(source),
        }
    })?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    if !handle.authenticate_publickey(&target.user, key).await.map_err(broke)?.success() {
        return Err(SshError::AuthRefused { address, user: target.user.clone() });
    }
    Ok(Session { handle, address, fingerprint })
}
