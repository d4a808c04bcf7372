//! Mutual TLS between the planes, as Kong does it: a control plane ends every handshake, and judges the certificate of
//! the data plane afterwards (nginx's `ssl_verify_client`); a data plane judges at once.

use super::{Identity, Mode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a control plane makes of a data plane's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// nginx says so with HTTP status 400.
    NoCertificate,
    /// nginx says so with HTTP status 400.
    BadCertificate,
    /// Kong closes the connection without a word.
    NotTheSharedOne,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    ring::default_provider().signature_verification_algorithms
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|cert| cert.expect("a certificate in PEM")).collect()
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key in PEM")
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(pem));
    roots
}

/// A control plane's side.
pub fn server_config(identity: &Identity) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_single_cert(certificates(&identity.cert), key(&identity.key))
        .unwrap()
}

/// A data plane's side.
pub fn client_config(identity: &Identity, trust: &str) -> ClientConfig {
    let verifier = Arc::new(Trust { certificates: certificates(trust), roots: roots(trust) });
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(certificates(&identity.cert), key(&identity.key))
        .unwrap()
}

/// What the control plane, which has this certificate and trusts this bundle, makes of a data plane's chain.
pub fn judge(mode: Mode, own: &str, ca: Option<&str>, chain: &[CertificateDer<'static>]) -> Verdict {
    let is_shared = || certificates(own).first().is_some_and(|own| chain.first() == Some(own));
    match (mode, chain) {
        (Mode::Shared, _) if is_shared() => Verdict::Accepted,
        (Mode::Shared, _) => Verdict::NotTheSharedOne,
        (Mode::Pki, []) => Verdict::NoCertificate,
        (Mode::Pki, [leaf, intermediates @ ..]) => {
            let roots = roots(ca.expect("mode pki has a cluster_ca_cert"));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
            match verifier.verify_client_cert(leaf, intermediates, UnixTime::now()) {
                Ok(_) => Verdict::Accepted,
                Err(_) => Verdict::BadCertificate,
            }
        }
    }
}

/// When a certificate ends, in seconds since 1970.
pub fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Asks for a certificate, and takes any or none: only that its key is at hand is checked.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// What a data plane trusts. Two things are OpenSSL's: a self-signed certificate that is trusted itself will do,
/// whatever it says about authorities, and a common name counts where there are no alternative names.
#[derive(Debug)]
struct Trust {
    certificates: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (_, parsed) = X509Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if parsed.subject() == parsed.issuer() && self.certificates.contains(&end_entity.clone().into_owned()) {
            if parsed.validity().not_after.timestamp() < now.as_secs().cast_signed() {
                return Err(CertificateError::Expired.into());
            }
        } else {
            let leaf = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms().all)?;
        }
        let wanted = server_name.to_str();
        if names(&parsed).iter().any(|name| matches(name, &wanted)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn names<'c>(certificate: &'c X509Certificate<'_>) -> Vec<&'c str> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    let dns: Vec<_> = alternatives
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    if !dns.is_empty() {
        return dns;
    }
    certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect()
}

/// `*.example.com` is for one label.
fn matches(name: &str, wanted: &str) -> bool {
    match (name.strip_prefix("*."), wanted.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain.eq_ignore_ascii_case(rest),
        _ => name.eq_ignore_ascii_case(wanted),
    }
}
