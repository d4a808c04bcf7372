//! The gateway that `create` has made: traffic through it, drift, and new certificates while requests go on.

use crate::cluster::{Kubectl, image};
use crate::rack::Rack;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the spec gets; its HTTP port is 30080 on nodes with a data plane.
pub const SPEC: &str = include_str!("../demo-gateway.yaml");
const SERVICES: &str = include_str!("../demo-services.yaml");
const NAMESPACE: &str = "envoy-gateway-system";

fn curl(rack: &Rack, url: &str) -> Output {
    rack.inside("curl").args(["-sS", "-D", "-", "-m", "20", url]).output().unwrap()
}

/// Whether it comes from one of the services, by the route.
fn is_answer(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    output.status.success() && text.starts_with("http/1.1 200") && text.contains("x-gateway: metalgate")
}

pub fn works(rack: &Rack, kubectl: &Kubectl<'_>) {
    kubectl.apply(&SERVICES.replace("IMAGE", &image("flannel-cni-plugin")));
    let ready = ["-n", "shop", "get", "deployments", "-o", "jsonpath={.items[*].status.readyReplicas}"];
    kubectl.wait("the services behind the gateway", &ready, |text| text == "1 1");
    let planes = ["-l", "gateway.envoyproxy.io/owning-gateway-name", "-o", "jsonpath={.items[0].status.hostIP}"];
    let node = kubectl.run(&[&["-n", NAMESPACE, "get", "pods"], planes.as_slice()].concat());
    let url = format!("http://{node}:30080/shop/");
    answers(rack, &url, "the first answer");

    let routes = ["-n", NAMESPACE, "get", "httproutes", "-o", "jsonpath={.items[*].metadata.name}"];
    let names = kubectl.run(&routes);
    kubectl.run(&["-n", NAMESPACE, "delete", "httproutes", "--all"]);
    kubectl.wait("the manager has put back the deleted route", &routes, |text| text == names);
    answers(rack, &url, "an answer by the route that was put back");

    certificates_change_under_load(rack, &url);
    let proof = gateway(rack, &["prove"]);
    assert!(proof.contains("canary disappears"), "{proof}");
}

fn answers(rack: &Rack, url: &str, what: &str) {
    for second in 0..180 {
        if is_answer(&curl(rack, url)) {
            return println!("{what}: after {second} s");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    panic!("{what} did not come: {:?}", curl(rack, url));
}

/// `metalgate gateway` on the admin machine.
fn gateway(rack: &Rack, command: &[&str]) -> String {
    let file = rack.files().join("cluster.yaml").display().to_string();
    let output = rack.metalgate(&[&["gateway"], command, &["-f", &file]].concat());
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "gateway {command:?}: {said}");
    said
}

fn certificates_change_under_load(rack: &Rack, url: &str) {
    let over = AtomicBool::new(false);
    let (answered, failed) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut answered, mut failed) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let answer = curl(rack, url);
                match is_answer(&answer) {
                    true => answered += 1,
                    false => failed.push(answer),
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            (answered, failed)
        });
        let rotated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gateway(rack, &["rotate", "--ca"])));
        over.store(true, Ordering::Relaxed);
        let counted = load.join().unwrap();
        rotated.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counted
    });
    println!("{answered} requests were answered while every certificate changed, {} were not", failed.len());
    assert!(answered > 500 && failed.is_empty(), "{answered} answered, these were not: {failed:?}");
}
