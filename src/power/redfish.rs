//! DMTF Redfish (DSP0266, resources by DSP0268), with the habits of real controllers.
//!
//! Basic authentication over TLS: every BMC has it, and no session is left behind on one that allows four of them. BMCs
//! ship with certificates that nobody has signed, so none is checked, as in every tool of the field; the management
//! network is the boundary.

use super::{Bmc, BmcError, BmcIdentity, BootDevice, settle};
use crate::hardware::{BootMode, PowerState};
use crate::inventory::BmcAccess;
use crate::secret::Secret;
use async_trait::async_trait;
use rand::RngExt;
use reqwest::header::{ETAG, IF_MATCH, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::OnceCell;
use url::Url;

/// For one request. Slow BMCs answer in seconds; one that needs longer is stuck.
const REQUEST: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// Tries of one request.
const TRIES: u32 = 4;
/// First pause between two tries; it doubles, and varies so that a rack does not ask in step.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a task that a BMC makes of a request may take.
const TASK: Duration = Duration::from_secs(60);

/// A Redfish service and the one System behind it that is our machine.
#[derive(Debug)]
pub struct Redfish {
    client: Client,
    base: Url,
    /// Path of the System, where the inventory names one.
    named: Option<String>,
    user: String,
    password: Secret<String>,
    system: OnceCell<String>,
}

/// A resource with what is needed to change it.
struct Resource {
    body: Value,
    etag: Option<String>,
}

impl Redfish {
    /// A client for `access`; nothing is sent yet.
    pub fn new(access: &BmcAccess) -> Result<Self, BmcError> {
        crate::tls::install_provider();
        let unusable = |reason: String| BmcError::Unreachable { bmc: access.url.clone(), reason };
        let url: Url = access.url.parse().map_err(|error| unusable(format!("the address cannot be used: {error}")))?;
        let client = Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::limited(3))
            // Some BMCs close idle connections without a word, and the next request on one fails.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| unusable(crate::cli::chain(&error)))?;
        let named = Some(url.path().trim_end_matches('/')).filter(|path| path.contains("/Systems/")).map(str::to_owned);
        let mut base = url;
        base.set_path("/");
        let (user, password) = (access.username.clone(), access.password.clone());
        Ok(Self { client, base, named, user, password, system: OnceCell::new() })
    }

    fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    fn protocol(&self, action: &str, reason: impl Into<String>) -> BmcError {
        BmcError::Protocol { bmc: self.address(), action: action.to_owned(), reason: reason.into() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(path);
        self.client.request(method, url).basic_auth(&self.user, Some(self.password.expose()))
    }

    /// Sends a request, again if it may be repeated and the trouble may pass. `action` is for errors.
    async fn send(&self, action: &str, repeat: bool, request: RequestBuilder) -> Result<Response, BmcError> {
        let mut tries = 1;
        loop {
            let Some(attempt) = request.try_clone() else {
                return Err(self.protocol(action, "the request cannot be repeated"));
            };
            let (error, passes) = match attempt.send().await {
                Ok(response) if response.status().is_server_error() => {
                    let passes = response.status() != StatusCode::NOT_IMPLEMENTED;
                    (self.refusal(action, response).await, passes)
                }
                Ok(response) => return self.check(action, response).await,
                Err(error) => {
                    // Nothing was done yet if there was no connection, so even an order may be sent again.
                    let passes = repeat || error.is_connect();
                    let reason = crate::cli::chain(&error.without_url());
                    (BmcError::Unreachable { bmc: self.address(), reason }, passes)
                }
            };
            if tries == TRIES || !passes {
                return Err(error);
            }
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::time::sleep((PAUSE * 2u32.pow(tries - 1)).mul_f64(jitter)).await;
            tries += 1;
        }
    }

    async fn check(&self, action: &str, response: Response) -> Result<Response, BmcError> {
        let user = self.user.clone();
        match response.status() {
            StatusCode::UNAUTHORIZED => Err(BmcError::Unauthorized { bmc: self.address(), user }),
            StatusCode::FORBIDDEN => Err(BmcError::Forbidden { bmc: self.address(), user, action: action.to_owned() }),
            status if status.is_success() => Ok(response),
            _ => Err(self.refusal(action, response).await),
        }
    }

    /// A refusal in the BMC's own words (`@Message.ExtendedInfo`, DSP0266, 8.6).
    async fn refusal(&self, action: &str, response: Response) -> BmcError {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let messages = body["error"]["@Message.ExtendedInfo"].as_array().into_iter().flatten();
        let mut words: Vec<&str> = messages.filter_map(|message| message["Message"].as_str()).collect();
        if words.is_empty() {
            words.extend(body["error"]["message"].as_str());
        }
        let reason = match words.is_empty() {
            true => status.to_string(),
            false => format!("{status}: {}", words.join(" ")),
        };
        BmcError::Unsupported { bmc: self.address(), action: action.to_owned(), reason }
    }

    async fn get(&self, action: &str, path: &str) -> Result<Resource, BmcError> {
        let response = self.send(action, true, self.request(Method::GET, path)).await?;
        let etag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body: Value = response.json().await.map_err(|error| {
            self.protocol(action, format!("no JSON at {path}: {}", crate::cli::chain(&error.without_url())))
        })?;
        let etag = etag.or_else(|| body["@odata.etag"].as_str().map(str::to_owned));
        Ok(Resource { body, etag })
    }

    /// Sends a body, and waits for the task that the BMC may make of it (202, DSP0266, 12.2).
    async fn submit(&self, action: &str, repeat: bool, request: RequestBuilder) -> Result<(), BmcError> {
        let response = self.send(action, repeat, request).await?;
        let monitor = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let (StatusCode::ACCEPTED, Some(monitor)) = (response.status(), monitor) else { return Ok(()) };
        let path = self.base.join(&monitor).map_or(monitor, |url| url.path().to_owned());
        let started = tokio::time::Instant::now();
        while started.elapsed() < TASK {
            let response = self.send(action, true, self.request(Method::GET, &path)).await?;
            if response.status() != StatusCode::ACCEPTED {
                let body: Value = response.json().await.unwrap_or_default();
                return match body["TaskState"].as_str() {
                    Some(state @ ("Exception" | "Killed" | "Cancelled")) => {
                        Err(self.protocol(action, format!("its task ended as {state}")))
                    }
                    Some("New" | "Starting" | "Running" | "Pending") => {
                        tokio::time::sleep(super::LOOK).await;
                        continue;
                    }
                    _ => Ok(()),
                };
            }
            tokio::time::sleep(super::LOOK).await;
        }
        Err(self.protocol(action, format!("its task was not done after {} s", TASK.as_secs())))
    }

    /// Path of our machine's System: the one that the inventory names, else the only one there is.
    async fn system(&self) -> Result<&str, BmcError> {
        let find = || async {
            if let Some(named) = &self.named {
                return Ok(named.clone());
            }
            let action = "find the machine";
            let root = self.get(action, "/redfish/v1/").await?;
            let systems = root.body["Systems"]["@odata.id"].as_str().unwrap_or("/redfish/v1/Systems").to_owned();
            let systems = self.get(action, &systems).await?;
            let members = systems.body["Members"].as_array().into_iter().flatten();
            let paths: Vec<&str> = members.filter_map(|member| member["@odata.id"].as_str()).collect();
            match paths.as_slice() {
                [path] => Ok((*path).to_owned()),
                [] => Err(self.protocol(action, "it has no System")),
                several => Err(BmcError::Unsupported {
                    bmc: self.address(),
                    action: action.to_owned(),
                    reason: format!("it has several Systems; name one in bmc_ip: {}", several.join(", ")),
                }),
            }
        };
        self.system.get_or_try_init(find).await.map(String::as_str)
    }

    /// `ComputerSystem.Reset`.
    async fn reset(&self, action: &str, kind: &str, wanted: PowerState) -> Result<(), BmcError> {
        if self.power_state().await? == wanted {
            return Ok(());
        }
        let system = self.system().await?;
        let resource = self.get(action, system).await?;
        let target = resource.body["Actions"]["#ComputerSystem.Reset"]["target"].as_str();
        let target = target.map_or_else(|| format!("{system}/Actions/ComputerSystem.Reset"), str::to_owned);
        let order = self.request(Method::POST, &target).json(&json!({ "ResetType": kind }));
        match self.submit(action, false, order).await {
            Ok(()) => {}
            // A lost answer, or "it is on already": the state says whether the order was carried out.
            Err(BmcError::Unreachable { .. } | BmcError::Unsupported { .. }) if self.power_state().await? == wanted => {
            }
            Err(error) => return Err(error),
        }
        settle(self, &self.address(), wanted).await
    }

    /// The virtual CD drive: below the System (newer services) or below its Manager.
    async fn drive(&self) -> Result<Resource, BmcError> {
        let action = "use virtual media";
        let system = self.get(action, self.system().await?).await?;
        let manager = system.body["Links"]["ManagedBy"][0]["@odata.id"].as_str().map(str::to_owned);
        let mut collections: Vec<String> =
            system.body["VirtualMedia"]["@odata.id"].as_str().map(str::to_owned).into_iter().collect();
        if let Some(manager) = manager {
            let manager = self.get(action, &manager).await?;
            collections.extend(manager.body["VirtualMedia"]["@odata.id"].as_str().map(str::to_owned));
        }
        for collection in collections {
            let collection = self.get(action, &collection).await?;
            for member in collection.body["Members"].as_array().into_iter().flatten() {
                let Some(path) = member["@odata.id"].as_str() else { continue };
                let drive = self.get(action, path).await?;
                let types = drive.body["MediaTypes"].as_array().into_iter().flatten();
                if types.filter_map(Value::as_str).any(|kind| matches!(kind, "CD" | "DVD")) {
                    return Ok(drive);
                }
            }
        }
        let reason = String::from("it has no virtual CD drive");
        Err(BmcError::Unsupported { bmc: self.address(), action: action.to_owned(), reason })
    }

    async fn drive_action(&self, action: &str, name: &str, body: Value) -> Result<(), BmcError> {
        let drive = self.drive().await?;
        let target = drive.body["Actions"][format!("#VirtualMedia.{name}")]["target"].as_str();
        let own = drive.body["@odata.id"].as_str().unwrap_or_default();
        let target = target.map_or_else(|| format!("{own}/Actions/VirtualMedia.{name}"), str::to_owned);
        self.submit(action, false, self.request(Method::POST, &target).json(&body)).await
    }
}

/// Redfish's name of a boot device.
fn target(device: BootDevice) -> &'static str {
    match device {
        BootDevice::Pxe => "Pxe",
        BootDevice::UefiHttp => "UefiHttp",
        BootDevice::VirtualMedia => "Cd",
        BootDevice::Disk => "Hdd",
    }
}

