//! sushy-tools, VirtualBMC and libvirt in namespaces of their own, and threads of ours in their network.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

/// For the packages and the Python environment, which a fresh machine has to fetch.
const PREPARE: &str = "1200";
/// For libvirt and the emulators, which take five seconds on an idle machine.
const START: Duration = Duration::from_secs(300);
/// For one run of a foreign program.
const RUN: &str = "60";

static PEERS: LazyLock<Peers> = LazyLock::new(Peers::start);

/// The one set of peers of this test run. It ends with this process: the peers' first process waits for the end of
/// its standard input, and the kernel ends the others with it.
struct Peers {
    pid: u32,
    _running: Child,
}

impl Peers {
    fn start() -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/power/peers.sh");
        let prepared = Command::new("timeout")
            .args([PREPARE, script.to_str().unwrap(), "prepare"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(prepared.status.success(), "peers.sh prepare: {}", prepared.status);
        let environment = String::from_utf8(prepared.stdout).unwrap();
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount", "--net", "--mount-proc"])
            .arg(script)
            .args(["serve", environment.trim()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, stdout) = (child.id(), child.stdout.take().unwrap());
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("ready ") {
                    ready.send(()).unwrap();
                }
            }
            // Without a `ready`, the end of the output ends the wait.
        });
        if let Err(error) = is_ready.recv_timeout(START) {
            // Whatever is still there must not outlive the wait.
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the peers do not start: {error}; they say why above");
        }
        Self { pid, _running: child }
    }
}

/// Runs `work` on a thread in the peers' network: its sockets and programs belong there.
pub fn among_peers<W: Future<Output = ()>>(work: impl FnOnce() -> W + Send + 'static) {
    // `unshare` itself is in the namespaces that it made, but for the one of PIDs.
    let network = File::open(format!("/proc/{}/ns/net", PEERS.pid)).unwrap();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program with the peers' files and network; gives what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new("nsenter")
        .args(["--target", &PEERS.pid.to_string(), "--mount", "--net", "timeout", RUN, program])
        .args(args)
        .output()
        .unwrap();
    assert!(status.success(), "{program} {args:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// A machine as libvirt has it: the witness of what its BMC was told.
pub struct Witness(pub &'static str);

impl Witness {
    /// `running` or `shut off`.
    pub fn state(&self) -> String {
        run("virsh", &["domstate", self.0]).trim().to_owned()
    }

    fn definition(&self) -> String {
        run("virsh", &["dumpxml", "--inactive", self.0])
    }

    /// What the machine starts from first: the element of the device with the lowest boot order, else the first
    /// `<boot dev=...>`.
    pub fn starts_from(&self) -> String {
        let definition = self.definition();
        let mut device = "";
        for line in definition.lines().map(str::trim) {
            if line.starts_with("<disk ") || line.starts_with("<interface ") {
                device = line;
            }
            if line == "<boot order='1'/>" {
                return device.to_owned();
            }
            if line.starts_with("<boot dev=") {
                return line.to_owned();
            }
        }
        panic!("no boot order in {definition}");
    }

    /// Address of its network card.
    pub fn mac(&self) -> String {
        let definition = self.definition();
        let mac = definition.split_once("<mac address='").and_then(|(_, rest)| rest.split_once('\''));
        mac.map(|(mac, _)| mac.to_owned()).expect("a network card")
    }

    /// Whether it has UEFI firmware.
    pub fn has_uefi(&self) -> bool {
        self.definition().contains("OVMF_CODE")
    }

    /// The file in its CD drive.
    pub fn cd(&self) -> Option<String> {
        let definition = self.definition();
        let drive = definition.split("<disk ").find(|disk| disk.contains("device='cdrom'"))?;
        let file = drive.split("</disk>").next()?.split_once("<source file='")?.1;
        file.split_once('\'').map(|(file, _)| file.to_owned())
    }
}
