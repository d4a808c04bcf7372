//! Certificates that metalgate makes itself: an authority per cluster, and leaves with dates, names and usages that are
//! always set. ECDSA P-256 (RFC 5480), by rcgen.
//!
//! Feeds `bootstrap` (API server and etcd) and `netboot` (the agent's API). Keys are files of mode 0600 or secrets in
//! memory.

use crate::secret::Secret;
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

/// Certificates begin this long ago, for machines whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// How long an authority lasts.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate that could not be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// rcgen refused.
    #[error("cannot make a certificate for {subject}")]
    Make {
        /// Its common name.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A text is no certificate in PEM.
    #[error("{0} is not a PEM certificate")]
    Format(String),
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and nothing else.
    pub cert: String,
    /// PKCS #8.
    pub key: Secret<String>,
}

/// What a leaf may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// TLS server.
    Server,
    /// TLS client.
    Client,
    /// Both: etcd's server certificate is a client certificate too.
    Both,
}

/// A leaf to be issued.
#[derive(Clone, Debug)]
pub struct LeafRequest {
    /// Subject's common name; the user name for Kubernetes.
    pub common_name: String,
    /// Subject's organisations; the groups for Kubernetes.
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// What it is for.
    pub usage: Usage,
    /// How long it lasts.
    pub lifetime: Duration,
}

/// A certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    identity: Identity,
}

impl Authority {
    /// A new authority, for ten years.
    pub fn new(common_name: &str) -> Result<Self, PkiError> {
        Self::lasting(common_name, AUTHORITY_LIFETIME)
    }

    /// A new authority.
    pub fn lasting(common_name: &str, lifetime: Duration) -> Result<Self, PkiError> {
        let mut params = parameters(common_name, lifetime);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let make = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let cert = params.self_signed(&key)?;
            Ok(Identity { cert: cert.pem(), key: Secret::new(key.serialize_pem()) })
        };
        let identity = make().map_err(|source| PkiError::Make { subject: common_name.to_owned(), source })?;
        Ok(Self { identity })
    }

    /// The authority kept as `NAME.crt` and `NAME.key` in `dir`; made there if it is not, or has expired.
    pub fn keep(dir: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        if let Some(identity) = Identity::load(dir, name)?.filter(|identity| identity.is_fresh()) {
            return Ok(Self { identity });
        }
        let authority = Self::new(common_name)?;
        authority.identity.save(dir, name)?;
        Ok(authority)
    }

    /// The authority of a certificate and key that were kept elsewhere.
    pub fn of(identity: Identity) -> Self {
        Self { identity }
    }

    /// Its certificate and key, to be kept elsewhere.
    pub fn into_identity(self) -> Identity {
        self.identity
    }

    /// Its certificate in PEM.
    pub fn cert(&self) -> &str {
        &self.identity.cert
    }

    /// Issues a leaf with a key of its own.
    pub fn issue(&self, request: &LeafRequest) -> Result<Identity, PkiError> {
        let make = || {
            let mut params = request.parameters()?;
            params.use_authority_key_identifier_extension = true;
            let issuer = Issuer::from_ca_cert_pem(&self.identity.cert, KeyPair::from_pem(self.identity.key.expose())?)?;
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let cert = params.signed_by(&key, &issuer)?;
            Ok(Identity { cert: cert.pem(), key: Secret::new(key.serialize_pem()) })
        };
        make().map_err(|source| PkiError::Make { subject: request.common_name.clone(), source })
    }

    /// The leaf kept as `NAME.crt` and `NAME.key` in `dir`; issued anew if it is not there, is not ours, or has spent two
    /// thirds of its life.
    pub fn keep_leaf(&self, dir: &Path, name: &str, request: &LeafRequest) -> Result<Identity, PkiError> {
        let kept = Identity::load(dir, name)?;
        if let Some(identity) = kept.filter(|identity| identity.is_fresh() && self.has_signed(identity)) {
            return Ok(identity);
        }
        let identity = self.issue(request)?;
        identity.save(dir, name)?;
        Ok(identity)
    }

    /// Whether a certificate is one of its leaves.
    pub fn has_signed(&self, leaf: &Identity) -> bool {
        let (Ok((_, authority)), Ok((_, leaf))) =
            (parse_x509_pem(self.identity.cert.as_bytes()), parse_x509_pem(leaf.cert.as_bytes()))
        else {
            return false;
        };
        match (authority.parse_x509(), leaf.parse_x509()) {
            (Ok(authority), Ok(leaf)) => leaf.verify_signature(Some(authority.public_key())).is_ok(),
            _ => false,
        }
    }
}

