//! A machine's BMC: a Redfish service (DSP0266) over HTTPS, as far as installers use one.
//!
//! Fed by the machine's [`MachineHandle`]; asked by `power`, or by any other Redfish client. One System, one Manager with
//! a virtual CD, one Chassis, Basic and session authentication, errors with `@Message.ExtendedInfo`. A [`Fault`] makes it
//! as unhelpful as real ones can be. [`router`] shows the whole service and needs no network, so tests drive it directly.

mod accounts;
mod auth;
mod fault;
mod media;
mod message;
mod resources;
mod system;
mod tls;

pub use fault::Fault;
pub use tls::serve;

use super::machine::MachineHandle;
use super::rack::RackMachine;
use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware;
use axum::routing::{delete, get, post};
use message::RedfishError;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// What one BMC knows.
pub struct Bmc {
    /// Its machine's name, firmware, serial number, account.
    pub machine: RackMachine,
    /// Memory of the machine, in MiB.
    pub memory_mib: u32,
    /// Processors of the machine.
    pub cpus: u32,
    /// Where CD images are fetched to.
    pub media_dir: PathBuf,
    /// The machine itself.
    pub handle: MachineHandle,
    /// What is wrong with this BMC.
    pub fault: watch::Receiver<Fault>,
    /// Open sessions.
    pub sessions: auth::Sessions,
}

impl Bmc {
    /// A BMC of `machine`.
    pub fn new(
        rack: &super::rack::Rack,
        machine: RackMachine,
        handle: MachineHandle,
        fault: watch::Receiver<Fault>,
    ) -> Self {
        Self {
            media_dir: rack.machine_dir(&machine.name),
            memory_mib: rack.memory_mib,
            cpus: rack.cpus_of(&machine),
            machine,
            handle,
            fault,
            sessions: auth::Sessions::default(),
        }
    }
}

/// The whole service.
pub fn router(bmc: Arc<Bmc>) -> Router {
    Router::new()
        .route("/redfish", get(resources::versions))
        .route("/redfish/v1", get(resources::root))
        .route("/redfish/v1/", get(resources::root))
        .route("/redfish/v1/Systems", get(resources::systems))
        .route("/redfish/v1/Systems/1", get(system::read).patch(system::change))
        .route("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", post(system::reset))
        .route("/redfish/v1/Systems/1/EthernetInterfaces", get(resources::ethernet_interfaces))
        .route("/redfish/v1/Systems/1/EthernetInterfaces/1", get(resources::ethernet_interface))
        .route("/redfish/v1/Chassis", get(resources::chassis_collection))
        .route("/redfish/v1/Chassis/1", get(resources::chassis))
        .route("/redfish/v1/Managers", get(resources::managers))
        .route("/redfish/v1/Managers/1", get(resources::manager))
        .route("/redfish/v1/Managers/1/VirtualMedia", get(media::collection))
        .route("/redfish/v1/Managers/1/VirtualMedia/Cd", get(media::read))
        .route("/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", post(media::insert))
        .route("/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia", post(media::eject))
        .route("/redfish/v1/SessionService", get(auth::service))
        .route("/redfish/v1/SessionService/Sessions", get(auth::list).post(auth::log_in))
        .route("/redfish/v1/SessionService/Sessions/{id}", delete(auth::log_out))
        .route("/redfish/v1/AccountService", get(accounts::service))
        .route("/redfish/v1/AccountService/Accounts", get(accounts::list))
        .route("/redfish/v1/AccountService/Accounts/1", get(accounts::account))
        .fallback(async |uri: Uri| RedfishError::not_found(&uri))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| RedfishError::not_allowed(&method, &uri))
        .layer(middleware::from_fn_with_state(bmc.clone(), auth::require))
        .layer(middleware::from_fn_with_state(bmc.clone(), fault::apply))
        .layer(middleware::map_response(message::add_headers))
        .with_state(bmc)
}

#[cfg(test)]
mod tests;
