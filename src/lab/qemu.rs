//! QEMU's command line for one start of one machine: pure, so that every choice can be read and tested here.
//!
//! Each start is a process of its own: the machine's own reboot ends it (`-action reboot=shutdown`) and the daemon starts
//! the next one. That is what makes a one-time boot override end with the first reboot, as it does on real hardware:
//! within one QEMU process, `bootindex` would hold for every reboot.

use super::rack::{Accelerator, BiosPxe, Rack, RackMachine};
use crate::hardware::BootMode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The processor that is emulated where there is no KVM. An AMD one, because kernels trust it to keep their page tables
/// secret: on an Intel one they change tables with every system call, which costs an emulator dearly. Without
/// cmpxchg16b, because QEMU 7.2 translates it with broken flags, and current kernels use it in their allocator: they die with
/// a double fault at their first start. Without the two features that QEMU would warn of.
pub const EMULATED_CPU: &str = "Opteron_G3,-cx16,-svm,-misalignsse";

/// The most that QEMU keeps of what it has translated, in MiB: Kubernetes' programs are larger than its default, and when it is
/// full, all of it is thrown away and made anew.
const EMULATOR: &str = "tcg,thread=multi,tb-size=2047";

/// What an emulated machine's kernel is told through its firmware: a credential (SMBIOS type 11, systemd.system-credentials(7)) that
/// systemd-tmpfiles reads at the start of the system. Each switch between processes throws away what the emulator knows of the
/// address space, so time slices of the usual millisecond leave two thirds of the time to the emulator itself: kubeadm then runs
/// into its own limits. Slices of 100 ms are too long again: an API server among twenty busy processes does not answer its probes in
/// time. Systems without systemd ignore it.
///
/// A huge page, once mapped, makes the emulator throw away everything at each flush of one address, too: small ones cost it less.
const LONG_SLICES: &str = "w /sys/kernel/debug/sched/base_slice_ns - - - - 12000000\n\
    w /sys/kernel/mm/transparent_hugepage/enabled - - - - never\n";

/// What a start of the machine begins from. Whatever it is, the disk comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BootSource {
    /// The disk.
    Disk,
    /// PXE: DHCP and TFTP.
    Pxe,
    /// UEFI HTTP boot.
    UefiHttp,
    /// The virtual CD.
    Cd,
}

/// Firmware files of the host and of the lab.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// OVMF's code, read only.
    pub ovmf_code: PathBuf,
    /// iPXE as a kernel image.
    pub ipxe_kernel: PathBuf,
    /// The script that makes it behave as a plain PXE client.
    pub pxe_client: PathBuf,
}

/// File names within a machine's directory.
pub const DISK_FILE: &str = "disk.raw";
/// The machine's copy of OVMF's variables.
pub const VARS_FILE: &str = "vars.fd";
/// Name of the CD drive in QEMU's monitor.
pub const CD_DRIVE: &str = "cd";

/// The script with which iPXE plays the PXE ROM of a BIOS machine.
///
/// Every BIOS network ROM that QEMU ships is iPXE and says so in its user class (option 77), so a DHCP server hands it
/// the boot script at once and the TFTP half of the chain goes untested. Here iPXE gives another user class, asks for
/// IPv4 only (a ROM waits for no router advertisement), and then does what a ROM does: fetch by TFTP the file that it
/// was told and start it. The class is cleared before that, because iPXE hands its settings down to what it starts.
pub const PXE_CLIENT: &str = "#!ipxe
set user-class PXEClient
ifconf --configurator dhcp net0 || exit 1
clear user-class
chain tftp://${next-server}/${filename} || exit 1
";

