//! The virtual CD: an image is fetched whole before it is inserted, so that the machine never waits for its source.

use super::Bmc;
use super::message::RedfishError;
use super::resources;
use super::system::carry_out;
use crate::lab::machine::{Medium, Order};
use crate::tls;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures::StreamExt;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const MEDIA: &str = "/redfish/v1/Managers/1/VirtualMedia";
const INSERT: &str = "VirtualMedia.InsertMedia";
const EJECT: &str = "VirtualMedia.EjectMedia";
/// No byte for this long, and the source counts as dead.
const STALLED: Duration = Duration::from_secs(30);

/// `GET VirtualMedia`.
pub async fn collection() -> Json<Value> {
    resources::collection(MEDIA, "VirtualMedia", "Cd")
}

/// `GET VirtualMedia/Cd`.
pub async fn read(State(bmc): State<Arc<Bmc>>) -> Json<Value> {
    let medium = bmc.handle.view().medium;
    let url = medium.as_ref().map(|medium| medium.url.as_str());
    Json(json!({
        "@odata.id": format!("{MEDIA}/Cd"),
        "@odata.type": "#VirtualMedia.v1_6_3.VirtualMedia",
        "Id": "Cd",
        "Name": "Virtual CD",
        "MediaTypes": ["CD", "DVD"],
        "Image": url,
        "ImageName": url.and_then(|url| url.rsplit('/').next()),
        "Inserted": url.is_some(),
        "WriteProtected": true,
        "ConnectedVia": if url.is_some() { "URI" } else { "NotConnected" },
        "TransferMethod": "Upload",
        "Actions": {
            format!("#{INSERT}"): {"target": format!("{MEDIA}/Cd/Actions/{INSERT}")},
            format!("#{EJECT}"): {"target": format!("{MEDIA}/Cd/Actions/{EJECT}")},
        },
    }))
}

/// `POST VirtualMedia.InsertMedia`.
pub async fn insert(State(bmc): State<Arc<Bmc>>, request: String) -> Result<StatusCode, RedfishError> {
    let request: Map<String, Value> = serde_json::from_str(&request).map_err(|_| RedfishError::malformed())?;
    let value = request.get("Image").ok_or_else(|| RedfishError::missing_parameter(INSERT, "Image"))?;
    let url = value
        .as_str()
        .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
        .ok_or_else(|| RedfishError::bad_parameter(INSERT, "Image", value))?;
    // A name of its own for each image: QEMU may still have the last one open.
    let file = bmc.media_dir.join(format!("cd-{}.iso", uuid::Uuid::new_v4()));
    if let Err(reason) = fetch(url, &file).await {
        let _ = tokio::fs::remove_file(&file).await;
        return Err(RedfishError::media_unreachable(url, &reason));
    }
    replace(&bmc, Some(Medium { url: url.to_owned(), file })).await
}

/// `POST VirtualMedia.EjectMedia`; fine if the drive is empty.
pub async fn eject(State(bmc): State<Arc<Bmc>>) -> Result<StatusCode, RedfishError> {
    replace(&bmc, None).await
}

async fn replace(bmc: &Bmc, medium: Option<Medium>) -> Result<StatusCode, RedfishError> {
    let last = bmc.handle.view().medium;
    let done = carry_out(bmc, Order::Medium(medium)).await?;
    if let Some(last) = last {
        let _ = tokio::fs::remove_file(last.file).await;
    }
    Ok(done)
}

async fn fetch(url: &str, file: &Path) -> Result<(), String> {
    tls::install_provider();
    // As BMCs do unless VerifyCertificate is set: the image server's certificate is not checked.
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).connect_timeout(STALLED).build();
    let client = client.map_err(|error| error.to_string())?;
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut body = response.map_err(|error| error.without_url().to_string())?.bytes_stream();
    let mut out = tokio::fs::File::create(file).await.map_err(|error| error.to_string())?;
    while let Some(chunk) = tokio::time::timeout(STALLED, body.next()).await.map_err(|_| "it stalled".to_owned())? {
        let chunk = chunk.map_err(|error| error.without_url().to_string())?;
        out.write_all(&chunk).await.map_err(|error| error.to_string())?;
    }
    out.flush().await.map_err(|error| error.to_string())
}
