//! `metalgate preflight` on the virtual rack, against everything that it is to find: a foreign dnsmasq, hosts that squat, programs on our
//! ports, BMCs that refuse, hang or lack rights, small MTUs, wrong images. Root is needed; no machine is powered on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../rack/mod.rs"]
mod rack;
mod wire;

use pretty_assertions::assert_eq;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wire::{Stranger, up};

const FOREIGN: &str = "02:00:00:00:00:99";
/// The rack's second machine.
const NODE2: &str = "52:54:00:6d:67:02";
/// An address that is answered within this is a server that is up.
const START: Duration = Duration::from_secs(20);

#[test]
fn a_rack_that_is_ready_passes_every_check() {
    let rack = up("uefi,bios");
    let report = rack.preflight(&["--skip", "artifacts"]);
    assert_eq!(report.code(), Some(0), "{}", report.stderr());
    let passed = ["interface", "dhcp", "addresses", "ports", "bmc"].map(|check| format!("{check} passed -"));
    let verdicts = report.verdicts();
    assert_eq!(verdicts[..passed.len()], passed);
    // The clock of the machine that tests run on may or may not be synchronized.
    assert!(verdicts[passed.len()..].iter().all(|verdict| verdict.starts_with("clock ")), "{verdicts:?}");
    assert!(!rack.work_dir().exists(), "it leaves nothing behind");
    let text = rack.about_files(&["preflight", "--skip", "artifacts", "--skip", "dhcp"], &[]).output().unwrap();
    let table = String::from_utf8_lossy(&text.stdout).into_owned();
    let has = |begin: &str, end: &str| table.lines().any(|line| line.starts_with(begin) && line.ends_with(end));
    assert!(has("dhcp       skipped  -", "left out by --skip"), "{table}");
    assert!(has("bmc        ok       -", "2 of 2 BMCs answer, and can do what will be asked of them"), "{table}");
}

#[test]
fn another_dhcp_server_is_in_the_way_or_wanted() {
    let rack = up("uefi,bios");
    let mut host = Stranger::new(&rack, FOREIGN, &["10.77.0.9/24"]);
    let dnsmasq = |host: &mut Stranger, more: &[&str]| {
        let common = ["-k", "-C", "/dev/null", "--port=0", "--dhcp-leasefile=/dev/null", "--pid-file=", "--user=root"];
        host.start("dnsmasq", &[&common, more].concat());
    };
    let pool = "--dhcp-range=10.77.0.100,10.77.0.150";
    dnsmasq(&mut host, &[pool]);
    let report = rack.only(&["dhcp"]);
    assert_eq!((report.code(), report.verdicts()), (Some(1), vec![String::from("dhcp failed 10.77.0.9")]));
    let reason = report.reason("10.77.0.9");
    assert!(reason.starts_with(&format!("a DHCP server ({FOREIGN}) offers addresses, such as 10.77.0.1")), "{reason}");
    // dnsmasq pings each address for three seconds before it offers it, one after the other.
    assert!(reason.contains(" to anybody"), "{reason}");

    // It knows one of the machines and nobody else: anybody else's question would not find it.
    host.stop();
    let reserved = format!("--dhcp-host={NODE2},10.77.0.77");
    dnsmasq(&mut host, &["--dhcp-range=10.77.0.0,static", &reserved]);
    let reason = rack.only(&["dhcp"]).reason("10.77.0.9");
    assert!(reason.ends_with("such as 10.77.0.77, to node2"), "{reason}");

    // The same server is wanted in the other modes, and node1 is not known to it.
    rack.edit("cluster.yaml", "mode: reservation", "mode: proxy");
    let report = rack.only(&["dhcp"]);
    assert_eq!((report.code(), report.verdicts()), (Some(0), vec![String::from("dhcp warning node1")]));
    rack.edit("cluster.yaml", "mode: proxy", "mode: external");
    host.stop();
    dnsmasq(&mut host, &[pool, "--no-ping", "--dhcp-boot=ipxe/undionly.kpxe,admin,10.77.0.1"]);
    assert_eq!(rack.only(&["dhcp"]).verdicts(), ["dhcp passed -"]);
    host.stop();
    dnsmasq(&mut host, &[pool, "--no-ping", "--dhcp-boot=pxelinux.0,other,10.77.0.2"]);
    let report = rack.only(&["dhcp"]);
    assert_eq!(report.verdicts(), ["dhcp warning node1", "dhcp warning node2"]);
    assert!(report.reason("node1").contains("leads it to 10.77.0.2, "), "{}", report.reason("node1"));

    host.stop();
    let report = rack.only(&["dhcp"]);
    assert_eq!((report.code(), report.verdicts()), (Some(1), vec![String::from("dhcp failed DHCP server")]));
}

