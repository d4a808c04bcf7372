//! IPMI 2.0 over RMCP+, by the `ipmitool` program.
//!
//! The password goes through the environment (`ipmitool -E`): unlike an argument it is readable only by the same user,
//! and unlike a file it leaves nothing behind when we are killed.

use super::{Bmc, BmcError, BmcIdentity, BootDevice, Clock, EXTRAS, Examination, Role, SETTLE, settle};
use crate::hardware::{BootMode, PowerState};
use crate::inventory::BmcAccess;
use crate::secret::Secret;
use async_trait::async_trait;
use jiff::Timestamp;
use std::io::ErrorKind;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::process::Command;
use url::Url;

/// For one run of ipmitool, with its own retries.
const RUN: Duration = Duration::from_secs(20);
/// For the answer to a question, and how often it is asked: UDP loses packets.
const ANSWER: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 3;
/// Get Channel Authentication Capabilities (IPMI 2.0, 22.13) outside of a session: every BMC has to answer it without an
/// account, unlike the presence ping, which many leave out.
const CAPABILITIES: [u8; 23] = [
    6, 0, 0xff, 7, // RMCP header: IPMI
    0, 0, 0, 0, 0, 0, 0, 0, 0, 9, // no authentication, sequence or session; the length of the message
    0x20, 0x18, 0xc8, 0x81, 0, 0x38, 0x8e, 4, 0xb5, // the command: this channel, IPMI 2.0, Administrator
];
/// Suite 17 (SHA-256) is what current BMCs want, suite 3 (SHA-1) all that old ones have.
const SUITES: [&str; 2] = ["17", "3"];

/// A BMC that speaks IPMI.
#[derive(Debug)]
pub struct Ipmi {
    host: String,
    port: u16,
    user: String,
    password: Secret<String>,
    /// The cipher suite that the BMC takes, once that is known.
    suite: OnceLock<&'static str>,
}

impl Ipmi {
    /// A client for `access`; nothing is sent yet.
    pub fn new(access: &BmcAccess) -> Result<Self, BmcError> {
        let unusable = || BmcError::Unreachable {
            bmc: access.url.clone(),
            reason: String::from("the address cannot be used; ipmi://HOST:PORT is expected"),
        };
        let url: Url = access.url.parse().map_err(|_| unusable())?;
        let host = url.host_str().ok_or_else(unusable)?.trim_matches(['[', ']']).to_owned();
        let (user, password) = (access.username.clone(), access.password.clone());
        Ok(Self { host, port: url.port().unwrap_or(623), user, password, suite: OnceLock::new() })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Runs an IPMI command; gives what it printed.
    async fn run(&self, action: &str, command: &[&str]) -> Result<String, BmcError> {
        if let Some(suite) = self.suite.get() {
            return self.run_with_suite(suite, action, command).await;
        }
        let [first, second] = SUITES;
        let (suite, result) = match self.run_with_suite(first, action, command).await {
            // It says the same of a suite that it does not have and of a wrong password.
            Err(BmcError::Unauthorized { .. }) => (second, self.run_with_suite(second, action, command).await),
            result => (first, result),
        };
        if result.is_ok() {
            self.suite.get_or_init(|| suite);
        }
        result
    }

    async fn run_with_suite(&self, suite: &str, action: &str, command: &[&str]) -> Result<String, BmcError> {
        let port = self.port.to_string();
        let mut program = Command::new("ipmitool");
        program.args(["-I", "lanplus", "-C", suite, "-H", &self.host, "-p", &port, "-U", &self.user]);
        // Operator is all that our commands need (IPMI 2.0, table G-1); more is refused to an account that has no more.
        program.args(["-L", "OPERATOR", "-N", "2", "-R", "3", "-E"]).args(command);
        program.env("IPMI_PASSWORD", self.password.expose()).stdin(Stdio::null()).kill_on_drop(true);
        let unreachable = |reason: String| BmcError::Unreachable { bmc: self.address(), reason };
        let output = match tokio::time::timeout(RUN, program.output()).await {
            Err(_) => return Err(unreachable(format!("no answer for {} s", RUN.as_secs()))),
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                let reason = String::from("the program ipmitool is not installed on this machine");
                return Err(BmcError::Unsupported { bmc: self.address(), action: action.to_owned(), reason });
            }
            Ok(Err(error)) => return Err(unreachable(format!("ipmitool cannot be run: {error}"))),
            Ok(Ok(output)) => output,
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.explain(action, &String::from_utf8_lossy(&output.stderr)).await)
    }

