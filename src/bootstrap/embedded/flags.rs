//! The command lines of etcd and kube-apiserver: as little as our objects need, and nothing that listens beyond loopback.

use super::layout::Layout;
use super::{LOOPBACK, Ports};

/// etcd's: one member, and whoever speaks to it shows a certificate.
pub fn etcd(layout: &Layout, ports: Ports) -> Vec<String> {
    let pki = layout.pki.display();
    let client = format!("https://{LOOPBACK}:{}", ports.etcd);
    let peer = format!("https://{LOOPBACK}:{}", ports.etcd_peer);
    vec![
        String::from("--name=metalgate"),
        format!("--data-dir={}", layout.etcd.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=metalgate={peer}"),
        format!("--cert-file={pki}/etcd.crt"),
        format!("--key-file={pki}/etcd.key"),
        format!("--trusted-ca-file={pki}/etcd-ca.crt"),
        String::from("--client-cert-auth"),
        format!("--peer-cert-file={pki}/etcd.crt"),
        format!("--peer-key-file={pki}/etcd.key"),
        format!("--peer-trusted-ca-file={pki}/etcd-ca.crt"),
        String::from("--peer-client-cert-auth"),
        String::from("--log-level=warn"),
    ]
}

/// kube-apiserver's.
pub fn apiserver(layout: &Layout, ports: Ports) -> Vec<String> {
    let pki = layout.pki.display();
    vec![
        format!("--etcd-servers=https://{LOOPBACK}:{}", ports.etcd),
        format!("--etcd-cafile={pki}/etcd-ca.crt"),
        format!("--etcd-certfile={pki}/etcd-client.crt"),
        format!("--etcd-keyfile={pki}/etcd-client.key"),
        format!("--bind-address={LOOPBACK}"),
        format!("--advertise-address={LOOPBACK}"),
        format!("--secure-port={}", ports.api),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        String::from("--service-account-issuer=https://kubernetes.default.svc"),
        format!("--service-account-key-file={pki}/service-accounts.pub"),
        format!("--service-account-signing-key-file={pki}/service-accounts.key"),
        String::from("--service-cluster-ip-range=10.96.0.0/24"),
        String::from("--authorization-mode=RBAC"),
        // We look at its health with our certificate; nobody else has to.
        String::from("--anonymous-auth=false"),
        // Nothing runs here: no pods that would want an account, no service that would want endpoints.
        String::from("--disable-admission-plugins=ServiceAccount"),
        String::from("--endpoint-reconciler-type=none"),
        String::from("--profiling=false"),
    ]
}
