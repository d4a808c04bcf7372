//! Habits of real BMCs that no emulator shows, from a service that answers by a script.

mod peer;

use super::*;
use crate::power::Role;
use peer::{Answer, Peer, RESET, SYSTEM, hang_up, json, refusal, system, text};

const TASK: &str = "/redfish/v1/TaskService/Tasks/7";

fn get(path: &str) -> String {
    format!("GET {path}")
}

fn post(path: &str) -> String {
    format!("POST {path}")
}

fn patch() -> String {
    format!("PATCH {SYSTEM}")
}

/// A System that tells its boot override.
fn with_boot(boot: Value) -> Answer {
    json(200, json!({ "@odata.id": SYSTEM, "PowerState": "Off", "Boot": boot }))
}

#[tokio::test]
async fn an_order_that_becomes_a_task_is_waited_for() {
    let accepted = text(202, "").with("location", TASK);
    let running = json(200, json!({ "TaskState": "Running" }));
    let done = json(200, json!({ "TaskState": "Completed" }));
    let peer = Peer::new()
        .await
        .on(&get(SYSTEM), [system("Off"), system("Off"), system("On")])
        .on(&post(RESET), [accepted])
        .on(&get(TASK), [text(202, ""), running, done]);
    peer.client().power_on().await.unwrap();
    assert_eq!(peer.asked(&get(TASK)).len(), 3);
    assert_eq!(peer.asked("POST")[0].body, json!({ "ResetType": "On" }));
}

#[tokio::test]
async fn a_task_that_fails_says_why() {
    let failed = json!({ "TaskState": "Exception", "Messages": [{ "Message": "The power supply is unplugged." }] });
    let peer = Peer::new()
        .await
        .on(&get(SYSTEM), [system("Off")])
        .on(&post(RESET), [text(202, "").with("location", format!("https://10.9.9.9{TASK}"))])
        .on(&get(TASK), [json(200, failed)]);
    let error = peer.client().power_on().await.unwrap_err();
    assert!(matches!(error, BmcError::Failed { .. }), "{error:?}");
    assert!(error.to_string().ends_with("its task ended as Exception: The power supply is unplugged."), "{error}");
}

#[tokio::test]
async fn a_task_in_the_body_that_is_forgotten_when_done() {
    let accepted = json(202, json!({ "@odata.id": TASK, "TaskState": "New" }));
    let peer = Peer::new()
        .await
        .on(&patch(), [accepted])
        .on(&get(TASK), [json(200, json!({ "TaskState": "Starting" })), text(404, "")]);
    peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap();
    assert_eq!(peer.asked(&get(TASK)).len(), 2);
}