    /// The error that ipmitool's complaint means. It says the same of a wrong password and of a host that is not there,
    /// so the host is asked whether it is there.
    async fn explain(&self, action: &str, complaint: &str) -> BmcError {
        let (bmc, user, action) = (self.address(), self.user.clone(), action.to_owned());
        match Complaint::of(complaint) {
            Complaint::Privilege => BmcError::Forbidden { bmc, user, action },
            Complaint::Name(reason) => BmcError::Unreachable { bmc, reason },
            Complaint::Session if self.answers().await => BmcError::Unauthorized { bmc, user },
            Complaint::Session => {
                BmcError::Unreachable { bmc, reason: String::from("nothing there answers IPMI (UDP)") }
            }
            Complaint::Command(reason) => BmcError::Unsupported { bmc, action, reason },
            Complaint::Other(reason) => BmcError::Failed { bmc, action, reason },
        }
    }

    /// Whether a BMC answers there, whatever the account.
    async fn answers(&self) -> bool {
        let answer = async {
            let any = if self.host.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).await?;
            socket.connect((self.host.as_str(), self.port)).await?;
            for _ in 0..QUESTIONS {
                socket.send(&CAPABILITIES).await?;
                if let Ok(answer) = tokio::time::timeout(ANSWER, socket.recv(&mut [0u8; 64])).await {
                    return answer;
                }
            }
            Err(ErrorKind::TimedOut.into())
        };
        answer.await.is_ok()
    }
}

/// What ipmitool complains about on its standard error.
#[derive(Debug, PartialEq, Eq)]
enum Complaint {
    /// The account may not do this, or not log in with the privilege that it takes.
    Privilege,
    /// The host's name has no address.
    Name(String),
    /// No session: nobody there, or a wrong account or password.
    Session,
    /// The BMC knows no such command.
    Command(String),
    /// Anything else, by the last line.
    Other(String),
}

impl Complaint {
    fn of(complaint: &str) -> Self {
        // The texts are ipmitool's: `completion_code_vals` and lib/ipmi_main.c, src/plugins/lanplus/lanplus.c.
        let says = |what: &[&str]| {
            let line = complaint.lines().find(|line| what.iter().any(|what| line.contains(what)));
            line.map(|line| line.trim().to_owned())
        };
        // A name that has no address, and a refused privilege, fail the session too: they come first.
        if let Some(line) = says(&["Address lookup for"]) {
            return Self::Name(line);
        }
        if says(&["Insufficient privilege level", "privilege level requested"]).is_some() {
            return Self::Privilege;
        }
        if says(&["Unable to establish", "RAKP", "Could not open socket", "Activate Session"]).is_some() {
            return Self::Session;
        }
        if let Some(line) =
            says(&["Invalid command", "Command response could not be provided", "Parameter not supported"])
        {
            return Self::Command(line);
        }
        let last = complaint.lines().map(str::trim).rfind(|line| !line.is_empty());
        Self::Other(last.unwrap_or("ipmitool does not say why").to_owned())
    }
}

/// The power state in the answer to `chassis power status`.
fn power_state(text: &str) -> Option<PowerState> {
    match text.lines().map(str::trim).rfind(|line| line.starts_with("Chassis Power is "))? {
        line if line.ends_with(" on") => Some(PowerState::On),
        line if line.ends_with(" off") => Some(PowerState::Off),
        _ => None,
    }
}