#[test]
fn whoever_has_an_address_is_found() {
    let rack = up("uefi,bios");
    rack.edit("cluster.yaml", "host: 10.77.0.10", "host: 10.77.0.5");
    let foreign = Stranger::new(&rack, FOREIGN, &["10.77.0.10/24", "10.77.0.5/24", "10.77.0.1/24"]);
    // The second machine is on, and has its own address.
    let machine = Stranger::new(&rack, NODE2, &["10.77.0.11/24"]);
    let report = rack.only(&["addresses"]);
    assert_eq!(report.code(), Some(1), "{}", report.stderr());
    let wanted = [
        "addresses failed provisioning.address",
        "addresses failed kubernetes.endpoint",
        "addresses failed node1",
        "addresses warning node2",
    ];
    assert_eq!(report.verdicts(), wanted);
    assert_eq!(report.reason("kubernetes.endpoint"), format!("10.77.0.5 is held by {FOREIGN}"));
    assert_eq!(report.reason("node1"), format!("10.77.0.10 is held by {FOREIGN}, and not by 52:54:00:6d:67:01"));

    // To a run that goes on it is no news that its machine is on; kube-vip on that machine may have the virtual address.
    drop(foreign);
    machine.ip(&["address", "add", "10.77.0.5/24", "dev", "eth0"]);
    assert_eq!(
        rack.only(&["addresses"]).verdicts(),
        ["addresses warning kubernetes.endpoint", "addresses warning node2"]
    );
    let state = r#"{"at":"2026-11-21T00:00:00Z","machine":"node2","event":"state","state":"Ready","reason":"r"}"#;
    std::fs::create_dir(rack.work_dir()).unwrap();
    std::fs::write(rack.work_dir().join("events.jsonl"), format!("{state}\n")).unwrap();
    assert_eq!(rack.only(&["addresses"]).verdicts(), ["addresses passed -"]);

    // An address of the admin machine itself.
    assert!(rack.inside("ip").args(["address", "add", "10.77.0.10/32", "dev", "lo"]).status().unwrap().success());
    let reason = rack.only(&["addresses"]).reason("node1");
    assert_eq!(reason, "10.77.0.10 is this machine's own address on lo");
}