impl LeafRequest {
    /// A certificate that vouches for itself: ECDSA P-384, as Kong's own tool makes them for its shared mode.
    pub fn self_signed(&self) -> Result<Identity, PkiError> {
        let make = || {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
            let cert = self.parameters()?.self_signed(&key)?;
            Ok(Identity { cert: cert.pem(), key: Secret::new(key.serialize_pem()) })
        };
        make().map_err(|source| PkiError::Make { subject: self.common_name.clone(), source })
    }

    fn parameters(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = parameters(&self.common_name, self.lifetime);
        for organization in &self.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        for name in &self.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        Ok(params)
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Subject, as in RFC 4514.
    pub subject: String,
    /// Issuer, as in RFC 4514.
    pub issuer: String,
    /// Start and end of its life, in seconds since 1970.
    pub validity: (i64, i64),
}

/// What the first certificate of a PEM text says of itself.
pub fn details(pem: &str) -> Result<Details, PkiError> {
    let format = || PkiError::Format(String::from("this text"));
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| format())?;
    let cert = pem.parse_x509().map_err(|_| format())?;
    Ok(Details {
        subject: cert.subject().to_string(),
        issuer: cert.issuer().to_string(),
        validity: (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp()),
    })
}

impl Identity {
    /// Reads `NAME.crt` and `NAME.key` of `dir`, if both are there and are text.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, PkiError> {
        let read = |path: PathBuf| match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            // A disk that was full or lost power leaves bytes that are no text.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
            Err(source) => Err(PkiError::Io { path, source }),
        };
        let (cert, key) = (read(dir.join(format!("{name}.crt")))?, read(dir.join(format!("{name}.key")))?);
        Ok(cert.zip(key).map(|(cert, key)| Self { cert, key: Secret::new(key) }))
    }

    /// Writes `NAME.key` (mode 0600) and then `NAME.crt` into `dir`.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), PkiError> {
        write(&dir.join(format!("{name}.key")), self.key.expose(), 0o600)?;
        write(&dir.join(format!("{name}.crt")), &self.cert, 0o644)
    }

    /// SHA-256 of the certificate in DER, lower case hexadecimal.
    pub fn fingerprint(&self) -> Result<String, PkiError> {
        let (_, pem) = parse_x509_pem(self.cert.as_bytes()).map_err(|_| PkiError::Format(self.cert.clone()))?;
        Ok(hex::encode(Sha256::digest(&pem.contents)))
    }

    /// Whether less than two thirds of its life are over. What cannot be read is not fresh, nor is a certificate whose
    /// key is another one: a run was killed between the two files.
    pub fn is_fresh(&self) -> bool {
        let Ok((_, pem)) = parse_x509_pem(self.cert.as_bytes()) else { return false };
        let Ok(cert) = pem.parse_x509() else { return false };
        let (begin, end) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let Ok(key) = KeyPair::from_pem(self.key.expose()) else { return false };
        let is_pair = cert.public_key().subject_public_key.data == key.public_key_raw();
        is_pair && begin <= now && (now - begin) * 3 < (end - begin) * 2
    }
}

/// A key pair for signing Kubernetes' service account tokens: `NAME.key` and `NAME.pub` in `dir`, made if need be.
pub fn keep_signing_key(dir: &Path, name: &str) -> Result<(), PkiError> {
    let (key_path, public_path) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pub")));
    let kept = std::fs::read_to_string(&key_path).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    let identity = match kept {
        Some(key) => Identity { cert: key.public_key_pem(), key: Secret::new(key.serialize_pem()) },
        None => signing_key()?,
    };
    write(&key_path, identity.key.expose(), 0o600)?;
    write(&public_path, &identity.cert, 0o644)
}