/// Arguments of `qemu-system-x86_64` for starting `machine` from `source`, with `cd` in its drive.
pub fn arguments(
    rack: &Rack,
    machine: &RackMachine,
    firmware: &Firmware,
    source: BootSource,
    cd: Option<&Path>,
) -> Vec<String> {
    let mut args = Args::default();
    args.add("-name", format!("{}-{}", rack.name, machine.name));
    args.add("-machine", "q35,graphics=off");
    match rack.accelerator {
        Accelerator::Kvm => args.add("-accel", "kvm").add("-cpu", "host"),
        Accelerator::Tcg => args.add("-accel", EMULATOR).add("-cpu", EMULATED_CPU).add(
            "-smbios",
            format!(
                "type=11,value=io.systemd.credential.binary:tmpfiles.extra={}",
                BASE64_STANDARD.encode(LONG_SLICES)
            ),
        ),
    };
    args.add("-smp", rack.cpus_of(machine).to_string()).add("-m", rack.memory_mib.to_string());
    args.add("-uuid", machine.uuid.to_string());
    args.add("-smbios", format!("type=1,manufacturer=metalgate,product=Virtual rack,serial={}", machine.serial));
    args.flag("-nodefaults").flag("-no-user-config").add("-display", "none");
    args.add("-action", "reboot=shutdown");
    monitors(&mut args, rack, machine);
    if machine.boot_mode == BootMode::Uefi {
        uefi_firmware(&mut args, rack, machine, firmware, source);
    }
    network_card(&mut args, rack, machine, firmware, source);
    drives(&mut args, rack, machine, source, cd);
    // Firmware and kernels wait long for entropy without it, and newer OVMF does no network boot at all.
    args.add("-object", "rng-random,id=rng0,filename=/dev/urandom").add("-device", "virtio-rng-pci,rng=rng0");
    args.0
}

/// The daemon's monitor on stdin and stdout, one for people on a socket, and the serial console.
fn monitors(args: &mut Args, rack: &Rack, machine: &RackMachine) {
    args.add("-chardev", "stdio,id=daemon,signal=off").add("-mon", "chardev=daemon,mode=control");
    args.add("-qmp", format!("unix:{},server=on,wait=off", comma(&rack.qmp_socket(&machine.name))));
    args.add(
        "-chardev",
        format!(
            "socket,id=console,path={},server=on,wait=off,logfile={},logappend=on",
            comma(&rack.console_socket(&machine.name)),
            comma(&rack.console_log(&machine.name)),
        ),
    );
    args.add("-serial", "chardev:console");
}

fn uefi_firmware(args: &mut Args, rack: &Rack, machine: &RackMachine, firmware: &Firmware, source: BootSource) {
    let vars = rack.machine_dir(&machine.name).join(VARS_FILE);
    args.add("-drive", format!("if=pflash,format=raw,readonly=on,file={}", comma(&firmware.ovmf_code)));
    args.add("-drive", format!("if=pflash,format=raw,file={}", comma(&vars)));
    // OVMF tries PXE before HTTP on each card; without PXE, the card's boot entry that is left is HTTP.
    args.add("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n");
    if source == BootSource::UefiHttp {
        args.add("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n");
    }
}

fn network_card(args: &mut Args, rack: &Rack, machine: &RackMachine, firmware: &Firmware, source: BootSource) {
    let network_boot = matches!(source, BootSource::Pxe | BootSource::UefiHttp);
    let mut card = format!("virtio-net-pci,netdev=net0,mac={}", machine.mac);
    match (machine.boot_mode, rack.bios_pxe) {
        // No ROM: OVMF has a driver and a network stack of its own.
        (BootMode::Uefi, _) => card.push_str(",romfile="),
        (BootMode::Bios, BiosPxe::Ipxe) if network_boot => (),
        (BootMode::Bios, _) => card.push_str(",romfile="),
    }
    if network_boot && machine.boot_mode == BootMode::Bios && rack.bios_pxe == BiosPxe::Pxe {
        // SeaBIOS puts -kernel before every bootindex; when iPXE exits, it goes on with the disk.
        args.add("-kernel", firmware.ipxe_kernel.display().to_string());
        args.add("-initrd", firmware.pxe_client.display().to_string());
    } else if network_boot {
        card.push_str(",bootindex=0");
    }
    args.add("-netdev", format!("tap,id=net0,ifname={},script=no,downscript=no", machine.tap));
    args.add("-device", card);
}

