//! What holds of every BMC, with BMCs that misbehave on request.

use super::fake::{Behaviour, Fake};
use super::*;
use crate::secret::Secret;

fn access(kind: BmcKind, url: &str) -> BmcAccess {
    let (username, password) = (String::from("admin"), Secret::new(String::from("hunter2")));
    BmcAccess { kind, url: url.to_owned(), username, password }
}

#[tokio::test]
async fn a_machine_that_obeys_has_settled_at_once() {
    let bmc = Fake::new(Behaviour::Good);
    bmc.power_on().await.unwrap();
    settle(&bmc, "fake", PowerState::On, Duration::ZERO).await.unwrap();
    bmc.power_off().await.unwrap();
    settle(&bmc, "fake", PowerState::Off, Duration::ZERO).await.unwrap();
    assert_eq!(bmc.orders(), ["power on", "power off"]);
}

#[tokio::test]
async fn every_order_is_remembered() {
    let bmc = Fake::new(Behaviour::Good);
    bmc.boot_once(BootDevice::Pxe, BootMode::Uefi).await.unwrap();
    bmc.insert_media("http://10.0.0.1/x.iso").await.unwrap();
    bmc.eject_media().await.unwrap();
    assert_eq!(bmc.orders(), ["boot once from Pxe (uefi)", "insert http://10.0.0.1/x.iso", "eject"]);
    assert_eq!(bmc.identity().await.unwrap().vendor.as_deref(), Some("Fake"));
}

#[tokio::test]
async fn a_bmc_that_takes_the_order_and_does_nothing_is_found_out() {
    let bmc = Fake::new(Behaviour::Lies);
    bmc.power_on().await.unwrap();
    let error = settle(&bmc, "10.0.0.5", PowerState::On, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, BmcError::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains("BMC 10.0.0.5 failed to power on: it took the order"), "{error}");
}

#[tokio::test]
async fn waiting_for_the_state_ends_with_the_first_error() {
    for (behaviour, wanted) in [(Behaviour::Dead, "does not answer"), (Behaviour::WrongPassword, "refuses user")] {
        let error = settle(&Fake::new(behaviour), "fake", PowerState::On, SETTLE).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_slow_machine_is_waited_for() {
    let bmc = Fake::new(Behaviour::Slow(Duration::from_millis(10)));
    let starts_late = async {
        tokio::time::sleep(LOOK * 2).await;
        bmc.power_on().await
    };
    let (settled, started) = tokio::join!(settle(&bmc, "fake", PowerState::On, SETTLE), starts_late);
    started.unwrap();
    settled.unwrap();
}

#[test]
fn an_address_that_is_none_is_refused_before_anything_is_sent() {
    for kind in [BmcKind::Redfish, BmcKind::Ipmi] {
        let error = connect(&access(kind, "no address")).err().unwrap();
        assert!(matches!(&error, BmcError::Unreachable { bmc, .. } if bmc == "no address"), "{error:?}");
    }
}

#[test]
fn no_client_shows_its_password() {
    let redfish = Redfish::new(&access(BmcKind::Redfish, "https://10.0.0.5")).unwrap();
    let ipmi = Ipmi::new(&access(BmcKind::Ipmi, "ipmi://10.0.0.5")).unwrap();
    for shown in [format!("{redfish:?}"), format!("{ipmi:?}")] {
        assert!(shown.contains("admin") && !shown.contains("hunter2"), "{shown}");
    }
}
