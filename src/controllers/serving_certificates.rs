//! kubelets' serving certificates: signed for the machines that we made nodes, with their own name and address and no other.
//!
//! Kubernetes' own approver signs client certificates only; it cannot know which address is whose. We do.

use super::ReconcileError;
use crate::api::ApiError;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

const SIGNER: &str = "kubernetes.io/kubelet-serving";

/// Signs what the kubelet of `node` at `address` asks for, and refuses what it may not have.
pub async fn sign(client: &Client, node: &str, address: Ipv4Addr) -> Result<(), ReconcileError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let asked = ListParams::default().fields(&format!("spec.signerName={SIGNER}"));
    let requests = api.list(&asked).await.map_err(ApiError::of("the list of CertificateSigningRequests"))?;
    let user = format!("system:node:{node}");
    for request in requests {
        let settled =
            request.status.as_ref().is_some_and(|status| status.conditions.as_ref().is_some_and(|c| !c.is_empty()));
        if settled || request.spec.username.as_deref() != Some(&user) {
            continue;
        }
        let (type_, message) = match check(&request.spec.request.0, node, address) {
            Ok(()) => ("Approved", String::from("name and address are those of the machine")),
            Err(why) => ("Denied", why),
        };
        let verdict = json!({ "type": type_, "status": "True", "reason": "Metalgate", "message": message });
        let patch = Patch::Merge(json!({ "status": { "conditions": [verdict] } }));
        let name = request.name_any();
        let approved = api.patch_approval(&name, &PatchParams::default(), &patch).await;
        approved.map_err(ApiError::of(format!("the approval of CertificateSigningRequest {name}")))?;
    }
    Ok(())
}

/// Whether a request (PKCS #10, RFC 2986) is for this node's name and address alone.
fn check(request: &[u8], node: &str, address: Ipv4Addr) -> Result<(), String> {
    let (_, pem) = parse_x509_pem(request).map_err(|_| String::from("it is not PEM"))?;
    let (_, request) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|_| String::from("it is no certificate request"))?;
    let info = &request.certification_request_info;
    let names: Vec<&str> = info.subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    if names != [format!("system:node:{node}").as_str()] {
        return Err(format!("its subject is not the node {node}"));
    }
    let mut found = false;
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternatives) = extension else { continue };
        for name in &alternatives.general_names {
            let ours = match name {
                GeneralName::DNSName(name) => *name == node,
                GeneralName::IPAddress(bytes) => {
                    <[u8; 4]>::try_from(*bytes).is_ok_and(|bytes| bytes == address.octets())
                }
                _ => false,
            };
            if !ours {
                return Err(format!("it asks for {name:?}, which is not {node} or {}", IpAddr::V4(address)));
            }
            found = true;
        }
    }
    if found { Ok(()) } else { Err(String::from("it names nothing")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn request(common_name: &str, names: &[&str], addresses: &[Ipv4Addr]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names.extend(names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())));
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(IpAddr::V4(*address))));
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap().into_bytes()
    }

    #[test]
    fn a_node_gets_its_own_name_and_address_and_no_other() {
        let (own, other) = (Ipv4Addr::new(10, 0, 0, 11), Ipv4Addr::new(10, 0, 0, 12));
        let check = |request: Vec<u8>| check(&request, "node-1", own);
        assert_eq!(check(request("system:node:node-1", &["node-1"], &[own])), Ok(()));
        let refused = [
            request("system:node:node-2", &["node-1"], &[own]),
            request("system:node:node-1", &["node-1", "kubernetes"], &[own]),
            request("system:node:node-1", &["node-1"], &[own, other]),
            request("system:node:node-1", &[], &[]),
            b"nonsense".to_vec(),
        ];
        for request in refused {
            assert!(check(request).is_err());
        }
    }
}
