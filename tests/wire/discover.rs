//! `metalgate discover` by the real binary: what it hears of foreign clients, and a machine that it starts by its own firmware.

use crate::firmware::Machine;
use crate::namespaces::Link;
use crate::wire::{KNOWN, STRANGER, US};
use metalgate::discover::Found;
use metalgate::hardware::{Arch, BootMode};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// An emulated machine needs a minute from its firmware to the agent's last word on a quiet host.
const LIMIT: Duration = Duration::from_secs(400);

/// A running `metalgate discover`.
struct Discover {
    child: Child,
    said: mpsc::Receiver<String>,
    log: Vec<String>,
}

impl Discover {
    /// Starts it, and waits until it listens.
    fn start(link: &Link, arguments: &[&str]) -> Self {
        let mut child = link
            .server
            .command(env!("CARGO_BIN_EXE_metalgate"))
            .args(["discover", "--output", "json", "--interface", &link.server_interface])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, said) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut discover = Self { child, said, log: Vec::new() };
        discover.until("Ctrl-C ends", Duration::from_secs(20));
        discover
    }

    /// Waits for a line with these words.
    fn until(&mut self, words: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.log.iter().any(|line| line.contains(words)) {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(_) => panic!("no `{words}` in {:#?}", self.log),
            }
        }
    }

    /// Ends it as Ctrl-C does, and gives what it has found.
    fn found(mut self) -> Vec<Found> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let mut json = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut json).unwrap();
        assert!(self.child.wait().unwrap().success(), "{:#?}", self.log);
        serde_json::from_str(&json).unwrap()
    }
}

impl Drop for Discover {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// udhcpc, which calls itself `class`; whether it got a lease.
fn udhcpc(link: &Link, class: &str) -> bool {
    let interface = &link.client_interface;
    let arguments = ["30", "busybox", "udhcpc", "-f", "-q", "-n", "-t", "2", "-T", "1", "-s", "/bin/true"];
    let output = link.client.command("timeout").args(arguments).args(["-V", class, "-i", interface]).output().unwrap();
    output.status.success()
}

#[test]
fn clients_are_heard_and_answered_nothing_also_on_an_interface_without_an_address() {
    let link = Link::new(&format!("{US}/24"), STRANGER);
    link.server.run("ip", &["addr", "flush", "dev", &link.server_interface]);
    let mut discover = Discover::start(&link, &["--for", "10m"]);
    assert!(!udhcpc(&link, "udhcp 1.0"));
    assert!(!udhcpc(&link, "PXEClient:Arch:00000:UNDI:002001"));
    discover.until("BIOS amd64 PXEClient:Arch:00000", Duration::from_secs(10));
    let [found] = &discover.found()[..] else { panic!("one machine") };
    assert_eq!((found.mac.to_string().as_str(), found.boots), (STRANGER, true));
    assert_eq!((found.arch, found.boot_mode), (Some(Arch::Amd64), Some(BootMode::Bios)));
    assert!(found.facts.is_none() && found.last_seen > found.first_seen, "{found:?}");
}

#[test]
fn a_dhcp_server_on_the_same_machine_goes_on_with_its_work() {
    let link = Link::new(&format!("{US}/24"), STRANGER);
    let mut dnsmasq = link
        .server
        .command("dnsmasq")
        .args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--leasefile-ro", "--bind-interfaces"])
        .args(["--interface", &link.server_interface, "--dhcp-range=10.91.0.200,10.91.0.220,255.255.255.0,1h"])
        .stderr(Stdio::null())
        .spawn()
        .expect("dnsmasq: run `tests/setup test`");
    let discover = Discover::start(&link, &[]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut leased = false;
    while !leased && Instant::now() < deadline {
        leased = udhcpc(&link, "udhcp 1.0");
    }
    let found = discover.found();
    dnsmasq.kill().unwrap();
    dnsmasq.wait().unwrap();
    assert!(leased, "dnsmasq gave no address");
    assert_eq!(
        found.iter().map(|one| (one.mac.to_string(), one.boots)).collect::<Vec<_>>(),
        [(STRANGER.into(), false)]
    );
}

#[test]
fn it_ends_when_its_time_is_over_and_refuses_what_it_cannot_do() {
    let link = Link::new(&format!("{US}/24"), STRANGER);
    let run = |arguments: &[&str]| {
        link.server.command("timeout").arg("30").arg(env!("CARGO_BIN_EXE_metalgate")).args(arguments).output().unwrap()
    };
    let output = run(&["discover", "-i", &link.server_interface, "--for", "1s", "--output", "json"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"[]\n".as_slice()));
    let output = run(&["discover", "-i", "eno17", "--for", "1s"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("no interface `eno17`"), "{said}");
    for bad in [&["discover", "-i", "lo", "--boot"][..], &["discover", "-i", "lo", "--for", "soon"]] {
        assert_eq!(run(bad).status.code(), Some(2), "{bad:?}");
    }
}

/// The machine's own firmware loads iPXE, that loads kernel and agent, and the agent switches the machine off.
#[test]
fn a_machine_tells_what_it_has_and_its_disk_stays_as_it_is() {
    let link = Link::new(&format!("{US}/24"), "52:54:00:91:00:50");
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let content: Vec<u8> = (0..64u32 << 20).map(|byte| byte.wrapping_mul(2_654_435_761) as u8).collect();
    std::fs::write(&disk, &content).unwrap();
    let mut discover = Discover::start(&link, &["--boot", "--addresses", "10.91.0.100-10.91.0.110/24"]);
    let drive = format!("file={},if=none,id=d0,format=raw,cache=unsafe", disk.display());
    let parts = ["-m", "1024", "-drive", &drive, "-device", "virtio-blk-pci,drive=d0,serial=root-disk"];
    let cpu = ["-cpu", "Opteron_G3,-cx16,-svm,-misalignsse"];
    let settings = ["name=opt/org.tianocore/IPv4PXESupport,string=n"];
    let mut machine = Machine::start(&link, dir.path(), &settings, &[&parts[..], &cpu].concat());
    let console = |dir: &Path| String::from_utf8_lossy(&std::fs::read(dir.join("console")).unwrap()).into_owned();
    discover.until("has its boot script", LIMIT);
    let deadline = Instant::now() + LIMIT;
    while !machine.off() {
        assert!(Instant::now() < deadline, "the machine is still on:\n{}", console(dir.path()));
        std::thread::sleep(Duration::from_millis(200));
    }
    discover.until("it switches itself off", Duration::from_secs(10));
    let found = discover.found();
    let of_machine = found.iter().find(|one| one.mac.to_string() == KNOWN).expect("the machine was heard");
    let facts = of_machine.facts.as_ref().expect("it told what it is");
    assert_eq!((facts.firmware, facts.arch), (BootMode::Uefi, Arch::Amd64));
    assert_eq!(facts.disks[0].serial.as_deref(), Some("root-disk"));
    assert!(facts.nics.iter().any(|nic| nic.mac.to_string() == KNOWN) && facts.memory_bytes > 700 << 20, "{facts:?}");
    assert!(of_machine.uuid.is_none() || found.len() == 1, "{found:?}");
    assert!(std::fs::read(&disk).unwrap() == content, "something was written to the disk");
}
