//! The one account, and its role: an administrator's, or that of one who may only look (see [`Fault`]).

use super::{Bmc, Fault, resources};
use crate::lab::rack::BMC_USER;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

const SERVICE: &str = "/redfish/v1/AccountService";

/// `GET AccountService`.
pub async fn service() -> Json<Value> {
    Json(json!({
        "@odata.id": SERVICE,
        "@odata.type": "#AccountService.v1_15_1.AccountService",
        "Id": "AccountService",
        "Name": "Account Service",
        "ServiceEnabled": true,
        "Accounts": {"@odata.id": format!("{SERVICE}/Accounts")},
    }))
}

/// `GET Accounts`.
pub async fn list() -> Json<Value> {
    resources::collection(&format!("{SERVICE}/Accounts"), "ManagerAccount", "1")
}

/// `GET Accounts/1`.
pub async fn account(State(bmc): State<Arc<Bmc>>) -> Json<Value> {
    Json(json!({
        "@odata.id": format!("{SERVICE}/Accounts/1"),
        "@odata.type": "#ManagerAccount.v1_12_1.ManagerAccount",
        "Id": "1",
        "Name": "User Account",
        "UserName": BMC_USER,
        "RoleId": if *bmc.fault.borrow() == Fault::ReadOnly { "ReadOnly" } else { "Administrator" },
        "Enabled": true,
        "Locked": false,
    }))
}