/// What `mc info` tells.
fn identity(text: &str) -> BmcIdentity {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name))?;
        let value = line.split_once(':')?.1.trim();
        // ipmitool has names for few of the numbers.
        (!value.is_empty() && !value.starts_with("Unknown")).then(|| value.to_owned())
    };
    let (vendor, model) = (field("Manufacturer Name"), field("Product Name"));
    BmcIdentity { vendor, model, serial: None, firmware: field("Firmware Revision") }
}

/// The moment in the raw answer to Get SEL Time: four bytes, the lowest first.
fn sel_time(text: &str) -> Option<Timestamp> {
    let bytes: Vec<u8> =
        text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    let seconds = u32::from_le_bytes(bytes.try_into().ok()?);
    Timestamp::from_second(seconds.into()).ok()
}

#[async_trait]
impl Bmc for Ipmi {
    async fn power_state(&self) -> Result<PowerState, BmcError> {
        let action = "tell the power state";
        let text = self.run(action, &["chassis", "power", "status"]).await?;
        power_state(&text).ok_or_else(|| BmcError::Protocol {
            bmc: self.address(),
            action: action.to_owned(),
            reason: text.trim().to_owned(),
        })
    }

    async fn power_on(&self) -> Result<(), BmcError> {
        if self.power_state().await? == PowerState::On {
            return Ok(());
        }
        self.run("power on", &["chassis", "power", "on"]).await?;
        settle(self, &self.address(), PowerState::On, SETTLE).await
    }

    async fn power_off(&self) -> Result<(), BmcError> {
        if self.power_state().await? == PowerState::Off {
            return Ok(());
        }
        self.run("power off", &["chassis", "power", "off"]).await?;
        settle(self, &self.address(), PowerState::Off, SETTLE).await
    }

    async fn boot_once(&self, device: BootDevice, mode: BootMode) -> Result<(), BmcError> {
        let name = match device {
            BootDevice::Pxe => "pxe",
            BootDevice::VirtualMedia => "cdrom",
            BootDevice::Disk => "disk",
            BootDevice::UefiHttp => {
                let (action, reason) =
                    (String::from("boot once from UEFI HTTP"), String::from("IPMI knows no such device"));
                return Err(BmcError::Unsupported { bmc: self.address(), action, reason });
            }
        };
        // Once is what IPMI means unless told otherwise. Without `efiboot` the flags ask for a BIOS start.
        let mut command = vec!["chassis", "bootdev", name];
        if mode == BootMode::Uefi {
            command.push("options=efiboot");
        }
        self.run(&format!("boot once from {name}"), &command).await.map(drop)
    }

    async fn insert_media(&self, _: &str) -> Result<(), BmcError> {
        let (action, reason) = (String::from("insert virtual media"), String::from("IPMI has none; use Redfish"));
        Err(BmcError::Unsupported { bmc: self.address(), action, reason })
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        Ok(())
    }

    async fn examine(&self) -> Result<Examination, BmcError> {
        let power = self.power_state().await?;
        // Sessions are opened as Operator, which is what our orders need: a BMC refuses that to an account that is less.
        let role = Some(Role { name: String::from("Operator"), suffices: true });
        let action = "tell its state";
        let extras = async {
            // Parameter 5 are the boot flags (IPMI 2.0, 28.13), of which `boot_once` sets one; 0x0a 0x48 is Get SEL Time (31.10).
            let flags = self.run(action, &["chassis", "bootparam", "get", "5"]).await.ok();
            let boots_from = flags.map(|_| vec![BootDevice::Pxe, BootDevice::VirtualMedia, BootDevice::Disk]);
            let time = self.run(action, &["raw", "0x0a", "0x48"]).await.ok();
            // Seconds of the BMC's local time, by 37.1; many count UTC all the same.
            let clock = time.and_then(|text| sel_time(&text)).map(|at| Clock { at, maybe_local: true });
            (boots_from, clock)
        };
        let (boots_from, clock) = tokio::time::timeout(EXTRAS, extras).await.unwrap_or_default();
        Ok(Examination { power, boots_from, role, clock })
    }

    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        Ok(identity(&self.run("tell what it is", &["mc", "info"]).await?))
    }
}

#[cfg(test)]
mod tests;