/// A key pair for signing Kubernetes' service account tokens: `cert` is the public key.
pub fn signing_key() -> Result<Identity, PkiError> {
    let make = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
    let key = make.map_err(|source| PkiError::Make { subject: String::from("service accounts"), source })?;
    Ok(Identity { cert: key.public_key_pem(), key: Secret::new(key.serialize_pem()) })
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let new = path.with_extension("new");
    let attempt = || {
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    attempt().map_err(|source| PkiError::Io { path: path.to_owned(), source })
}

/// Subject, dates and serial number; rcgen's own default would last until the year 4096.
fn parameters(common_name: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + lifetime;
    // Positive, and at most 20 octets (RFC 5280, 4.1.2.2).
    let mut serial = [0u8; 16];
    rand::rng().fill_bytes(&mut serial);
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn request(lifetime: Duration) -> LeafRequest {
        LeafRequest {
            common_name: String::from("kubernetes-admin"),
            organizations: vec![String::from("system:masters")],
            dns_names: vec![String::from("localhost")],
            addresses: vec![[127, 0, 0, 1].into()],
            usage: Usage::Server,
            lifetime,
        }
    }

    fn openssl(args: &[&str]) -> String {
        let output = Command::new("openssl").args(args).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn openssl_accepts_a_leaf_and_a_foreign_authority_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let day = Duration::from_secs(86_400);
        let authority = Authority::keep(dir.path(), "ca", "test CA").unwrap();
        let leaf = authority.keep_leaf(dir.path(), "leaf", &request(day)).unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        openssl(&[
            "verify",
            "-purpose",
            "sslserver",
            "-verify_ip",
            "127.0.0.1",
            "-CAfile",
            &file("ca.crt"),
            &file("leaf.crt"),
        ]);
        let text = openssl(&["x509", "-in", &file("leaf.crt"), "-noout", "-subject", "-checkend", "82800"]);
        assert!(text.contains("O = system:masters") && text.contains("CN = kubernetes-admin"), "{text}");
        let mode = std::fs::metadata(file("leaf.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Kept as it is while it is good; made anew for another authority.
        let again = authority.keep_leaf(dir.path(), "leaf", &request(day)).unwrap();
        assert_eq!(again.cert, leaf.cert);
        let other = Authority::new("other CA").unwrap();
        assert!(!other.has_signed(&leaf));
        assert_ne!(other.keep_leaf(dir.path(), "leaf", &request(day)).unwrap().cert, leaf.cert);
        let shown = openssl(&["x509", "-in", &file("leaf.crt"), "-noout", "-fingerprint", "-sha256"]);
        let fingerprint = Identity::load(dir.path(), "leaf").unwrap().unwrap().fingerprint().unwrap();
        assert_eq!(shown.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase(), fingerprint);
    }

    #[test]
    fn leaves_name_their_authoritys_key() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::keep(dir.path(), "ca", "test CA").unwrap();
        authority.keep_leaf(dir.path(), "leaf", &request(Duration::from_secs(86_400))).unwrap();
        // Where two authorities of one name are trusted, OpenSSL finds the right one by this alone.
        let show = |file: &str, extension: &str| {
            let path = dir.path().join(file).display().to_string();
            let text = openssl(&["x509", "-in", &path, "-noout", "-ext", extension]);
            text.lines().last().unwrap_or_default().trim().to_owned()
        };
        let key = show("ca.crt", "subjectKeyIdentifier");
        assert!(key.len() > 20);
        assert_eq!(show("leaf.crt", "authorityKeyIdentifier"), key);
    }

    #[test]
    fn an_old_or_damaged_leaf_is_issued_anew() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("test CA").unwrap();
        // Backdating alone spends more than two thirds of such a life.
        let old = authority.keep_leaf(dir.path(), "leaf", &request(Duration::from_secs(60))).unwrap();
        let new = authority.keep_leaf(dir.path(), "leaf", &request(Duration::from_secs(86_400))).unwrap();
        assert_ne!(old.cert, new.cert);
        std::fs::write(dir.path().join("leaf.key"), "nonsense").unwrap();
        let mended = authority.keep_leaf(dir.path(), "leaf", &request(Duration::from_secs(86_400))).unwrap();
        assert_ne!(new.cert, mended.cert);
        std::fs::write(dir.path().join("leaf.crt"), [0xff; 512]).unwrap();
        authority.keep_leaf(dir.path(), "leaf", &request(Duration::from_secs(86_400))).unwrap();
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_no_pair() {
        let dir = tempfile::tempdir().unwrap();
        let day = request(Duration::from_secs(86_400));
        let authority = Authority::new("test CA").unwrap();
        let kept = authority.keep_leaf(dir.path(), "leaf", &day).unwrap();
        assert!(kept.is_fresh());
        // What a run leaves that is killed after the first of the two files.
        let other = authority.issue(&day).unwrap();
        std::fs::write(dir.path().join("leaf.key"), other.key.expose()).unwrap();
        let mended = authority.keep_leaf(dir.path(), "leaf", &day).unwrap();
        assert!(mended.is_fresh() && mended.cert != kept.cert);
    }
}
