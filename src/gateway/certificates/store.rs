//! The Secrets of a gateway: its authorities, its leaves, and values that are made once.

use super::{Authorities, CertificatesError, DAY, Issuer, Kept, STACK_LABEL, Stage, Wanted};
use crate::api::{ApiError, FIELD_MANAGER};
use crate::gateway::{Stack, Sums};
use crate::pki::{self, Authority, Identity, PkiError};
use crate::secret::Secret;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use rand::Rng;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// Annotation with the sum of the request that a certificate was made for.
const REQUEST_ANNOTATION: &str = "metalgate.dev/request";
/// Annotation of an authority: its stage, and since when.
const STAGE_ANNOTATION: &str = "metalgate.dev/rotation";
const SINCE_ANNOTATION: &str = "metalgate.dev/rotation-since";
/// Annotation of an authority: leaves that are older are made anew.
const REISSUE_ANNOTATION: &str = "metalgate.dev/reissue-before";

/// A certificate as it is, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Its Secret.
    pub secret: String,
    /// Its subject; nothing: it is not there, or cannot be read.
    pub subject: Option<String>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it will be made anew.
    pub renewed: Option<Timestamp>,
    /// What reads it.
    pub used_by: Vec<String>,
}

impl fmt::Display for CertificateStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readers = self.used_by.join(", ");
        let (Some(subject), Some(expires), Some(renewed)) = (&self.subject, self.expires, self.renewed) else {
            return write!(f, "{}: not there; {readers}", self.secret);
        };
        let (expires, renewed) = (expires.strftime("%Y-%m-%d"), renewed.strftime("%Y-%m-%d"));
        write!(f, "{}: {subject}, until {expires}, renewed from {renewed}; {readers}", self.secret)
    }
}

/// The Secrets of a gateway.
pub struct Store<'s> {
    /// The gateway.
    pub stack: &'s Stack,
    /// The control plane's cluster.
    pub here: Client,
    /// The clusters of data planes elsewhere, by the plane's name.
    pub planes: &'s BTreeMap<String, Client>,
}

