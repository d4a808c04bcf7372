//! What a lab consists of: pure planning from the options to names, addresses and paths.

use super::LabError;
use crate::hardware::{BootMode, MacAddr};
use crate::secret::{Secret, serialize_exposed};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Where the records and sockets of running labs are: as short-lived as the namespaces under `/run/netns`, and short
/// enough for the 108 bytes of a Unix socket's path.
const RUN_DIR: &str = "/run/metalgate/lab";

/// First host number of the machines' addresses, and of their BMCs'.
const FIRST_MACHINE: u32 = 10;
const FIRST_BMC: u32 = 200;
/// Machines that fit between these.
const MOST_MACHINES: usize = 50;
/// Label `type` of the control plane's machine in hardware.csv.
const CONTROL_PLANE: &str = "cp";

/// The account that every BMC of the lab has.
pub const BMC_USER: &str = "admin";

/// What runs the machines' code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator: some ten times slower, works everywhere.
    Tcg,
}

/// What runs the system that is installed on a machine's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Installed {
    /// The host's kernel, in a container: as fast as the host, where there is no KVM.
    Native,
    /// The machine, from its firmware on.
    Emulated,
}

/// The first thing that a BIOS machine runs from its network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BiosPxe {
    /// A PXE client like a real card's: DHCP without iPXE's user class, TFTP, then the file that it was given.
    #[default]
    Pxe,
    /// QEMU's ROM, which is iPXE itself: faster, but it skips TFTP.
    Ipxe,
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct RackOptions {
    /// The lab's name; the namespace is `mg-NAME`.
    pub name: String,
    /// Firmware of each machine, in order.
    pub machines: Vec<BootMode>,
    /// Memory of a machine, in MiB.
    pub memory_mib: u32,
    /// Virtual processors of a machine.
    pub cpus: u32,
    /// Size of a machine's disk, in GB (10^9 bytes).
    pub disk_gb: u32,
    /// Where disks, logs, hardware.csv and cluster.yaml go.
    pub dir: PathBuf,
    /// The provisioning network.
    pub subnet: Ipv4Net,
    /// One password for every BMC; else each gets a random one.
    pub bmc_password: Option<Secret<String>>,
    /// What runs the machines' code.
    pub accelerator: Accelerator,
    /// The first stage of BIOS machines.
    pub bios_pxe: BiosPxe,
    /// What runs an installed system.
    pub installed: Installed,
}

/// A lab as it will be made, and as its record says it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rack {
    /// The lab's name.
    pub name: String,
    /// Where disks, logs, hardware.csv and cluster.yaml are; absolute.
    pub dir: PathBuf,
    /// The provisioning network.
    pub subnet: Ipv4Net,
    /// Memory of a machine, in MiB.
    pub memory_mib: u32,
    /// Virtual processors of a machine.
    pub cpus: u32,
    /// Size of a machine's disk, in GB (10^9 bytes).
    pub disk_gb: u32,
    /// What runs the machines' code.
    pub accelerator: Accelerator,
    /// The first stage of BIOS machines.
    pub bios_pxe: BiosPxe,
    /// What runs an installed system.
    pub installed: Installed,
    /// The machines; the first is meant for the control plane.
    pub machines: Vec<RackMachine>,
}

/// One machine of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RackMachine {
    /// `node1`, `node2`, ...
    pub name: String,
    /// Firmware.
    pub boot_mode: BootMode,
    /// The network card's address.
    pub mac: MacAddr,
    /// The address that the inventory gives it.
    pub address: Ipv4Addr,
    /// The host's end of its cable.
    pub tap: String,
    /// Where its BMC answers, on port 443.
    pub bmc_address: Ipv4Addr,
    /// The BMC's password.
    #[serde(serialize_with = "serialize_exposed")]
    pub bmc_password: Secret<String>,
    /// Serial number of the machine; the disk's is the same.
    pub serial: String,
    /// SMBIOS UUID.
    pub uuid: uuid::Uuid,
    /// `cp` or `worker`: the label `type` in hardware.csv.
    pub role: String,
}

impl Rack {
    /// Lays out the rack that `options` ask for.
    pub fn plan(options: RackOptions) -> Result<Self, LabError> {
        check(&options)?;
        let bytes = u32::from(options.subnet.network());
        let host = |number: u32| Ipv4Addr::from(bytes + number);
        let machines = options.machines.iter().zip(1u32..).map(|(&boot_mode, number)| RackMachine {
            name: format!("node{number}"),
            boot_mode,
            mac: MacAddr([0x52, 0x54, 0x00, 0x6d, 0x67, u8::try_from(number).unwrap_or(u8::MAX)]),
            address: host(FIRST_MACHINE + number - 1),
            tap: format!("tap{number}"),
            bmc_address: host(FIRST_BMC + number - 1),
            bmc_password: options.bmc_password.clone().unwrap_or_else(random_password),
            serial: format!("MG{number:06}"),
            uuid: uuid::Uuid::new_v4(),
            role: if number == 1 { CONTROL_PLANE } else { "worker" }.to_owned(),
        });
        Ok(Self {
            machines: machines.collect(),
            name: options.name,
            dir: options.dir,
            subnet: options.subnet.trunc(),
            memory_mib: options.memory_mib,
            cpus: options.cpus,
            disk_gb: options.disk_gb,
            accelerator: options.accelerator,
            bios_pxe: options.bios_pxe,
            installed: options.installed,
        })
    }

    /// Virtual processors of one machine. A control plane gets two at least: with one, emulated, its API server starves.
    pub fn cpus_of(&self, machine: &RackMachine) -> u32 {
        if machine.role == CONTROL_PLANE { self.cpus.max(2) } else { self.cpus }
    }

