//! What ipmitool really says, and what we make of it.

use super::*;
use crate::inventory::BmcKind;
use std::net::SocketAddr;

const NO_SESSION: &str = "Error: Unable to establish IPMI v2 / RMCP+ session\n";

fn client(address: &str) -> Ipmi {
    let (username, password) = (String::from("admin"), Secret::new(String::from("hunter2")));
    Ipmi::new(&BmcAccess { kind: BmcKind::Ipmi, url: format!("ipmi://{address}"), username, password }).unwrap()
}

/// A UDP port that answers from the second packet on, or nothing if `silent`. It is served until the test ends.
async fn port(silent: bool) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 64];
        for number in 1.. {
            let (length, from) = socket.recv_from(&mut packet).await.unwrap();
            assert_eq!(packet[..length], CAPABILITIES);
            if !silent && number > 1 {
                socket.send_to(b"pong", from).await.unwrap();
            }
        }
    });
    address
}

#[test]
fn complaints_of_ipmitool() {
    let other = |text: &str| Complaint::Other(text.to_owned());
    let cases = [
        (NO_SESSION, Complaint::Session),
        ("RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session\n", Complaint::Session),
        (
            "Error in open session response message : no matching cipher suite\n\nError: Unable to establish IPMI v2 / RMCP+ session\n",
            Complaint::Session,
        ),
        ("Could not open socket!\nError: Unable to establish IPMI v2 / RMCP+ session\n", Complaint::Session),
        (
            "Address lookup for bmc.invalid failed\nCould not open socket!\nError: Unable to establish IPMI v2 / RMCP+ session\n",
            Complaint::Name(String::from("Address lookup for bmc.invalid failed")),
        ),
        (
            "RAKP 2 message indicates an error : unauthorized role or privilege level requested\nError: Unable to establish IPMI v2 / RMCP+ session\n",
            Complaint::Privilege,
        ),
        ("Set Chassis Power Control to Up/On failed: Insufficient privilege level\n", Complaint::Privilege),
        (
            "Set Chassis Power Control to Up/On failed: Invalid command\n",
            Complaint::Command(String::from("Set Chassis Power Control to Up/On failed: Invalid command")),
        ),
        (
            "Set Chassis Power Control to Up/On failed: Command not supported in present state\n",
            other("Set Chassis Power Control to Up/On failed: Command not supported in present state"),
        ),
        ("Error setting Chassis Boot Parameter 5\n", other("Error setting Chassis Boot Parameter 5")),
        ("Get Chassis Power Status failed: Node busy\n\n", other("Get Chassis Power Status failed: Node busy")),
        ("Unable to get Chassis Power Status\n", other("Unable to get Chassis Power Status")),
        ("", other("ipmitool does not say why")),
    ];
    for (text, complaint) in cases {
        assert_eq!(Complaint::of(text), complaint, "{text:?}");
    }
}

#[tokio::test]
async fn no_session_with_a_bmc_that_is_there_is_the_account() {
    let error = client(&port(false).await.to_string()).explain("power on", NO_SESSION).await;
    assert!(matches!(&error, BmcError::Unauthorized { user, .. } if user == "admin"), "{error:?}");
}

#[tokio::test]
async fn no_session_with_nobody_is_the_address() {
    for silent in [client(&port(true).await.to_string()), client("127.0.0.1:1")] {
        let error = silent.explain("power on", NO_SESSION).await;
        assert!(matches!(error, BmcError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn complaints_name_the_address_and_the_action_but_no_password() {
    let bmc = client("10.0.0.5");
    let text = "Set Chassis Power Control to Up/On failed: Insufficient privilege level\n";
    let error = bmc.explain("power on", text).await.to_string();
    assert_eq!(
        error,
        "BMC 10.0.0.5:623: user `admin` lacks the privilege to power on; give it the Operator role or more"
    );
    let error = bmc.explain("boot once from pxe", "Error setting Chassis Boot Parameter 5\n").await.to_string();
    assert_eq!(error, "BMC 10.0.0.5:623 failed to boot once from pxe: Error setting Chassis Boot Parameter 5");
}

#[test]
fn the_question_is_well_formed() {
    // Both checksums (IPMI 2.0, 13.8) make the bytes before them zero.
    let message = &CAPABILITIES[14..];
    assert_eq!(message.len(), usize::from(CAPABILITIES[13]));
    for part in [&message[..3], &message[3..]] {
        assert_eq!(part.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    }
}

#[test]
fn addresses() {
    assert_eq!(client("10.0.0.5").address(), "10.0.0.5:623");
    assert_eq!(client("bmc.example:6230").address(), "bmc.example:6230");
    let six = client("[fd00::5]:624");
    assert_eq!((six.host.as_str(), six.port), ("fd00::5", 624));
}

#[test]
fn power_states() {
    assert_eq!(power_state("Chassis Power is on\n"), Some(PowerState::On));
    assert_eq!(power_state("Chassis Power is off\n"), Some(PowerState::Off));
    // Some firmware makes ipmitool talk first.
    assert_eq!(power_state("Warning: the lamp is on\nChassis Power is off\n\n"), Some(PowerState::Off));
    for nonsense in ["", "Chassis Power is unknown\n", "the lamp is on\n"] {
        assert_eq!(power_state(nonsense), None, "{nonsense:?}");
    }
}

#[test]
fn the_clock_of_the_event_log() {
    assert_eq!(sel_time(" 00 2f 92 6a\n"), Timestamp::from_second(0x6a92_2f00).ok());
    for nonsense in ["", " 00 2f 92\n", " 00 2f 92 6a 00", "Unable to send RAW command"] {
        assert_eq!(sel_time(nonsense), None, "{nonsense:?}");
    }
}

#[test]
fn what_a_bmc_says_of_itself() {
    let text = "Device ID                 : 32\nFirmware Revision         : 1.73\nIPMI Version              : 2.0\n\
                Manufacturer ID           : 10876\nManufacturer Name         : Supermicro\n\
                Product ID                : 2404 (0x0964)\nProduct Name              : X11DPU\n";
    let some = |value: &str| Some(value.to_owned());
    let wanted =
        BmcIdentity { vendor: some("Supermicro"), model: some("X11DPU"), serial: None, firmware: some("1.73") };
    assert_eq!(identity(text), wanted);
    let unknown = "Manufacturer Name         : Unknown\nProduct Name              : Unknown (0x00)\n";
    assert_eq!(identity(unknown), BmcIdentity::default());
    assert_eq!(identity(""), BmcIdentity::default());
}

#[tokio::test]
async fn what_ipmi_cannot_do_is_said_without_asking() {
    let bmc = client("192.0.2.1");
    let http = bmc.boot_once(BootDevice::UefiHttp, BootMode::Uefi).await.unwrap_err();
    let media = bmc.insert_media("http://10.0.0.1/x.iso").await.unwrap_err();
    for error in [http, media] {
        assert!(matches!(error, BmcError::Unsupported { .. }), "{error:?}");
    }
    bmc.eject_media().await.unwrap();
}