#[async_trait]
impl Bmc for Redfish {
    async fn power_state(&self) -> Result<PowerState, BmcError> {
        let action = "tell the power state";
        let system = self.get(action, self.system().await?).await?;
        match system.body["PowerState"].as_str() {
            Some("On" | "PoweringOn" | "Paused") => Ok(PowerState::On),
            Some("Off" | "PoweringOff") => Ok(PowerState::Off),
            other => Err(self.protocol(action, format!("PowerState is {other:?}"))),
        }
    }

    async fn power_on(&self) -> Result<(), BmcError> {
        self.reset("power on", "On", PowerState::On).await
    }

    async fn power_off(&self) -> Result<(), BmcError> {
        self.reset("power off", "ForceOff", PowerState::Off).await
    }

    async fn boot_once(&self, device: BootDevice, mode: BootMode) -> Result<(), BmcError> {
        let action = format!("boot once from {}", target(device));
        let path = self.system().await?;
        let system = self.get(&action, path).await?;
        let boot = &system.body["Boot"];
        let allowed = boot["BootSourceOverrideTarget@Redfish.AllowableValues"].as_array();
        if allowed.is_some_and(|allowed| !allowed.iter().any(|value| value == target(device))) {
            let reason = format!("it allows {}", boot["BootSourceOverrideTarget@Redfish.AllowableValues"]);
            return Err(BmcError::Unsupported { bmc: self.address(), action, reason });
        }
        let mut wanted = json!({
            "BootSourceOverrideTarget": target(device),
            "BootSourceOverrideEnabled": "Once",
        });
        let mode = if mode == BootMode::Uefi { "UEFI" } else { "Legacy" };
        // Told only where it would change something: some services refuse the property, some want it with every change.
        if boot.get("BootSourceOverrideMode").is_some_and(|now| now != mode) {
            wanted["BootSourceOverrideMode"] = json!(mode);
        }
        let patch = |wanted: &Value| {
            let request = self.request(Method::PATCH, path).json(&json!({ "Boot": wanted }));
            // Some services want the version that is changed (428 Precondition Required without).
            match &system.etag {
                Some(etag) => request.header(IF_MATCH, etag),
                None => request,
            }
        };
        match self.submit(&action, true, patch(&wanted)).await {
            Err(BmcError::Unsupported { .. }) if wanted["BootSourceOverrideMode"].is_string() => {
                // The mode is fixed in the firmware's own settings: the device alone is what can be told.
                wanted.as_object_mut().map(|wanted| wanted.remove("BootSourceOverrideMode"));
                self.submit(&action, true, patch(&wanted)).await
            }
            done => done,
        }
    }

    async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        self.drive_action("insert virtual media", "InsertMedia", json!({ "Image": url })).await
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        if self.drive().await?.body["Inserted"] == false {
            return Ok(());
        }
        self.drive_action("eject virtual media", "EjectMedia", json!({})).await
    }

    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        let action = "tell what it is";
        let system = self.get(action, self.system().await?).await?;
        let text = |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let manager = system.body["Links"]["ManagedBy"][0]["@odata.id"].as_str();
        let firmware = match manager {
            Some(manager) => text(&self.get(action, manager).await?.body["FirmwareVersion"]),
            None => None,
        };
        let body = &system.body;
        let (vendor, model, serial) = (text(&body["Manufacturer"]), text(&body["Model"]), text(&body["SerialNumber"]));
        Ok(BmcIdentity { vendor, model, serial, firmware })
    }
}
