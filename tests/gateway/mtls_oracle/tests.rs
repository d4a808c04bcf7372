//! What was measured of Kong's directives and calls, row by row. Each row is tried over both versions of TLS.

use super::{Case, Identity, Mode, Outcome, Protocol, connect};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use std::process::Command;
use time::{Duration, OffsetDateTime};

const SHARED_NAME: &str = "kong_clustering";
const SERVER_NAME: &str = "control-plane.kong.svc";
const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

/// A certificate that is valid today and says nothing else: it has no extensions.
fn bare(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    params
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    params
}

fn with_sans(mut params: CertificateParams, names: &[&str]) -> CertificateParams {
    params.subject_alt_names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect();
    params
}

fn with_usage(mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    params.extended_key_usages = vec![usage];
    params
}

/// What `kong hybrid gen_cert` would be well advised to make.
fn complete(name: &str) -> CertificateParams {
    let mut params = with_sans(bare(name), &[name]);
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![SERVER, CLIENT];
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = bare(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// ring makes no RSA keys, and OpenSSL 3.0 cannot read an Ed25519 key as ring writes it (PKCS #8, version 2).
fn key(algorithm: &[&str]) -> KeyPair {
    KeyPair::from_pem(&openssl(&[&["genpkey", "-algorithm"], algorithm].concat())).unwrap()
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn self_signed(params: &CertificateParams, key: &KeyPair) -> Identity {
    Identity { cert: params.self_signed(key).unwrap().pem(), key: key.serialize_pem() }
}

/// A certificate of version 1, which has no extensions by definition; rcgen makes no such.
fn version_1(name: &str, key: &KeyPair) -> Identity {
    let directory = tempfile::tempdir().unwrap();
    let file = |file: &str, text: &str| {
        let path = directory.path().join(file);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let config = format!("[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = {name}\n");
    let (config, key_file) = (file("config", &config), file("key", &key.serialize_pem()));
    let cert = openssl(&["req", "-new", "-x509", "-days", "1", "-config", &config, "-key", &key_file]);
    Identity { cert, key: key.serialize_pem() }
}

struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let (params, key) = (authority_params(name), p256());
        Self { cert: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (authority_params(name), p256());
        Self { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, params: &CertificateParams) -> Identity {
        let key = p256();
        Identity { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn control_plane(&self) -> Identity {
        self.issue(&with_usage(with_sans(bare("control plane"), &[SERVER_NAME]), SERVER))
    }

    fn data_plane(&self) -> Identity {
        self.issue(&with_usage(bare("data plane"), CLIENT))
    }
}

/// Both planes with this certificate; the data plane trusts it, as Kong arranges by itself.
fn shared(identity: &Identity) -> Case {
    Case {
        mode: Mode::Shared,
        control_plane: identity.clone(),
        control_plane_ca: None,
        data_plane: identity.clone(),
        data_plane_trust: identity.cert.clone(),
        server_name: SHARED_NAME.to_owned(),
        verify_depth: 1,
        protocol: Protocol::Tls12,
    }
}

/// Both planes with certificates of this authority.
fn pki(authority: &Authority) -> Case {
    Case {
        mode: Mode::Pki,
        control_plane: authority.control_plane(),
        control_plane_ca: Some(authority.cert.clone()),
        data_plane: authority.data_plane(),
        data_plane_trust: authority.cert.clone(),
        server_name: SERVER_NAME.to_owned(),
        verify_depth: 1,
        protocol: Protocol::Tls12,
    }
}

fn data_plane_refuses(reason: &str) -> Outcome {
    Outcome::RefusedByDataPlane(reason.to_owned())
}

async fn check(what: &str, mut case: Case, outcome: Outcome) {
    for protocol in [Protocol::Tls12, Protocol::Tls13] {
        case.protocol = protocol;
        assert_eq!(connect(&case).await, outcome, "{what}, {protocol:?}");
    }
}

#[tokio::test]
async fn shared_any_self_signed_certificate_with_the_right_name() {
    let algorithms: [&[&str]; 4] = [
        &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["ED25519"],
    ];
    for algorithm in algorithms {
        let key = key(algorithm);
        let mut authority = bare(SHARED_NAME);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let shapes = [
            ("version 1", version_1(SHARED_NAME, &key)),
            ("no extensions", self_signed(&bare(SHARED_NAME), &key)),
            ("CA:TRUE", self_signed(&authority, &key)),
            ("SAN, CA:FALSE, both usages", self_signed(&complete(SHARED_NAME), &key)),
        ];
        for (shape, identity) in shapes {
            check(&format!("{algorithm:?}, {shape}"), shared(&identity), Outcome::Connected).await;
        }
    }
}

#[tokio::test]
async fn shared_with_other_alternative_names_the_common_name_counts_for_nothing() {
    let identity = self_signed(&with_sans(complete(SHARED_NAME), &["kong.example.com"]), &p256());
    check("SAN", shared(&identity), data_plane_refuses("certificate host mismatch")).await;
}

#[tokio::test]
async fn shared_a_leaf_of_an_authority_wants_the_authority_trusted_as_well() {
    let authority = Authority::new("authority");
    let mut case = shared(&authority.issue(&complete(SHARED_NAME)));
    let refused = data_plane_refuses("21: unable to verify the first certificate");
    check("only the leaf is trusted", case.clone(), refused).await;
    case.data_plane_trust.push_str(&authority.cert);
    check("the authority too", case, Outcome::Connected).await;
}

#[tokio::test]
async fn shared_another_certificate_is_refused_without_an_answer() {
    let mut case = shared(&self_signed(&complete(SHARED_NAME), &p256()));
    case.data_plane = self_signed(&complete(SHARED_NAME), &p256());
    check("another key", case, Outcome::RefusedByControlPlane(444)).await;
}

#[tokio::test]
async fn shared_expired() {
    let identity = self_signed(&expired(complete(SHARED_NAME)), &p256());
    check("expired", shared(&identity), data_plane_refuses("10: certificate has expired")).await;
}

#[tokio::test]
async fn pki_usages_may_be_absent_but_not_wrong() {
    let authority = Authority::new("authority");
    let good = pki(&authority);
    check("serverAuth and clientAuth", good.clone(), Outcome::Connected).await;

    let server = |usage| {
        let params = with_sans(bare("control plane"), &[SERVER_NAME]);
        authority.issue(&usage_or_none(params, usage))
    };
    let client = |usage| authority.issue(&usage_or_none(bare("data plane"), usage));
    let case = Case { control_plane: server(None), ..good.clone() };
    check("none at the control plane", case, Outcome::Connected).await;
    let case = Case { data_plane: client(None), ..good.clone() };
    check("none at the data plane", case, Outcome::Connected).await;

    let case = Case { control_plane: server(Some(CLIENT)), ..good.clone() };
    let outcome = data_plane_refuses("26: unsuitable certificate purpose");
    check("clientAuth at the control plane", case, outcome).await;
    let case = Case { data_plane: client(Some(SERVER)), ..good };
    check("serverAuth at the data plane", case, Outcome::RefusedByControlPlane(400)).await;
}

fn usage_or_none(params: CertificateParams, usage: Option<ExtendedKeyUsagePurpose>) -> CertificateParams {
    match usage {
        Some(usage) => with_usage(params, usage),
        None => params,
    }
}

#[tokio::test]
async fn pki_the_server_name_is_looked_for_in_the_alternative_names_and_then_in_the_common_name() {
    let authority = Authority::new("authority");
    let good = pki(&authority);
    let case = Case { server_name: "other.kong.svc".to_owned(), ..good.clone() };
    check("another server name", case, data_plane_refuses("certificate host mismatch")).await;
    let case = Case { control_plane: authority.issue(&with_usage(bare(SERVER_NAME), SERVER)), ..good };
    check("a common name only", case, Outcome::Connected).await;
}

#[tokio::test]
async fn pki_a_foreign_or_expired_data_plane_gets_status_400_after_the_handshake() {
    let authority = Authority::new("authority");
    let good = pki(&authority);
    let case = Case { data_plane: Authority::new("another").data_plane(), ..good.clone() };
    check("unknown authority", case, Outcome::RefusedByControlPlane(400)).await;
    let data_plane = authority.issue(&expired(with_usage(bare("data plane"), CLIENT)));
    check("expired", Case { data_plane, ..good }, Outcome::RefusedByControlPlane(400)).await;
}

#[tokio::test]
async fn pki_an_intermediate_has_to_be_sent() {
    let root = Authority::new("root");
    let intermediate = root.intermediate("intermediate");
    let chain = |leaf: Identity| Identity { cert: leaf.cert + &intermediate.cert, ..leaf };
    let good = pki(&root);
    let case = Case {
        control_plane: chain(intermediate.control_plane()),
        data_plane: chain(intermediate.data_plane()),
        ..good.clone()
    };
    check("both send it", case.clone(), Outcome::Connected).await;
    let without = Case { control_plane: intermediate.control_plane(), ..case.clone() };
    let refused = data_plane_refuses("21: unable to verify the first certificate");
    check("the control plane does not", without, refused).await;
    let without = Case { data_plane: intermediate.data_plane(), ..case };
    check("the data plane does not", without, Outcome::RefusedByControlPlane(400)).await;
}

#[tokio::test]
async fn pki_two_intermediates_are_one_too_many_for_kongs_default_depth() {
    let root = Authority::new("root");
    let first = root.intermediate("first");
    let second = first.intermediate("second");
    let leaf = second.control_plane();
    let control_plane = Identity { cert: format!("{}{}{}", leaf.cert, second.cert, first.cert), ..leaf };
    let mut case = Case { control_plane, ..pki(&root) };
    check("depth 1", case.clone(), data_plane_refuses("20: unable to get local issuer certificate")).await;
    case.verify_depth = 2;
    check("depth 2", case, Outcome::Connected).await;
}

#[tokio::test]
async fn pki_a_bundle_of_two_authorities_leaves_no_gap_in_a_rotation() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let bundle = format!("{}{}", old.cert, new.cert);
    for (server, issuer) in [("old", &old), ("new", &new)] {
        for (client, other) in [("old", &old), ("new", &new)] {
            let case = Case {
                control_plane_ca: Some(bundle.clone()),
                data_plane: other.data_plane(),
                data_plane_trust: bundle.clone(),
                ..pki(issuer)
            };
            check(&format!("{server} control plane, {client} data plane"), case, Outcome::Connected).await;
        }
    }
    let case = Case {
        control_plane_ca: Some(bundle.clone()),
        data_plane: Authority::new("third").data_plane(),
        data_plane_trust: bundle,
        ..pki(&new)
    };
    check("an authority outside of the bundle", case, Outcome::RefusedByControlPlane(400)).await;
}

/// An authority whose name does not change when it is made anew: only the key's identifier tells the two apart.
#[tokio::test]
async fn pki_a_bundle_of_two_authorities_of_one_name_wants_authority_key_identifiers() {
    let (old, new) = (Authority::new("authority"), Authority::new("authority"));
    let bundle = format!("{}{}", old.cert, new.cert);
    for (server, client) in [(&old, &old), (&old, &new), (&new, &old), (&new, &new)] {
        let case = |with_identifiers| {
            let mut control_plane = with_usage(with_sans(bare("control plane"), &[SERVER_NAME]), SERVER);
            let mut data_plane = with_usage(bare("data plane"), CLIENT);
            control_plane.use_authority_key_identifier_extension = with_identifiers;
            data_plane.use_authority_key_identifier_extension = with_identifiers;
            Case {
                control_plane: server.issue(&control_plane),
                control_plane_ca: Some(bundle.clone()),
                data_plane: client.issue(&data_plane),
                data_plane_trust: bundle.clone(),
                ..pki(server)
            }
        };
        check("with identifiers", case(true), Outcome::Connected).await;
        // Without them, OpenSSL takes the first authority of that name, and no other.
        let outcome = match (server.cert == old.cert, client.cert == old.cert) {
            (true, true) => Outcome::Connected,
            (true, false) => Outcome::RefusedByControlPlane(400),
            (false, _) => data_plane_refuses("7: certificate signature failure"),
        };
        check("without", case(false), outcome).await;
    }
}