fn drives(args: &mut Args, rack: &Rack, machine: &RackMachine, source: BootSource, cd: Option<&Path>) {
    let disk = rack.machine_dir(&machine.name).join(DISK_FILE);
    // The host's page cache outlives QEMU, and a lab need not outlive the host: no flush ever waits.
    args.add("-drive", format!("if=none,id=disk0,format=raw,cache=unsafe,discard=unmap,file={}", comma(&disk)));
    args.add("-device", format!("virtio-blk-pci,drive=disk0,serial={},bootindex=1", machine.serial));
    let medium = cd.map(|path| format!(",format=raw,file={}", comma(path))).unwrap_or_default();
    args.add("-drive", format!("if=none,id=cd0,media=cdrom,readonly=on{medium}"));
    let first = if source == BootSource::Cd { ",bootindex=0" } else { "" };
    args.add("-device", format!("ide-cd,drive=cd0,id={CD_DRIVE}{first}"));
}

/// A path within an option: QEMU reads `,,` as a comma.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn add(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.0.extend([name.to_owned(), value.into()]);
        self
    }

    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::rack::{RackOptions, tests::options};
    use super::*;

    fn line(machine: usize, source: BootSource, options: RackOptions) -> String {
        let rack = Rack::plan(options).unwrap();
        let firmware = Firmware {
            ovmf_code: "/fw/code.fd".into(),
            ipxe_kernel: "/fw/ipxe.lkrn".into(),
            pxe_client: "/labs/t/pxe-client.ipxe".into(),
        };
        arguments(&rack, &rack.machines[machine], &firmware, source, None).join(" ")
    }

    #[test]
    fn uefi_boots_by_its_own_pxe_and_then_from_disk() {
        let pxe = line(0, BootSource::Pxe, options());
        assert!(pxe.contains("virtio-net-pci,netdev=net0,mac=52:54:00:6d:67:01,romfile=,bootindex=0 "), "{pxe}");
        assert!(pxe.contains("virtio-blk-pci,drive=disk0,serial=MG000001,bootindex=1 "), "{pxe}");
        assert!(pxe.contains("file=/fw/code.fd") && pxe.contains("file=/labs/t/node1/vars.fd"), "{pxe}");
        assert!(!pxe.contains("IPv4PXESupport") && !pxe.contains("-kernel"), "{pxe}");
    }

    #[test]
    fn uefi_http_boot_turns_pxe_off() {
        let http = line(0, BootSource::UefiHttp, options());
        assert!(http.contains("-fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n"), "{http}");
        assert!(http.contains("romfile=,bootindex=0"), "{http}");
    }

    #[test]
    fn a_start_from_disk_offers_no_network() {
        for machine in [0, 1] {
            let disk = line(machine, BootSource::Disk, options());
            assert!(disk.contains(",romfile= "), "{disk}");
            assert!(!disk.contains("bootindex=0") && !disk.contains("-kernel"), "{disk}");
        }
    }

    #[test]
    fn bios_has_a_plain_pxe_client_or_qemus_ipxe() {
        let plain = line(1, BootSource::Pxe, options());
        assert!(plain.contains("-kernel /fw/ipxe.lkrn -initrd /labs/t/pxe-client.ipxe"), "{plain}");
        assert!(!plain.contains("pflash") && !plain.contains("bootindex=0"), "{plain}");
        let rom = line(1, BootSource::Pxe, RackOptions { bios_pxe: BiosPxe::Ipxe, ..options() });
        assert!(rom.contains("mac=52:54:00:6d:67:02,bootindex=0 "), "{rom}");
        assert!(!rom.contains("-kernel") && !rom.contains("romfile"), "{rom}");
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        let disk = line(1, BootSource::Disk, RackOptions { dir: "/labs/a,b".into(), ..options() });
        assert!(disk.contains("file=/labs/a,,b/node2/disk.raw"), "{disk}");
    }

    #[test]
    fn an_emulated_kernel_is_told_to_switch_rarely() {
        let credential =
            "-smbios type=11,value=io.systemd.credential.binary:tmpfiles.extra=dyAvc3lzL2tlcm5lbC9kZWJ1Zy9z";
        let emulated = line(1, BootSource::Disk, RackOptions { accelerator: Accelerator::Tcg, ..options() });
        assert!(emulated.contains(credential), "{emulated}");
        let virtual_machine = line(1, BootSource::Disk, RackOptions { accelerator: Accelerator::Kvm, ..options() });
        assert!(!virtual_machine.contains("type=11"), "{virtual_machine}");
    }

    #[test]
    fn every_reboot_ends_the_process() {
        assert!(line(0, BootSource::Disk, options()).contains("-action reboot=shutdown"));
    }
}
