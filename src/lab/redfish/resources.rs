//! The resources that only describe.

use super::{Bmc, Fault};
use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /redfish`.
pub async fn versions() -> Json<Value> {
    Json(json!({"v1": "/redfish/v1/"}))
}

/// `GET /redfish/v1/`.
pub async fn root(State(bmc): State<Arc<Bmc>>) -> Json<Value> {
    Json(json!({
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_16_1.ServiceRoot",
        "Id": "RootService",
        "Name": "Root Service",
        "RedfishVersion": "1.18.0",
        "UUID": bmc.machine.uuid.to_string(),
        "Vendor": "metalgate",
        "Product": "Virtual rack",
        "Systems": {"@odata.id": "/redfish/v1/Systems"},
        "Chassis": {"@odata.id": "/redfish/v1/Chassis"},
        "Managers": {"@odata.id": "/redfish/v1/Managers"},
        "SessionService": {"@odata.id": "/redfish/v1/SessionService"},
        "AccountService": {"@odata.id": "/redfish/v1/AccountService"},
        "Links": {"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}},
    }))
}

/// A collection with one member.
pub fn collection(id: &str, kind: &str, member: &str) -> Json<Value> {
    Json(json!({
        "@odata.id": id,
        "@odata.type": format!("#{kind}Collection.{kind}Collection"),
        "Name": format!("{kind} Collection"),
        "Members@odata.count": 1,
        "Members": [{"@odata.id": format!("{id}/{member}")}],
    }))
}

/// `GET Systems`.
pub async fn systems() -> Json<Value> {
    collection("/redfish/v1/Systems", "ComputerSystem", "1")
}

/// `GET Chassis`.
pub async fn chassis_collection() -> Json<Value> {
    collection("/redfish/v1/Chassis", "Chassis", "1")
}

/// `GET Managers`.
pub async fn managers() -> Json<Value> {
    collection("/redfish/v1/Managers", "Manager", "1")
}

/// `GET EthernetInterfaces`.
pub async fn ethernet_interfaces() -> Json<Value> {
    collection("/redfish/v1/Systems/1/EthernetInterfaces", "EthernetInterface", "1")
}

/// `GET EthernetInterfaces/1`.
pub async fn ethernet_interface(State(bmc): State<Arc<Bmc>>) -> Json<Value> {
    Json(json!({
        "@odata.id": "/redfish/v1/Systems/1/EthernetInterfaces/1",
        "@odata.type": "#EthernetInterface.v1_10_0.EthernetInterface",
        "Id": "1",
        "Name": "Network card",
        "MACAddress": bmc.machine.mac,
        "PermanentMACAddress": bmc.machine.mac,
        "LinkStatus": if bmc.handle.view().cable { "LinkUp" } else { "LinkDown" },
        "Status": {"State": "Enabled", "Health": "OK"},
    }))
}

/// `GET Chassis/1`.
pub async fn chassis(State(bmc): State<Arc<Bmc>>) -> Json<Value> {
    Json(json!({
        "@odata.id": "/redfish/v1/Chassis/1",
        "@odata.type": "#Chassis.v1_25_0.Chassis",
        "Id": "1",
        "Name": bmc.machine.name,
        "ChassisType": "RackMount",
        "Manufacturer": "metalgate",
        "Model": "Virtual rack",
        "SerialNumber": bmc.machine.serial,
        "PowerState": super::system::power(&bmc),
        "Links": {
            "ComputerSystems": [{"@odata.id": "/redfish/v1/Systems/1"}],
            "ManagedBy": [{"@odata.id": "/redfish/v1/Managers/1"}],
        },
    }))
}

/// `GET Managers/1`.
pub async fn manager(State(bmc): State<Arc<Bmc>>) -> Json<Value> {
    let behind =
        if *bmc.fault.borrow() == Fault::Clock { SignedDuration::from_hours(24) } else { SignedDuration::ZERO };
    let now = Timestamp::now() - behind;
    Json(json!({
        "@odata.id": "/redfish/v1/Managers/1",
        "@odata.type": "#Manager.v1_19_0.Manager",
        "Id": "1",
        "Name": "Manager",
        "ManagerType": "BMC",
        "DateTime": format!("{now:.0}"),
        "DateTimeLocalOffset": "+00:00",
        "FirmwareVersion": env!("CARGO_PKG_VERSION"),
        "Status": {"State": "Enabled", "Health": "OK"},
        "VirtualMedia": {"@odata.id": "/redfish/v1/Managers/1/VirtualMedia"},
        "Links": {
            "ManagerForServers": [{"@odata.id": "/redfish/v1/Systems/1"}],
            "ManagerForChassis": [{"@odata.id": "/redfish/v1/Chassis/1"}],
        },
    }))
}
