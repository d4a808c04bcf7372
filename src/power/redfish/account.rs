//! What our account may do, as far as the service tells: its own entry among the accounts, and the role named there.

use super::service::Service;
use crate::power::{BmcError, Role};
use serde_json::Value;

const ACTION: &str = "tell what the account may do";
/// What changes a ComputerSystem: resets and the boot override (DSP8011, Redfish's own registry of privileges).
const NEEDED: &str = "ConfigureComponents";
/// Roles that every service has, with or without that privilege (DSP0266, 13.6.2).
const PREDEFINED: [(&str, bool); 3] = [("Administrator", true), ("Operator", true), ("ReadOnly", false)];

/// The role of our account. `None`: it is no account of the BMC's own (a directory has it), or the BMC does not tell.
pub async fn role(service: &Service) -> Option<Role> {
    let get = async |path: &str| service.get(ACTION, path).await.map(|resource| resource.body);
    let link = |body: &Value, name: &str| body[name]["@odata.id"].as_str().map(str::to_owned);
    let root = get("/redfish/v1/").await.ok()?;
    let accounts = get(&link(&root, "AccountService")?).await.ok()?;
    let list = get(&link(&accounts, "Accounts")?).await.ok()?;
    for member in list["Members"].as_array()? {
        let account = match get(member["@odata.id"].as_str()?).await {
            Ok(account) => account,
            // Others' accounts need not be shown to us.
            Err(BmcError::Forbidden { .. } | BmcError::Unsupported { .. }) => continue,
            Err(_) => return None,
        };
        if account["UserName"].as_str() != Some(service.user()) {
            continue;
        }
        let name = account["RoleId"].as_str()?.to_owned();
        if let Some((_, suffices)) = PREDEFINED.iter().find(|(predefined, _)| *predefined == name) {
            return Some(Role { name, suffices: *suffices });
        }
        let role = get(&link(&account["Links"], "Role")?).await.ok()?;
        let suffices = role["AssignedPrivileges"].as_array()?.iter().any(|privilege| privilege == NEEDED);
        return Some(Role { name, suffices });
    }
    None
}
