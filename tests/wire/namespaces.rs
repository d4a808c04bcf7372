//! Network namespaces with a cable between them, made for one test and gone with it.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A number that no other test of this machine uses at the moment; interface names have 15 letters.
fn unique() -> String {
    format!("{}x{}", std::process::id() % 100_000, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace, deleted when this is dropped.
pub struct Namespace(String);

impl Namespace {
    pub fn new(what: &str) -> Self {
        let name = format!("mgwire-{what}-{}", unique());
        ip(&["netns", "add", &name]);
        let namespace = Self(name);
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// A program in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    pub fn run(&self, program: &str, args: &[&str]) {
        let output = self.command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A thread of this process in this namespace: sockets that it opens belong there.
    pub fn thread(&self, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work();
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.0]);
    }
}

/// A cable between two namespaces, both ends up; the second end has this MAC address. Gives the names of both ends.
pub fn cable(first: &Namespace, second: &Namespace, mac: &str) -> (String, String) {
    let id = unique();
    let (a, b) = (format!("mgs{id}"), format!("mgc{id}"));
    ip(&["link", "add", &a, "netns", &first.0, "type", "veth", "peer", "name", &b, "netns", &second.0]);
    second.run("ip", &["link", "set", &b, "address", mac, "up"]);
    first.run("ip", &["link", "set", &a, "up"]);
    (a, b)
}

/// A server's and a client's namespace with a cable between them.
pub struct Link {
    pub server: Namespace,
    pub client: Namespace,
    pub server_interface: String,
    pub client_interface: String,
}

impl Link {
    pub fn new(server_address: &str, client_mac: &str) -> Self {
        let (server, client) = (Namespace::new("s"), Namespace::new("c"));
        let (server_interface, client_interface) = cable(&server, &client, client_mac);
        server.run("ip", &["addr", "add", server_address, "dev", &server_interface]);
        Self { server, client, server_interface, client_interface }
    }
}