    /// The network namespace.
    pub fn namespace(&self) -> String {
        namespace(&self.name)
    }

    /// The admin machine's address on the bridge: the subnet's first.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + 1)
    }

    /// The machine called `name`.
    pub fn machine(&self, name: &str) -> Result<&RackMachine, LabError> {
        self.machines.iter().find(|machine| machine.name == name).ok_or_else(|| LabError::NoMachine {
            lab: self.name.clone(),
            machine: name.to_owned(),
            known: self.machines.iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Disk, firmware variables and console log of `machine`.
    pub fn machine_dir(&self, machine: &str) -> PathBuf {
        self.dir.join(machine)
    }

    /// Everything that the machine ever wrote on its serial console.
    pub fn console_log(&self, machine: &str) -> PathBuf {
        self.machine_dir(machine).join("console.log")
    }

    /// The machine's serial console, both ways.
    pub fn console_socket(&self, machine: &str) -> PathBuf {
        run_dir(&self.name).join(format!("{machine}.console"))
    }

    /// The machine's QEMU monitor, for people with questions; the daemon has one of its own.
    pub fn qmp_socket(&self, machine: &str) -> PathBuf {
        run_dir(&self.name).join(format!("{machine}.qmp"))
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("serve.log")
    }
}

/// Records and sockets of the lab called `name`.
pub fn run_dir(name: &str) -> PathBuf {
    Path::new(RUN_DIR).join(name)
}

/// The network namespace of the lab called `name`.
pub fn namespace(name: &str) -> String {
    format!("mg-{name}")
}

/// A lab's name becomes part of paths, of a namespace's name and of a cluster's name.
pub fn check_name(name: &str) -> Result<(), LabError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 32 || !name.chars().all(plain) || name.starts_with('-') || name.ends_with('-') {
        return Err(LabError::Options(format!(
            "`{name}` is no name for a lab: 1 to 32 of a-z, 0-9 and -, with no - at either end"
        )));
    }
    Ok(())
}

fn check(options: &RackOptions) -> Result<(), LabError> {
    check_name(&options.name)?;
    let refuse = |text: String| Err(LabError::Options(text));
    if options.machines.is_empty() || options.machines.len() > MOST_MACHINES {
        return refuse(format!("a lab has 1 to {MOST_MACHINES} machines, not {}", options.machines.len()));
    }
    if options.subnet.prefix_len() > 24 {
        return refuse(format!("subnet {} is too small: a lab needs a /24 or larger", options.subnet));
    }
    if options.memory_mib < 256 {
        return refuse(format!(
            "--memory {} is too little: no machine boots with less than 256 MiB",
            options.memory_mib
        ));
    }
    if options.cpus == 0 || options.disk_gb == 0 {
        return refuse("--cpus and --disk must be at least 1".to_owned());
    }
    Ok(())
}

/// 96 random bits; hexadecimal, so that no CSV, URL or shell needs to quote it.
fn random_password() -> Secret<String> {
    Secret::new(hex::encode(rand::random::<[u8; 12]>()))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    pub fn options() -> RackOptions {
        RackOptions {
            name: "t".into(),
            machines: vec![BootMode::Uefi, BootMode::Bios],
            memory_mib: 512,
            cpus: 1,
            disk_gb: 4,
            dir: "/labs/t".into(),
            subnet: "10.77.0.0/24".parse().unwrap(),
            bmc_password: None,
            accelerator: Accelerator::Tcg,
            bios_pxe: BiosPxe::Pxe,
            installed: Installed::Emulated,
        }
    }

    #[test]
    fn lays_out_addresses_that_never_meet() {
        let rack = Rack::plan(RackOptions { machines: vec![BootMode::Bios; 50], ..options() }).unwrap();
        let mut addresses = vec![rack.gateway()];
        addresses.extend(rack.machines.iter().flat_map(|machine| [machine.address, machine.bmc_address]));
        let count = addresses.len();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), count);
        assert!(addresses.iter().all(|address| rack.subnet.contains(address)));
        assert!(!addresses.contains(&rack.subnet.broadcast()));
    }

    #[test]
    fn the_first_machine_is_the_control_plane_and_passwords_differ() {
        let rack = Rack::plan(options()).unwrap();
        assert_eq!(rack.machines.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(), ["cp", "worker"]);
        assert_ne!(rack.machines[0].bmc_password, rack.machines[1].bmc_password);
        let fixed = RackOptions { bmc_password: Some(Secret::new("calvin".into())), ..options() };
        assert_eq!(Rack::plan(fixed).unwrap().machines[1].bmc_password.expose(), "calvin");
    }

    #[test]
    fn the_record_reads_back() {
        let rack = Rack::plan(options()).unwrap();
        let text = serde_json::to_string(&rack).unwrap();
        let again: Rack = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
        assert_eq!(again.machines[0].bmc_password, rack.machines[0].bmc_password);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let bad = [
            RackOptions { name: "Rack".into(), ..options() },
            RackOptions { name: "../etc".into(), ..options() },
            RackOptions { machines: vec![], ..options() },
            RackOptions { machines: vec![BootMode::Uefi; 51], ..options() },
            RackOptions { subnet: "10.77.0.0/25".parse().unwrap(), ..options() },
            RackOptions { memory_mib: 64, ..options() },
            RackOptions { cpus: 0, ..options() },
        ];
        for options in bad {
            assert!(matches!(Rack::plan(options), Err(LabError::Options(_))));
        }
    }
}
