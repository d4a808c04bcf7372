use super::*;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

const TOKEN: &str = "Bearer let-me-in";

/// A registry on loopback that wants a token and has one repository, `tool`.
struct Registry {
    address: String,
    files: HashMap<String, Vec<u8>>,
}

impl Registry {
    /// Adds a blob or a manifest, and gives its descriptor.
    fn put(&mut self, bytes: &[u8], media_type: &str) -> Value {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        self.files.insert(digest.clone(), bytes.to_vec());
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Adds an image for one architecture.
    fn image(&mut self, arch: &str) -> Value {
        let config = json!({ "architecture": arch, "os": "linux" }).to_string();
        let config = self.put(config.as_bytes(), "application/vnd.oci.image.config.v1+json");
        let layer = self.put(format!("layer of {arch}").as_bytes(), "application/vnd.oci.image.layer.v1.tar");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_IMAGE_MEDIA_TYPE, "config": config, "layers": [layer, layer],
        });
        let mut descriptor = self.put(manifest.to_string().as_bytes(), OCI_IMAGE_MEDIA_TYPE);
        descriptor["platform"] = json!({ "architecture": arch, "os": "linux" });
        descriptor
    }

    fn tag(&mut self, tag: &str, manifest: &Value) {
        self.files.insert(tag.to_owned(), manifest.to_string().into_bytes());
    }

    /// Starts to serve; gives where the repository is.
    async fn serve(mut self, change: impl FnOnce(&mut Self)) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        change(&mut self);
        let repository = format!("{}/tool", self.address);
        let router = Router::new().fallback(answer).with_state(Arc::new(self));
        let router = Router::new().route("/token", axum::routing::get(token)).merge(router);
        tokio::spawn(axum::serve(listener, router).into_future());
        repository
    }
}

async fn token() -> String {
    json!({ "token": "let-me-in" }).to_string()
}

async fn answer(State(registry): State<Arc<Registry>>, headers: HeaderMap, uri: axum::http::Uri) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != TOKEN) {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"tests\"", registry.address);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let name = uri.path().rsplit('/').next().unwrap_or_default();
    match registry.files.get(name) {
        Some(file) => file.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn registry() -> Registry {
    Registry { address: String::new(), files: HashMap::new() }
}

async fn pulled(image: &str, arch: Arch) -> Result<oci::Contents, PullError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tool.tar");
    let pulled = pull(image, arch, &path, |_, _| {}).await;
    assert_eq!(path.exists(), pulled.is_ok(), "whole or not at all");
    pulled.map(|()| oci::contents(&path).unwrap())
}

#[tokio::test]
async fn an_image_is_fetched_with_a_token_for_the_machines_it_is_for() {
    let mut images = Vec::new();
    let repository = registry()
        .serve(|registry| {
            images = vec![registry.image("arm64"), registry.image("amd64")];
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": images });
            registry.tag("v1", &index);
        })
        .await;
    let name = format!("{repository}:v1");
    for arch in [Arch::Amd64, Arch::Arm64] {
        let found = pulled(&name, arch).await.unwrap();
        assert_eq!((found.references, found.archs), (vec![name.clone()], vec![arch]));
    }
    // By its digest it is that one image, and still has the name that nodes ask for.
    let exact = format!("{name}@{}", images[0]["digest"].as_str().unwrap());
    assert_eq!(pulled(&exact, Arch::Arm64).await.unwrap().references, [name]);
    assert!(matches!(pulled(&exact, Arch::Amd64).await, Err(PullError::Platform { .. })));
}

#[tokio::test]
async fn what_is_missing_or_changed_is_refused() {
    let mut changed = String::new();
    let repository = registry()
        .serve(|registry| {
            let arm = registry.image("arm64");
            registry.tag("arm", &json!({ "schemaVersion": 2, "manifests": [arm] }));
            let amd = registry.image("amd64");
            changed = amd["digest"].as_str().unwrap().to_owned();
            let manifest: Value = serde_json::from_slice(&registry.files[&changed]).unwrap();
            registry.tag("layer", &manifest);
            let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
            registry.files.insert(layer, b"LAYER OF AMD64".to_vec());
            registry.files.get_mut(&changed).unwrap().push(b' ');
            let mut hostile = manifest.clone();
            hostile["config"]["digest"] = json!("sha256:../../../etc/passwd");
            registry.tag("hostile", &hostile);
            registry.tag("nonsense", &json!("nonsense"));
        })
        .await;
    let refused = async |tag: &str| pulled(&format!("{repository}{tag}"), Arch::Amd64).await.unwrap_err();
    assert!(matches!(refused(":arm").await, PullError::Platform { .. }));
    assert!(matches!(refused(":none").await, PullError::Registry { .. }));
    assert!(matches!(refused(":hostile").await, PullError::Manifest { .. }));
    assert!(matches!(refused(":nonsense").await, PullError::Manifest { .. }));
    let error = refused(":layer").await;
    assert!(
        matches!(&error, PullError::Registry { source: OciDistributionError::DigestError(_), .. }),
        "a changed layer: {error:?}"
    );
    let error = refused(&format!(":v1@{changed}")).await;
    assert!(
        matches!(&error, PullError::Registry { source: OciDistributionError::DigestError(_), .. }),
        "a changed manifest: {error:?}"
    );
}
