//! What a DHCP client says that it is: its architecture, its class, and whether it is iPXE already.

use crate::hardware::{Arch, BootMode};
use dhcproto::v4::{DhcpOption, DhcpOptions, OptionCode};
use std::fmt;
use uuid::Uuid;

/// What a client can start, by its architecture (RFC 4578, 2.1, and IANA's "Processor Architecture Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientArch {
    /// 0: BIOS on x86.
    Bios,
    /// 7, 9: UEFI on x86-64 (the RFC's 9 is x86-64, and 7 "EFI BC"; firmware uses both for the same).
    UefiX64,
    /// 11: UEFI on AArch64.
    UefiArm64,
    /// 16: UEFI HTTP boot on x86-64.
    HttpX64,
    /// 19: UEFI HTTP boot on AArch64.
    HttpArm64,
    /// Anything else: we have nothing that it could start.
    Other(u16),
}

impl From<u16> for ClientArch {
    fn from(code: u16) -> Self {
        match code {
            0 => Self::Bios,
            7 | 9 => Self::UefiX64,
            11 => Self::UefiArm64,
            16 => Self::HttpX64,
            19 => Self::HttpArm64,
            other => Self::Other(other),
        }
    }
}

impl ClientArch {
    /// The processor and firmware that it stands for.
    pub fn machine(self) -> Option<(Arch, BootMode)> {
        match self {
            Self::Bios => Some((Arch::Amd64, BootMode::Bios)),
            Self::UefiX64 | Self::HttpX64 => Some((Arch::Amd64, BootMode::Uefi)),
            Self::UefiArm64 | Self::HttpArm64 => Some((Arch::Arm64, BootMode::Uefi)),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for ClientArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.write_str("BIOS x86"),
            Self::UefiX64 => f.write_str("UEFI x86-64"),
            Self::UefiArm64 => f.write_str("UEFI arm64"),
            Self::HttpX64 => f.write_str("UEFI HTTP x86-64"),
            Self::HttpArm64 => f.write_str("UEFI HTTP arm64"),
            Self::Other(code) => write!(f, "architecture {code}"),
        }
    }
}

/// Which protocol a client's firmware boots with (option 60).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootClass {
    /// `PXEClient`: TFTP.
    Pxe,
    /// `HTTPClient`: UEFI HTTP boot.
    Http,
}

/// A client, as its options describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Option 60 as text.
    pub class: Option<String>,
    /// What option 60 means for booting; `None` for an operating system's client.
    pub boot: Option<BootClass>,
    /// Option 93, or the architecture inside option 60.
    pub arch: Option<ClientArch>,
    /// Whether it is iPXE (option 77).
    pub ipxe: bool,
    /// The machine's UUID by SMBIOS (option 97): the same on all its interfaces.
    pub uuid: Option<Uuid>,
}

impl Client {
    /// Reads the options of a message.
    pub fn of(options: &DhcpOptions) -> Self {
        let class = match options.get(OptionCode::ClassIdentifier) {
            Some(DhcpOption::ClassIdentifier(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        let boot = class.as_deref().and_then(|class| match class {
            class if class.starts_with("PXEClient") => Some(BootClass::Pxe),
            class if class.starts_with("HTTPClient") => Some(BootClass::Http),
            _ => None,
        });
        let arch = match options.get(OptionCode::ClientSystemArchitecture) {
            Some(DhcpOption::ClientSystemArchitecture(arch)) => Some(u16::from(*arch)),
            // PXEClient:Arch:00007:UNDI:003016
            _ => class.as_deref().and_then(|class| class.split(':').nth(2)?.parse().ok()),
        };
        let ipxe = match options.get(OptionCode::UserClass) {
            Some(DhcpOption::UserClass(bytes)) => is_ipxe(bytes),
            _ => false,
        };
        let uuid = match options.get(OptionCode::ClientMachineIdentifier) {
            Some(DhcpOption::ClientMachineIdentifier(bytes)) => machine_uuid(bytes),
            _ => None,
        };
        Self { class, boot, arch: arch.map(ClientArch::from), ipxe, uuid }
    }

    /// Whether it wants to boot from the network.
    pub fn boots(&self) -> bool {
        self.boot.is_some() || self.ipxe
    }
}

/// RFC 4578, 2.3: type 0, and the UUID as SMBIOS has it, whose first three fields are little-endian. Firmware that was given
/// none says so with zeros or ones.
fn machine_uuid(option: &[u8]) -> Option<Uuid> {
    let (kind, bytes) = option.split_first()?;
    let uuid = Uuid::from_bytes_le(bytes.try_into().ok()?);
    (*kind == 0 && !uuid.is_nil() && !uuid.is_max()).then_some(uuid)
}

/// iPXE writes its user class as plain text; RFC 3004 wants a length before each class. Relays and proxies rewrite it.
fn is_ipxe(user_class: &[u8]) -> bool {
    if user_class == b"iPXE" {
        return true;
    }
    let mut rest = user_class;
    while let Some((length, tail)) = rest.split_first() {
        let Some((class, after)) = tail.split_at_checked(usize::from(*length)) else { return false };
        if class == b"iPXE" {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::v4::Architecture;

    fn client(options: impl IntoIterator<Item = DhcpOption>) -> Client {
        let mut all = DhcpOptions::new();
        options.into_iter().for_each(|option| drop(all.insert(option)));
        Client::of(&all)
    }

    #[test]
    fn the_architecture_is_in_option_93_or_inside_the_class() {
        let class = |text: &str| DhcpOption::ClassIdentifier(text.as_bytes().to_vec());
        let pxe = client([class("PXEClient:Arch:00007:UNDI:003016")]);
        assert_eq!((pxe.boot, pxe.arch), (Some(BootClass::Pxe), Some(ClientArch::UefiX64)));
        let http = client([class("HTTPClient:Arch:00016:UNDI:003001")]);
        assert_eq!((http.boot, http.arch), (Some(BootClass::Http), Some(ClientArch::HttpX64)));
        let bios = client([class("PXEClient"), DhcpOption::ClientSystemArchitecture(Architecture::from(0))]);
        assert_eq!(bios.arch, Some(ClientArch::Bios));
        let linux = client([class("udhcp 1.36.1")]);
        assert_eq!((linux.boot, linux.arch, linux.ipxe), (None, None, false));
    }

    #[test]
    fn a_machine_is_known_by_its_uuid_where_it_has_one() {
        let of =
            |bytes: Vec<u8>| client([DhcpOption::ClientMachineIdentifier(bytes)]).uuid.map(|uuid| uuid.to_string());
        let bytes = hex::decode("0033221100554477668899aabbccddeeff").unwrap();
        assert_eq!(of(bytes.clone()).as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
        for bad in [
            vec![],
            vec![0; 17],
            [&[0][..], &[0xff; 16]].concat(),
            [&[1][..], &bytes[1..]].concat(),
            bytes[..16].into(),
        ] {
            assert_eq!(of(bad.clone()), None, "{bad:?}");
        }
    }

    #[test]
    fn ipxe_is_known_by_either_form_of_its_class() {
        for bytes in [&b"iPXE"[..], b"\x04iPXE", b"\x03abc\x04iPXE"] {
            assert!(client([DhcpOption::UserClass(bytes.to_vec())]).ipxe, "{bytes:?}");
        }
        for bytes in [&b"gPXE"[..], b"\x04gPXE", b"\x09iPXE", b"", b"\x00"] {
            assert!(!client([DhcpOption::UserClass(bytes.to_vec())]).ipxe, "{bytes:?}");
        }
    }
}