#[test]
fn ports_that_are_taken_are_all_named() {
    let rack = up("bios");
    let spawn = |program: &str, args: &[&str]| {
        rack.inside(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let common = ["-k", "-C", "/dev/null", "--port=0", "--dhcp-leasefile=/dev/null", "--pid-file=", "--user=root"];
    let serve = ["--dhcp-range=10.77.0.100,10.77.0.150", "--enable-tftp", "--tftp-root=/"];
    let mut children =
        [spawn("dnsmasq", &[&common[..], &serve].concat()), spawn("busybox", &["httpd", "-f", "-p", "10.77.0.1:8080"])];
    let wanted = ["ports failed TCP 8080", "ports failed UDP 67", "ports failed UDP 69", "ports passed -"];
    let started = Instant::now();
    let report = loop {
        let report = rack.only(&["ports"]);
        let mut verdicts = report.verdicts();
        verdicts.sort();
        // The programs have to come up first.
        if verdicts == wanted || started.elapsed() > START {
            assert_eq!(verdicts, wanted);
            break report;
        }
    };
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(report.code(), Some(1));
    assert!(report.reason("TCP 8080").contains("10.77.0.1:8080"), "{}", report.reason("TCP 8080"));
    assert_eq!(rack.only(&["ports"]).verdicts(), ["ports passed -"]);
}

#[test]
fn what_is_wrong_with_bmcs_is_told_of_all_at_once() {
    let rack = up("bios,bios,bios,bios,bios,bios");
    for (machine, fault) in
        [("node1", "wrong-password"), ("node2", "hang"), ("node3", "read-only"), ("node4", "clock"), ("node5", "error")]
    {
        rack.fault(machine, fault);
    }
    // Nobody has this address.
    rack.edit("hardware.csv", "10.77.0.205", "10.77.0.222");
    let report = rack.only(&["bmc"]);
    assert_eq!(report.code(), Some(1));
    let failed = ["node1", "node2", "node3", "node5", "node6"].map(|machine| format!("bmc failed {machine}"));
    assert_eq!(report.verdicts(), [&failed[..], &[String::from("bmc warning node4")]].concat());
    for (machine, reason) in [
        ("node1", "refuses user `admin`"),
        ("node2", "does not answer: "),
        ("node3", "is ReadOnly, and may neither switch the power nor set the boot device"),
        ("node4", "is 24h behind"),
        ("node5", "500 Internal Server Error"),
        ("node6", "does not answer: "),
    ] {
        assert!(report.reason(machine).contains(reason), "{machine}: {}", report.reason(machine));
    }
    // Each waited for itself, and the one that hangs was spoken of in the meantime.
    assert!(report.took < Duration::from_secs(100), "{:?}", report.took);
    assert!(report.stderr().contains("BMCs examined: "), "{}", report.stderr());
    let csv = std::fs::read_to_string(rack.files().join("hardware.csv")).unwrap();
    let password = csv.lines().nth(1).unwrap().split(',').nth(3).unwrap();
    let said = report.stderr() + &String::from_utf8_lossy(&report.output.stdout);
    assert!(!said.contains(password), "the password is shown");
}

#[test]
fn a_network_for_small_frames_only_is_found() {
    let rack = up("bios");
    // The gateway of the machines is another host, behind a port that takes less.
    let gateway = Stranger::new(&rack, FOREIGN, &["10.77.0.254/24"]);
    rack.edit("hardware.csv", "255.255.255.0,10.77.0.1,", "255.255.255.0,10.77.0.254,");
    let report = rack.only(&["interface"]);
    assert_eq!(report.verdicts(), ["interface passed -"], "{}", report.stderr());
    gateway.ip(&["link", "set", "eth0", "mtu", "1400"]);
    let report = rack.only(&["interface"]);
    assert_eq!((report.code(), report.verdicts()), (Some(0), vec![String::from("interface warning br0")]));
    assert!(report.reason("br0").contains("gateway 10.77.0.254 answers small packets"), "{}", report.reason("br0"));
    assert!(rack.inside("ip").args(["link", "set", "tap1", "mtu", "1280"]).status().unwrap().success());
    let report = rack.only(&["interface"]);
    assert_eq!(report.code(), Some(1));
    assert!(report.reason("tap1").contains("has an MTU of 1280"), "{}", report.reason("tap1"));
    rack.edit("cluster.yaml", "interface: br0", "interface: eno7");
    let report = rack.only(&["interface", "dhcp", "addresses", "ports"]);
    assert_eq!(report.code(), Some(1));
    assert_eq!(
        report.verdicts(),
        ["interface failed eno7", "dhcp failed eno7", "addresses failed eno7"],
        "{}",
        report.stderr()
    );
}

#[test]
fn an_image_that_is_not_what_the_spec_says_is_found() {
    let rack = up("bios");
    let image = rack.dir.path().join("image.raw.zst");
    let packed = Command::new("zstd").args(["-q", "-o"]).arg(&image).arg(rack.files().join("cluster.yaml")).status();
    assert!(packed.unwrap().success());
    let sum = Command::new("sha256sum").arg(&image).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap().split_whitespace().next().unwrap().to_owned();
    let spec = std::fs::read_to_string(rack.files().join("cluster.yaml")).unwrap();
    let url = spec.lines().find(|line| line.trim().starts_with("url:")).unwrap().trim().to_owned();
    let old = spec.lines().find(|line| line.trim().starts_with("sha256:")).unwrap().trim().to_owned();
    rack.edit("cluster.yaml", &url, &format!("url: file:{}", image.display()));
    let report = rack.only(&["artifacts"]);
    assert_eq!(report.code(), Some(1));
    assert!(report.reason("OS image").contains("has the sha256 "), "{}", report.reason("OS image"));
    rack.edit("cluster.yaml", &old, &format!("sha256: \"{sum}\"\n      format: gz"));
    let report = rack.only(&["artifacts"]);
    let reason = report.reason(image.to_str().unwrap());
    assert_eq!(reason, "the OS image should be gz, but looks like zst");
    assert_eq!(report.code(), Some(1));
    // Nothing is there at all: that is told beside what is wrong with the image.
    let empty = tempfile::tempdir().unwrap();
    let report = rack.preflight(&[
        "--artifacts",
        empty.path().to_str().unwrap(),
        "--skip=interface",
        "--skip=dhcp",
        "--skip=addresses",
        "--skip=bmc",
        "--skip=ports",
        "--skip=clock",
    ]);
    assert!(report.reason("artifacts").contains("there are no artifacts in"), "{}", report.reason("artifacts"));
}

#[test]
fn a_check_that_does_not_exist_is_bad_usage() {
    for command in [&["preflight"][..], &["create", "cluster"]] {
        let refused = Command::new(rack::metalgate())
            .args(command)
            .args(["-f", "a.yaml", "-z", "b.csv", "--skip", "weather"])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(2));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("interface, dhcp, addresses, ports, bmc, artifacts, clock"), "{said}");
    }
}