#[tokio::test]
async fn a_task_that_nobody_knows_is_an_error() {
    let peer = Peer::new().await.on(&patch(), [text(202, "").with("location", TASK)]);
    let error = peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn the_version_that_was_read_is_the_one_that_is_changed() {
    for tagged in [system("Off").with("etag", "\"5\""), json(200, json!({ "@odata.etag": "\"5\"" }))] {
        let peer = Peer::new().await.on(&get(SYSTEM), [tagged]).on(&patch(), [text(204, "")]);
        peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap();
        assert_eq!(peer.asked("PATCH")[0].if_match.as_deref(), Some("\"5\""));
    }
}

#[tokio::test]
async fn a_service_that_wants_a_version_but_tells_none_gets_any() {
    let peer = Peer::new().await.on(&patch(), [refusal(428, "If-Match is required"), text(204, "")]);
    peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap();
    let tags: Vec<_> = peer.asked("PATCH").into_iter().map(|asked| asked.if_match).collect();
    assert_eq!(tags, [None, Some(String::from("*"))]);
}

#[tokio::test]
async fn a_service_that_does_not_match_its_own_weak_tag_gets_the_strong_one() {
    let tagged = system("Off").with("etag", "W/\"5\"");
    let peer = Peer::new().await.on(&get(SYSTEM), [tagged]).on(&patch(), [text(412, ""), text(412, ""), text(204, "")]);
    peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap();
    let tags: Vec<_> = peer.asked("PATCH").into_iter().filter_map(|asked| asked.if_match).collect();
    assert_eq!(tags, ["W/\"5\"", "\"5\"", "*"]);
}

#[tokio::test]
async fn a_busy_bmc_is_asked_again() {
    let peer = Peer::new().await.on(&get(SYSTEM), [text(503, ""), text(500, "oops"), system("Off")]);
    assert_eq!(peer.client().power_state().await.unwrap(), PowerState::Off);
    let peer = Peer::new().await.on(&get(SYSTEM), [hang_up(), system("Off")]);
    assert_eq!(peer.client().power_state().await.unwrap(), PowerState::Off);
}

#[tokio::test]
async fn a_bmc_that_stays_busy_failed_but_may_do_better_later() {
    let peer = Peer::new().await.on(&get(SYSTEM), [refusal(503, "The service is starting.")]);
    let error = peer.client().power_state().await.unwrap_err();
    assert!(matches!(error, BmcError::Failed { .. }), "{error:?}");
    assert!(error.to_string().ends_with("503 Service Unavailable: The service is starting."), "{error}");
    assert_eq!(peer.asked(&get(SYSTEM)).len(), 4);
}

#[tokio::test]
async fn what_is_not_there_is_not_asked_for_again() {
    for status in [400, 404, 405, 501] {
        let peer = Peer::new().await.on(&patch(), [refusal(status, "No.")]);
        let error = peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap_err();
        assert!(matches!(error, BmcError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("cannot boot once from Pxe") && error.to_string().ends_with(": No."));
        assert_eq!(peer.asked("PATCH").len(), 1);
    }
}

#[tokio::test]
async fn the_words_of_an_error_without_extended_information() {
    let body = json!({ "error": { "code": "Base.1.0.GeneralError", "message": "Pool default is missing" } });
    let peer = Peer::new().await.on(&get(SYSTEM), [json(404, body)]);
    let error = peer.client().power_state().await.unwrap_err();
    assert!(error.to_string().ends_with("404 Not Found: Pool default is missing"), "{error}");
    let peer = Peer::new().await.on(&get(SYSTEM), [text(404, "<html>")]);
    let error = peer.client().power_state().await.unwrap_err();
    assert!(error.to_string().ends_with(": 404 Not Found"), "{error}");
}

#[tokio::test]
async fn accounts() {
    let peer = Peer::new().await.on(&get(SYSTEM), [system("Off")]).on(&post(RESET), [refusal(403, "No privilege.")]);
    let error = peer.client().power_on().await.unwrap_err().to_string();
    assert!(
        error.ends_with("user `admin` lacks the privilege to power on; give it the Operator role or more"),
        "{error}"
    );
    let peer = Peer::new().await.on("GET /redfish/v1/Systems", [text(401, "")]);
    let error = peer.client().power_state().await.unwrap_err();
    assert!(matches!(error, BmcError::Unauthorized { .. }), "{error:?}");
    // Once: BMCs lock accounts.
    assert_eq!(peer.asked("GET /redfish/v1/Systems").len(), 1);
}

#[tokio::test]
async fn a_mode_that_is_fixed_in_the_firmware_is_left_alone() {
    for refused in [refusal(400, "BootSourceOverrideMode is read-only."), refusal(405, "No.")] {
        let peer = Peer::new()
            .await
            .on(&get(SYSTEM), [with_boot(json!({ "BootSourceOverrideMode": "Legacy" }))])
            .on(&patch(), [refused, text(204, "")]);
        peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap();
        let told: Vec<_> = peer.asked("PATCH").into_iter().map(|asked| asked.body["Boot"].clone()).collect();
        let device = json!({ "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once" });
        let mut both = device.clone();
        both["BootSourceOverrideMode"] = json!("UEFI");
        assert_eq!(told, [both, device]);
    }
}

#[tokio::test]
async fn a_mode_that_is_right_already_is_not_told() {
    for (mode, told) in [(BootMode::Uefi, None), (BootMode::Bios, Some("Legacy"))] {
        let peer = Peer::new()
            .await
            .on(&get(SYSTEM), [with_boot(json!({ "BootSourceOverrideMode": "UEFI" }))])
            .on(&patch(), [text(204, "")]);
        peer.client().boot_once(BootDevice::Disk, mode).await.unwrap();
        let boot = &peer.asked("PATCH")[0].body["Boot"];
        assert_eq!(boot["BootSourceOverrideMode"].as_str(), told);
        assert_eq!(boot["BootSourceOverrideTarget"], "Hdd");
    }
}

#[tokio::test]
async fn a_device_that_the_machine_does_not_offer_is_not_told() {
    let boot = json!({ "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Hdd"] });
    let peer = Peer::new().await.on(&get(SYSTEM), [with_boot(boot)]);
    let error = peer.client().boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().ends_with(r#"it allows ["None","Hdd"]"#), "{error}");
    assert_eq!(peer.asked("PATCH"), []);
}

#[tokio::test]
async fn a_power_state_that_settles_late() {
    let peer = Peer::new()
        .await
        .on(&get(SYSTEM), [system("On"), system("On"), system("On"), system("On"), system("Off")])
        .on(&post(RESET), [text(204, "")]);
    peer.client().power_off().await.unwrap();
    assert_eq!(peer.asked("POST")[0].body, json!({ "ResetType": "ForceOff" }));
    assert_eq!(peer.asked(&get(SYSTEM)).len(), 5);
}

#[tokio::test]
async fn an_order_with_a_lost_answer_is_judged_by_the_state_and_not_repeated() {
    for lost in [hang_up(), refusal(400, "The machine is on already.")] {
        let peer = Peer::new()
            .await
            .on(&get(SYSTEM), [system("Off"), system("Off"), system("On")])
            .on(&post(RESET), [lost.clone()]);
        peer.client().power_on().await.unwrap();
        assert_eq!(peer.asked("POST").len(), 1);
        let peer = Peer::new().await.on(&get(SYSTEM), [system("Off")]).on(&post(RESET), [lost]);
        peer.client().power_on().await.unwrap_err();
        assert_eq!(peer.asked("POST").len(), 1);
    }
}

#[tokio::test]
async fn power_states_that_are_on_their_way_or_none() {
    for (state, wanted) in [("PoweringOn", PowerState::On), ("PoweringOff", PowerState::Off)] {
        let peer = Peer::new().await.on(&get(SYSTEM), [system(state)]);
        assert_eq!(peer.client().power_state().await.unwrap(), wanted);
    }
    for nonsense in [system("Reset"), json(200, json!({ "PowerState": null })), json(200, json!([]))] {
        let peer = Peer::new().await.on(&get(SYSTEM), [nonsense]);
        let error = peer.client().power_state().await.unwrap_err();
        assert!(matches!(error, BmcError::Protocol { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_nonsense() {
    let peer = Peer::new().await.on("GET /redfish/v1/", [text(200, "<html>Log in</html>")]);
    let error = peer.client().power_state().await.unwrap_err();
    assert!(matches!(error, BmcError::Protocol { .. }), "{error:?}");
    assert!(error.to_string().contains("what is at /redfish/v1/ is no JSON"), "{error}");
}

#[tokio::test]
async fn a_redirected_request_stays_what_it_was() {
    for status in [301, 302, 307, 308] {
        let slash = |path: &str| text(status, "").with("location", format!("{path}/"));
        let peer = Peer::new()
            .await
            .on("GET /redfish/v1/Systems", [slash("/redfish/v1/Systems")])
            .on("GET /redfish/v1/Systems/", [json(200, json!({ "Members": [{ "@odata.id": SYSTEM }] }))])
            .on(&get(SYSTEM), [system("Off"), system("Off"), system("On")])
            .on(&post(RESET), [slash(RESET)])
            .on(&format!("POST {RESET}/"), [text(204, "")]);
        peer.client().power_on().await.unwrap();
        assert_eq!(peer.asked(&format!("POST {RESET}/"))[0].body, json!({ "ResetType": "On" }));
    }
}

#[tokio::test]
async fn the_password_follows_no_redirect_to_another_host_nor_in_circles() {
    let (peer, away) = (Peer::new().await, "http://localhost:1/redfish/v1/Systems/1");
    let peer = peer.on(&get(SYSTEM), [text(302, "").with("location", away)]);
    let error = peer.client().power_state().await.unwrap_err();
    assert!(matches!(error, BmcError::Protocol { .. }), "{error:?}");
    assert!(error.to_string().ends_with(&format!("302 Found, to {away}")), "{error}");
    let peer = Peer::new().await.on(&get(SYSTEM), [text(302, "").with("location", SYSTEM)]);
    assert!(matches!(peer.client().power_state().await, Err(BmcError::Protocol { .. })));
    assert_eq!(peer.asked(&get(SYSTEM)).len(), 4);
}

#[tokio::test]
async fn a_service_with_no_machine_or_several() {
    for none in [json!({ "Members": [] }), json!({})] {
        let peer = Peer::new().await.on("GET /redfish/v1/Systems", [json(200, none)]);
        let error = peer.client().power_state().await.unwrap_err().to_string();
        assert!(error.ends_with("answered nonsense to find the machine: it has no System"), "{error}");
    }
    let members = json!({ "Members": [{ "@odata.id": SYSTEM }, { "@odata.id": "/redfish/v1/Systems/2" }] });
    let peer = Peer::new().await.on("GET /redfish/v1/Systems", [json(200, members)]);
    let error = peer.client().power_state().await.unwrap_err().to_string();
    let wanted = format!("name one in bmc_ip: {SYSTEM}, /redfish/v1/Systems/2");
    assert!(error.ends_with(&wanted), "{error}");
}

#[tokio::test]
async fn a_virtual_cd_drive_below_the_manager() {
    let (manager, media, cd) = ("/redfish/v1/Managers/1", "/redfish/v1/Managers/1/VM", "/redfish/v1/Managers/1/VM/2");
    let managed = json!({ "Links": { "ManagedBy": [{ "@odata.id": manager }] } });
    let drives = json!({ "Members": [{ "@odata.id": "/floppy" }, { "@odata.id": cd }] });
    let drive =
        |inserted: bool| json(200, json!({ "@odata.id": cd, "MediaTypes": ["CD", "DVD"], "Inserted": inserted }));
    let peer = Peer::new()
        .await
        .on(&get(SYSTEM), [json(200, managed)])
        .on(&get(manager), [json(200, json!({ "FirmwareVersion": " 2.1 ", "VirtualMedia": { "@odata.id": media } }))])
        .on(&get(media), [json(200, drives)])
        .on("GET /floppy", [json(200, json!({ "MediaTypes": ["Floppy", "USBStick"] }))])
        .on(&get(cd), [drive(false), drive(false), drive(true)])
        .on(&post(&format!("{cd}/Actions/VirtualMedia.InsertMedia")), [text(204, "")])
        .on(&post(&format!("{cd}/Actions/VirtualMedia.EjectMedia")), [text(204, "")]);
    let bmc = peer.client();
    bmc.eject_media().await.unwrap();
    assert_eq!(peer.asked("POST"), [], "it is empty already");
    bmc.insert_media("http://10.0.0.1/x.iso").await.unwrap();
    bmc.eject_media().await.unwrap();
    let told: Vec<_> = peer.asked("POST").into_iter().map(|asked| asked.body).collect();
    assert_eq!(told, [json!({ "Image": "http://10.0.0.1/x.iso" }), json!({})]);
    assert_eq!(bmc.identity().await.unwrap().firmware.as_deref(), Some("2.1"));
}

#[tokio::test]
async fn a_machine_without_a_virtual_cd_drive() {
    let error = Peer::new().await.client().insert_media("http://10.0.0.1/x.iso").await.unwrap_err();
    assert!(matches!(error, BmcError::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().ends_with("cannot use virtual media: it has no virtual CD drive"), "{error}");
}

/// A service with other people's accounts, which it does not show, and ours with this role.
async fn with_account(role: &str, privileges: Value) -> Peer {
    let link = |path: &str| json!({ "@odata.id": path });
    let root = json!({ "Systems": link("/redfish/v1/Systems"), "AccountService": link("/accounts") });
    let ours = json!({ "UserName": "admin", "RoleId": role, "Links": { "Role": link("/roles/ours") } });
    Peer::new()
        .await
        .on("GET /redfish/v1/", [json(200, root)])
        .on("GET /accounts", [json(200, json!({ "Accounts": link("/accounts/list") }))])
        .on("GET /accounts/list", [json(200, json!({ "Members": [link("/accounts/1"), link("/accounts/2")] }))])
        .on("GET /accounts/1", [refusal(403, "Insufficient privilege.")])
        .on("GET /accounts/2", [json(200, ours)])
        .on("GET /roles/ours", [json(200, json!({ "AssignedPrivileges": privileges }))])
}

#[tokio::test]
async fn a_role_is_judged_by_its_privileges_unless_redfish_defines_it() {
    for (name, privileges, suffices) in [
        ("Operator", json!([]), true),
        ("ReadOnly", json!(["Login", "ConfigureComponents"]), false),
        ("Deploy", json!(["Login", "ConfigureComponents"]), true),
        ("Audit", json!(["Login", "ConfigureSelf"]), false),
    ] {
        let role = with_account(name, privileges).await.client().examine().await.unwrap().role;
        assert_eq!(role, Some(Role { name: name.to_owned(), suffices }));
    }
}

#[tokio::test]
async fn what_a_bmc_does_not_tell_is_not_known_and_no_error() {
    let examined = Peer::new().await.client().examine().await.unwrap();
    assert_eq!(examined, Examination { power: PowerState::On, boots_from: None, role: None, clock: None });
    let manager = json!({ "DateTime": "2026-11-21T12:00:00+02:00" });
    let system = json!({
        "PowerState": "Off",
        "Boot": { "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Hdd", "Usb"] },
        "Links": { "ManagedBy": [{ "@odata.id": "/manager" }] },
    });
    let peer = Peer::new().await.on(&get(SYSTEM), [json(200, system)]).on("GET /manager", [json(200, manager)]);
    let examined = peer.client().examine().await.unwrap();
    assert_eq!((examined.power, examined.boots_from), (PowerState::Off, Some(vec![BootDevice::Disk])));
    assert_eq!(examined.clock.map(|clock| clock.at.to_string()).as_deref(), Some("2026-11-21T10:00:00Z"));
}
