//! Both BMC clients against services that we did not write: sushy-tools (Redfish) and VirtualBMC (IPMI), in front of
//! virtual machines of libvirt, whose own tool is the witness. Root is needed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod peers;

use metalgate::hardware::{BootMode, PowerState};
use metalgate::inventory::{BmcAccess, BmcKind};
use metalgate::power::{Bmc, BmcError, BootDevice, Redfish, connect};
use metalgate::secret::Secret;
use peers::{Witness, among_peers};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One machine, in the clear.
const CLEAR: &str = "http://127.0.0.1:8000";
/// All machines, over TLS with a certificate that nobody signed.
const TLS: &str = "https://127.0.0.1:8443";
const UEFI: &str = "https://127.0.0.1:8443/redfish/v1/Systems/22222222-2222-4222-8222-222222222222";
const IPMI: &str = "ipmi://127.0.0.1:6230";
/// Takes every packet and answers none.
const SILENT: &str = "198.51.100.9";
const PASSWORD: &str = "right";
/// No call may take longer, whatever the BMC does not do: four tries of a connection, or two runs of ipmitool.
const BOUND: Duration = Duration::from_secs(90);

/// Each of these machines serves one test at a time.
static PLAIN: Mutex<()> = Mutex::new(());
static WITH_UEFI: Mutex<()> = Mutex::new(());
static WITH_IPMI: Mutex<()> = Mutex::new(());