impl Store<'_> {
    fn secrets(&self, client: &Client) -> Api<KubeSecret> {
        Api::namespaced(client.clone(), &self.stack.gateway.namespace)
    }

    fn authority_name(&self, issuer: Issuer) -> String {
        self.stack.named(if issuer == Issuer::Listeners { "listeners-ca" } else { "planes-ca" })
    }

    async fn find(&self, client: &Client, name: &str) -> Result<Option<KubeSecret>, ApiError> {
        self.secrets(client).get_opt(name).await.map_err(ApiError::of(format!("Secret {name}")))
    }

    async fn write(&self, client: &Client, secret: &KubeSecret) -> Result<(), ApiError> {
        let name = secret.name_any();
        let how = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.secrets(client).patch(&name, &how, &Patch::Apply(secret)).await;
        written.map(drop).map_err(ApiError::of(format!("Secret {name}")))
    }

    fn secret(&self, name: &str, kind: &str, data: &[(&str, &str)], annotations: &[(&str, String)]) -> KubeSecret {
        let pairs = |(key, value): &(&str, &str)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
        KubeSecret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.stack.gateway.namespace.clone()),
                labels: Some(BTreeMap::from([
                    (STACK_LABEL.to_owned(), self.stack.name.clone()),
                    (String::from("app.kubernetes.io/managed-by"), String::from("metalgate")),
                ])),
                annotations: Some(annotations.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()),
                ..ObjectMeta::default()
            },
            type_: Some(kind.to_owned()),
            data: Some(data.iter().map(pairs).collect()),
            ..KubeSecret::default()
        }
    }

    /// The authorities that `wanted` needs; those that are not there are made. One that has spent two thirds of its life is
    /// replaced.
    pub async fn authorities(&self, wanted: &[Wanted]) -> Result<Authorities, CertificatesError> {
        let mut authorities = Authorities::default();
        for issuer in [Issuer::Planes, Issuer::Listeners] {
            if !wanted.iter().any(|one| one.issuer == issuer) {
                continue;
            }
            let kept = match self.read_authority(issuer).await? {
                Some(mut kept) if !kept.current.is_fresh() && kept.stage == Stage::Settled => {
                    kept.introduce(self.make_authority(issuer)?, Timestamp::now());
                    self.write_authority(issuer, &kept).await?;
                    kept
                }
                Some(kept) => kept,
                None => {
                    let kept = Kept::new(self.make_authority(issuer)?);
                    self.write_authority(issuer, &kept).await?;
                    kept
                }
            };
            authorities.0.insert(issuer, kept);
        }
        Ok(authorities)
    }

    fn make_authority(&self, issuer: Issuer) -> Result<Identity, PkiError> {
        let what = if issuer == Issuer::Listeners { "listeners" } else { "planes" };
        // The day tells one from its successor, which has the same name otherwise.
        let name =
            format!("metalgate {} {what} CA {}", self.stack.name, Timestamp::now().strftime("%Y-%m-%d %H:%M:%S"));
        Ok(Authority::lasting(&name, self.stack.gateway.pki.ca_days * DAY)?.into_identity())
    }

    /// An authority as it is kept; nothing if there is none.
    pub async fn read_authority(&self, issuer: Issuer) -> Result<Option<Kept>, CertificatesError> {
        let Some(secret) = self.find(&self.here, &self.authority_name(issuer)).await? else { return Ok(None) };
        let Some(current) = identity(&secret, "tls.crt", "tls.key") else { return Ok(None) };
        let annotation = |name: &str| secret.annotations().get(name).map(String::as_str).unwrap_or_default();
        let time = |name: &str| annotation(name).parse().unwrap_or(Timestamp::UNIX_EPOCH);
        let (stage, other) = match annotation(STAGE_ANNOTATION) {
            "introducing" => {
                let next = identity(&secret, "other.crt", "other.key");
                (Stage::Introducing, next.map(|next| (next.cert, Some(next.key))))
            }
            "retiring" => (Stage::Retiring, text(&secret, "other.crt").map(|cert| (cert, None))),
            _ => (Stage::Settled, None),
        };
        // A stage whose other half is lost is none.
        let stage = if other.is_none() { Stage::Settled } else { stage };
        let (since, reissue_before) = (time(SINCE_ANNOTATION), time(REISSUE_ANNOTATION));
        Ok(Some(Kept { current, other, stage, since, reissue_before }))
    }

    /// Writes an authority whole.
    pub async fn write_authority(&self, issuer: Issuer, kept: &Kept) -> Result<(), CertificatesError> {
        let mut data = vec![("tls.crt", kept.current.cert.as_str()), ("tls.key", kept.current.key.expose().as_str())];
        if let Some((cert, key)) = &kept.other {
            data.push(("other.crt", cert));
            data.extend(key.as_ref().map(|key| ("other.key", key.expose().as_str())));
        }
        let stage = match kept.stage {
            Stage::Settled => "settled",
            Stage::Introducing => "introducing",
            Stage::Retiring => "retiring",
        };
        let annotations = [
            (STAGE_ANNOTATION, stage.to_owned()),
            (SINCE_ANNOTATION, kept.since.to_string()),
            (REISSUE_ANNOTATION, kept.reissue_before.to_string()),
        ];
        let secret = self.secret(&self.authority_name(issuer), "kubernetes.io/tls", &data, &annotations);
        Ok(self.write(&self.here, &secret).await?)
    }

    /// Begins the replacement of an authority, or of its leaves.
    pub async fn rotate(&self, issuer: Issuer, authority: bool) -> Result<(), CertificatesError> {
        let Some(mut kept) = self.read_authority(issuer).await? else { return Ok(()) };
        let now = Timestamp::now();
        match authority {
            true => kept.introduce(self.make_authority(issuer)?, now),
            // What is made from now on begins a little earlier.
            false => kept.reissue_before = now - pki::BACKDATE,
        }
        self.write_authority(issuer, &kept).await
    }

    /// Goes to the next stage of every replacement that everybody has seen.
    pub async fn advance(&self, authorities: &Authorities) -> Result<bool, CertificatesError> {
        let mut moved = false;
        for (issuer, kept) in &authorities.0 {
            if kept.stage != Stage::Settled {
                let mut kept = kept.clone();
                kept.advance(Timestamp::now());
                self.write_authority(*issuer, &kept).await?;
                moved = true;
            }
        }
        Ok(moved)
    }

    /// Puts every wanted certificate into its Secrets; gives the sums of those that are read at a start only.
    pub async fn keep(&self, wanted: &[Wanted], authorities: &Authorities) -> Result<Sums, CertificatesError> {
        let mut sums = Sums::new();
        for one in wanted {
            let there = self.find(&self.here, &one.secret).await?;
            let asked = hex::encode(Sha256::digest(format!("{:?}", one.request)));
            let same_request = there
                .as_ref()
                .is_some_and(|there| there.annotations().get(REQUEST_ANNOTATION).is_some_and(|sum| *sum == asked));
            let old = there.as_ref().and_then(|there| identity(there, "tls.crt", "tls.key"));
            let (leaf, bundle) = match authorities.0.get(&one.issuer) {
                Some(kept) => (kept.keep_leaf(old.as_ref(), same_request, &one.request)?, kept.bundle()),
                None => {
                    let kept = old.filter(|old| same_request && old.is_fresh());
                    let leaf = kept.map_or_else(|| one.request.self_signed(), Ok)?;
                    (leaf.clone(), leaf.cert)
                }
            };
            let data = [("tls.crt", leaf.cert.as_str()), ("tls.key", leaf.key.expose().as_str()), ("ca.crt", &bundle)];
            let secret = self.secret(&one.secret, "kubernetes.io/tls", &data, &[(REQUEST_ANNOTATION, asked)]);
            // Kept here in any case, so that it can be compared the next time.
            self.write(&self.here, &secret).await?;
            for plane in &one.planes {
                let client = self.planes.get(plane).ok_or_else(|| CertificatesError::Plane(plane.clone()))?;
                self.write(client, &secret).await?;
            }
            if one.read_at_start {
                sums.insert(one.secret.clone(), sum(&leaf.cert, &bundle));
            }
        }
        Ok(sums)
    }

    /// A Secret with one random value, made once.
    pub async fn keep_random(&self, name: &str, key: &str) -> Result<(), CertificatesError> {
        if self.find(&self.here, name).await?.is_some_and(|secret| text(&secret, key).is_some()) {
            return Ok(());
        }
        let mut bytes = [0u8; 16];
        rand::rng().fill_bytes(&mut bytes);
        let value = hex::encode(bytes);
        let secret = self.secret(name, "Opaque", &[(key, &value)], &[]);
        Ok(self.write(&self.here, &secret).await?)
    }

    /// A Secret with these values.
    pub async fn put(&self, name: &str, data: &[(&str, &str)]) -> Result<(), CertificatesError> {
        Ok(self.write(&self.here, &self.secret(name, "Opaque", data, &[])).await?)
    }

    /// The sums of the certificates that are there and are read at a start only.
    pub async fn sums(&self, wanted: &[Wanted]) -> Result<Sums, CertificatesError> {
        let mut sums = Sums::new();
        for one in wanted.iter().filter(|one| one.read_at_start) {
            let secret = self.find(&self.here, &one.secret).await?;
            let both = secret.and_then(|secret| Some((text(&secret, "tls.crt")?, text(&secret, "ca.crt")?)));
            if let Some((cert, bundle)) = both {
                sums.insert(one.secret.clone(), sum(&cert, &bundle));
            }
        }
        Ok(sums)
    }

    /// A value of a Secret of the gateway's namespace.
    pub async fn value(&self, name: &str, key: &str) -> Result<Option<String>, CertificatesError> {
        Ok(self.find(&self.here, name).await?.and_then(|secret| text(&secret, key)))
    }

    /// Every certificate with its expiry and its readers.
    pub async fn status(&self, wanted: &[Wanted]) -> Result<Vec<CertificateStatus>, CertificatesError> {
        let mut all = Vec::new();
        for issuer in [Issuer::Planes, Issuer::Listeners] {
            let leaves: Vec<String> =
                wanted.iter().filter(|one| one.issuer == issuer).map(|one| format!("Secret {}", one.secret)).collect();
            if !leaves.is_empty() {
                let name = self.authority_name(issuer);
                let secret = self.find(&self.here, &name).await?;
                all.push(status(name, secret.as_ref(), leaves));
            }
        }
        for one in wanted {
            let secret = self.find(&self.here, &one.secret).await?;
            all.push(status(one.secret.clone(), secret.as_ref(), one.used_by.clone()));
        }
        Ok(all)
    }
}

/// What pods carry that read a certificate at their start.
fn sum(cert: &str, bundle: &str) -> String {
    hex::encode(&Sha256::digest(format!("{cert}{bundle}"))[..16])
}

fn status(name: String, secret: Option<&KubeSecret>, used_by: Vec<String>) -> CertificateStatus {
    let details = secret.and_then(|secret| text(secret, "tls.crt")).and_then(|pem| pki::details(&pem).ok());
    let time = |seconds: i64| Timestamp::from_second(seconds).ok();
    CertificateStatus {
        secret: name,
        subject: details.as_ref().map(|details| details.subject.clone()),
        issuer: details.as_ref().map(|details| details.issuer.clone()),
        expires: details.as_ref().and_then(|details| time(details.validity.1)),
        renewed: details.as_ref().and_then(|details| {
            let (begin, end) = details.validity;
            time(begin + (end - begin) * 2 / 3)
        }),
        used_by,
    }
}

fn text(secret: &KubeSecret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

fn identity(secret: &KubeSecret, cert: &str, key: &str) -> Option<Identity> {
    Some(Identity { cert: text(secret, cert)?, key: Secret::new(text(secret, key)?) })
}