fn alone(machine: &'static Mutex<()>) -> MutexGuard<'static, ()> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client(kind: BmcKind, url: &str, password: &str) -> Arc<dyn Bmc> {
    let (username, password) = (String::from("admin"), Secret::new(password.to_owned()));
    connect(&BmcAccess { kind, url: url.to_owned(), username, password }).unwrap()
}

fn redfish(url: &str) -> Arc<dyn Bmc> {
    client(BmcKind::Redfish, url, PASSWORD)
}

fn ipmi(url: &str) -> Arc<dyn Bmc> {
    client(BmcKind::Ipmi, url, PASSWORD)
}

/// The error of a call that has to end, and in time.
async fn error_of(bmc: &dyn Bmc) -> BmcError {
    tokio::time::timeout(BOUND, bmc.power_state()).await.expect("the call ends").unwrap_err()
}

/// Off, on, on again, off, off again; libvirt agrees each time.
async fn power(bmc: &dyn Bmc, machine: &Witness) {
    bmc.power_off().await.unwrap();
    for _ in 0..2 {
        bmc.power_on().await.unwrap();
        assert_eq!(bmc.power_state().await.unwrap(), PowerState::On);
        assert_eq!(machine.state(), "running");
    }
    for _ in 0..2 {
        bmc.power_off().await.unwrap();
        assert_eq!(bmc.power_state().await.unwrap(), PowerState::Off);
        assert_eq!(machine.state(), "shut off");
    }
}

#[test]
fn redfish_switches_the_power() {
    let _machine = alone(&PLAIN);
    among_peers(async || power(redfish(CLEAR).as_ref(), &Witness("plain")).await);
}

#[test]
fn redfish_over_tls_with_a_certificate_that_nobody_signed() {
    let _machine = alone(&WITH_UEFI);
    among_peers(async || power(redfish(UEFI).as_ref(), &Witness("uefi")).await);
}

#[test]
fn redfish_tells_what_the_machine_has() {
    among_peers(async || {
        let access = |url: &str, password: &str| BmcAccess {
            kind: BmcKind::Redfish,
            url: url.to_owned(),
            username: String::from("admin"),
            password: Secret::new(password.to_owned()),
        };
        let inventory = Redfish::new(&access(UEFI, PASSWORD)).unwrap().inventory().await.unwrap();
        let macs: Vec<String> = inventory.nics.iter().map(|nic| nic.mac.to_string()).collect();
        assert_eq!(macs, [Witness("uefi").mac()]);
        assert_eq!(inventory.boot_mode, Some(BootMode::Uefi));
        let refused = Redfish::new(&access(UEFI, "wrong")).unwrap().inventory().await.unwrap_err();
        assert!(matches!(refused, BmcError::Unauthorized { .. }), "{refused}");
    });
}

#[test]
fn an_inventory_is_made_of_what_bmcs_tell() {
    among_peers(async || {
        let dir = tempfile::tempdir().unwrap();
        let rows = format!("{UEFI},admin,{PASSWORD}\n{TLS}/,admin,wrong\n{IPMI},admin,{PASSWORD}\n");
        std::fs::write(dir.path().join("bmcs.csv"), format!("bmc_ip,bmc_username,bmc_password\n{rows}")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_metalgate"))
            .current_dir(dir.path())
            .args(["generate", "hardware", "--bmc", "bmcs.csv", "--addresses", "10.20.0.20-10.20.0.60/24"])
            .output()
            .unwrap();
        let (csv, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{said}");
        let (mac, network) = (Witness("uefi").mac(), "255.255.255.0,,,,");
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(rows.len(), 3, "{csv}");
        let first = format!("node-1,{UEFI},admin,{PASSWORD},{mac},10.20.0.20,{network}");
        assert!(rows[0].starts_with(&first) && rows[0].ends_with(",uefi"), "{csv}");
        assert_eq!(rows[1], format!("node-2,{TLS},admin,wrong,,10.20.0.21,{network},,,"));
        assert!(rows[2].starts_with("node-3,") && rows[2].ends_with(",ipmi,,"), "{csv}");
        assert!(said.contains("refuses user `admin`") && said.contains("IPMI does not tell"), "{said}");
        assert!(!said.contains(PASSWORD) && !said.contains("wrong"), "{said}");
    });
}

#[test]
fn redfish_starts_a_bios_machine_from_the_network() {
    let _machine = alone(&PLAIN);
    among_peers(async || {
        let (bmc, machine) = (redfish(CLEAR), Witness("plain"));
        bmc.boot_once(BootDevice::Disk, BootMode::Bios).await.unwrap();
        assert!(machine.starts_from().starts_with("<disk type='file' device='disk'"), "{}", machine.starts_from());
        bmc.boot_once(BootDevice::Pxe, BootMode::Bios).await.unwrap();
        assert!(machine.starts_from().starts_with("<interface "), "{}", machine.starts_from());
        assert!(!machine.has_uefi());
    });
}

#[test]
fn redfish_starts_a_uefi_machine_from_the_network() {
    let _machine = alone(&WITH_UEFI);
    among_peers(async || {
        let (bmc, machine) = (redfish(UEFI), Witness("uefi"));
        bmc.boot_once(BootDevice::Disk, BootMode::Uefi).await.unwrap();
        assert!(machine.starts_from().starts_with("<disk type='file' device='disk'"), "{}", machine.starts_from());
        bmc.boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap();
        assert!(machine.starts_from().starts_with("<interface "), "{}", machine.starts_from());
        assert!(machine.has_uefi());
    });
}

#[test]
fn redfish_takes_the_device_where_the_mode_is_refused() {
    let _machine = alone(&WITH_UEFI);
    among_peers(async || {
        let (bmc, machine) = (redfish(UEFI), Witness("uefi"));
        bmc.boot_once(BootDevice::Disk, BootMode::Uefi).await.unwrap();
        // sushy-tools fails to take the firmware from a machine, with status 500.
        bmc.boot_once(BootDevice::Pxe, BootMode::Bios).await.unwrap();
        assert!(machine.starts_from().starts_with("<interface "), "{}", machine.starts_from());
        assert!(machine.has_uefi());
    });
}

#[test]
fn redfish_tells_what_it_is() {
    among_peers(async || {
        let identity = redfish(CLEAR).identity().await.unwrap();
        assert_eq!(identity.vendor.as_deref(), Some("Sushy Emulator"));
        assert_eq!(identity.firmware.as_deref(), Some("1.00"));
    });
}

#[test]
fn redfish_is_examined() {
    let _machine = alone(&PLAIN);
    among_peers(async || {
        let bmc = redfish(CLEAR);
        bmc.power_off().await.unwrap();
        let found = bmc.examine().await.unwrap();
        assert_eq!(found.power, PowerState::Off);
        assert!(found.boots_from.is_some_and(|devices| devices.contains(&BootDevice::Pxe)));
        let off = found.clock.expect("sushy-tools has a clock").at.duration_since(jiff::Timestamp::now());
        assert!(off.abs() < jiff::SignedDuration::from_secs(60), "{off:?}");
        // It has no accounts to tell of.
        assert_eq!(found.role, None);
    });
}

#[test]
fn ipmi_is_examined() {
    let _machine = alone(&WITH_IPMI);
    among_peers(async || {
        let bmc = ipmi(IPMI);
        bmc.power_off().await.unwrap();
        let found = bmc.examine().await.unwrap();
        assert_eq!(found.power, PowerState::Off);
        assert!(found.boots_from.is_some_and(|devices| devices.contains(&BootDevice::Pxe)));
        assert!(found.role.is_some_and(|role| role.suffices));
        // VirtualBMC keeps no event log, and no time for it.
        assert_eq!(found.clock, None);
    });
}

#[test]
fn redfish_with_several_machines_wants_one_named() {
    among_peers(async || {
        let error = error_of(redfish(TLS).as_ref()).await;
        assert!(matches!(error, BmcError::Unsupported { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("it has several Systems; name one in bmc_ip: "), "{text}");
        for uuid in ["11111111-1111-4111-8111-1111", "22222222-2222-4222-8222-2222", "33333333-3333-4333-8333-3333"] {
            assert!(text.contains(&format!("/redfish/v1/Systems/{uuid}")), "{text}");
        }
    });
}

#[test]
fn redfish_inserts_and_ejects_a_virtual_cd() {
    let _machine = alone(&PLAIN);
    among_peers(async || {
        let image = axum::Router::new().fallback(async || vec![7u8; 65536]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/debian.iso", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, image).await.unwrap() });
        let (bmc, machine) = (redfish(CLEAR), Witness("plain"));
        bmc.insert_media(&url).await.unwrap();
        let file = machine.cd().expect("a file in the drive");
        assert!(file.contains("debian"), "{file}");
        assert_eq!(peers::run("stat", &["--format=%s", &file]).trim(), "65536");
        // The second is fine too.
        for _ in 0..2 {
            bmc.eject_media().await.unwrap();
            assert_eq!(machine.cd(), None);
        }
    });
}

#[test]
fn redfish_with_a_wrong_password() {
    among_peers(async || {
        for url in [CLEAR, UEFI] {
            let error = error_of(client(BmcKind::Redfish, url, "wrong").as_ref()).await;
            assert!(matches!(&error, BmcError::Unauthorized { user, .. } if user == "admin"), "{error:?}");
            assert!(!error.to_string().contains("wrong"), "{error}");
        }
    });
}

#[test]
fn redfish_where_nothing_listens() {
    among_peers(async || {
        let error = error_of(redfish("https://127.0.0.1:9").as_ref()).await;
        assert!(matches!(&error, BmcError::Unreachable { bmc, .. } if bmc == "https://127.0.0.1:9"), "{error:?}");
        assert!(error.to_string().contains("refused"), "{error}");
    });
}

#[test]
fn redfish_at_an_address_that_never_answers() {
    among_peers(async || {
        let error = error_of(redfish(&format!("https://{SILENT}")).as_ref()).await;
        assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
    });
}

#[test]
fn ipmi_switches_the_power() {
    let _machine = alone(&WITH_IPMI);
    among_peers(async || power(ipmi(IPMI).as_ref(), &Witness("ipmi")).await);
}

#[test]
fn ipmi_starts_a_machine_from_the_network() {
    let _machine = alone(&WITH_IPMI);
    among_peers(async || {
        let (bmc, machine) = (ipmi(IPMI), Witness("ipmi"));
        for mode in [BootMode::Bios, BootMode::Uefi] {
            bmc.boot_once(BootDevice::Disk, mode).await.unwrap();
            assert_eq!(machine.starts_from(), "<boot dev='hd'/>");
            bmc.boot_once(BootDevice::Pxe, mode).await.unwrap();
            assert_eq!(machine.starts_from(), "<boot dev='network'/>");
        }
    });
}

#[test]
fn ipmi_tells_what_it_is() {
    among_peers(async || {
        assert_eq!(ipmi(IPMI).identity().await.unwrap().firmware.as_deref(), Some("1.00"));
    });
}

#[test]
fn ipmi_with_a_wrong_password() {
    among_peers(async || {
        let error = error_of(client(BmcKind::Ipmi, IPMI, "wrong").as_ref()).await;
        assert!(matches!(&error, BmcError::Unauthorized { user, .. } if user == "admin"), "{error:?}");
    });
}

#[test]
fn ipmi_where_nothing_answers() {
    among_peers(async || {
        let (closed, silent) = (ipmi("ipmi://127.0.0.1:6999"), ipmi(&format!("ipmi://{SILENT}")));
        let (closed, silent) = tokio::join!(error_of(closed.as_ref()), error_of(silent.as_ref()));
        for error in [closed, silent] {
            assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
        }
    });
}

#[test]
fn ipmi_shows_nobody_the_password() {
    // ipmitool wipes a password from its own arguments, so they are only seen by a program in its place. That is in the
    // path of this one process, which is this test again.
    const INSIDE: &str = "METALGATE_TEST_INSIDE";
    const UNIQUE: &str = "hunter2-of-ipmi";
    const SPY: &str = "#!/bin/sh\necho \"$*\" >>\"${0%/*}/told\"\necho \"$IPMI_PASSWORD\" >\"${0%/*}/password\"\necho Chassis Power is on\n";
    if std::env::var_os(INSIDE).is_some() {
        let bmc = client(BmcKind::Ipmi, "ipmi://192.0.2.1", UNIQUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(bmc.power_state()).unwrap(), PowerState::On);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (spy, program) = (dir.path().join("spy"), dir.path().join("ipmitool"));
    std::fs::write(&spy, SPY).unwrap();
    // By another process: what this one has written cannot be run while a child still has it open.
    assert!(Command::new("install").arg(spy).arg(program).status().unwrap().success());
    let inside = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ipmi_shows_nobody_the_password"])
        .env("PATH", format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap()))
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stdout));
    let told = std::fs::read_to_string(dir.path().join("told")).unwrap();
    let wanted = "-I lanplus -C 17 -H 192.0.2.1 -p 623 -U admin -L OPERATOR -N 2 -R 3 -E chassis power status\n";
    assert_eq!(told, wanted);
    assert_eq!(std::fs::read_to_string(dir.path().join("password")).unwrap().trim(), UNIQUE);
}

#[test]
fn a_dead_bmc_holds_up_no_other() {
    let (_redfish, _ipmi) = (alone(&PLAIN), alone(&WITH_IPMI));
    among_peers(async || {
        let dead = [redfish(&format!("https://{SILENT}")), ipmi(&format!("ipmi://{SILENT}"))];
        let living = [redfish(CLEAR), ipmi(IPMI)];
        let dead_is_done = AtomicBool::new(false);
        let dead = async {
            let calls = dead.iter().map(|bmc| async {
                let error = error_of(bmc.as_ref()).await;
                dead_is_done.store(true, Ordering::Relaxed);
                error
            });
            futures::future::join_all(calls).await
        };
        let living = async {
            for bmc in &living {
                bmc.power_state().await.unwrap();
            }
            dead_is_done.load(Ordering::Relaxed)
        };
        let (errors, held_up) = tokio::join!(dead, living);
        assert!(!held_up, "the living ones were asked before the dead ones gave up");
        assert!(errors.iter().all(|error| matches!(error, BmcError::Unreachable { .. })), "{errors:?}");
    });
}
