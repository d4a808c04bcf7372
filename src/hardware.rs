//! What a machine is: the vocabulary that the inventory, the agent, the boot services and the API objects share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An EUI-48 address, printed in lower case with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// A text that is no EUI-48 address.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a MAC address (six hexadecimal pairs, as in 52:54:00:aa:00:01)")]
pub struct BadMac(String);

impl FromStr for MacAddr {
    type Err = BadMac;

    /// Reads `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff` and `aabb.ccdd.eeff`, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadMac(text.to_owned());
        let (separator, width) = match text.len() {
            17 if text.contains(':') => (':', 2),
            17 => ('-', 2),
            14 => ('.', 4),
            _ => return Err(bad()),
        };
        let groups: Vec<&str> = text.split(separator).collect();
        if groups.len() != 12 / width || groups.iter().any(|group| group.len() != width) {
            return Err(bad());
        }
        let mut bytes = [0u8; 6];
        hex::decode_to_slice(groups.concat(), &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Gives a type that prints and parses as text that same form in serde and in JSON schemas.
macro_rules! as_text {
    ($type:ty, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "description": $description})
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

as_text!(MacAddr, "EUI-48 address, as in 52:54:00:aa:00:01");
as_text!(
    DiskSelector,
    "A device path (/dev/sda, /dev/disk/by-id/...) or hints (serial=, wwn=, size>=480GB, type=nvme)"
);

/// Processor architecture, by Go's and Debian's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    #[default]
    Amd64,
    /// AArch64.
    Arm64,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

/// The firmware that starts the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootMode {
    /// UEFI; what EKS Anywhere's inventory always means.
    #[default]
    Uefi,
    /// Legacy BIOS.
    Bios,
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uefi => "uefi",
            Self::Bios => "bios",
        })
    }
}

/// Whether a machine has power, as its BMC says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// Running, or on its way to it.
    On,
    /// Off, or on its way to it.
    Off,
}

/// Kind of block device, from `queue/rotational` and the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskKind {
    /// NVMe namespace.
    Nvme,
    /// Solid state behind SATA, SAS or virtio.
    Ssd,
    /// Rotating.
    Hdd,
}

/// Which disk the operating system goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSelector {
    /// A device node: `/dev/sda`, or a stable link such as `/dev/disk/by-id/wwn-0x5000c500a1b2c3d4`.
    Path(String),
    /// The one disk that fits every hint given; several that fit are an error, named with their serials.
    Hints(DiskHints),
}

/// What is asked of a disk; fields that are `None` ask nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskHints {
    /// Exact serial number.
    pub serial: Option<String>,
    /// World wide name, with or without `0x`.
    pub wwn: Option<String>,
    /// Smallest acceptable size in bytes.
    pub min_bytes: Option<u64>,
    /// Largest acceptable size in bytes.
    pub max_bytes: Option<u64>,
    /// Kind of device.
    pub kind: Option<DiskKind>,
}

/// A disk selector that cannot be read.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum BadDisk {
    /// Neither a path below /dev nor hints.
    #[error("`{0}` is neither a path below /dev nor a hint (serial=, wwn=, size>=480GB, size<=2TB, type=nvme|ssd|hdd)")]
    Unknown(String),
    /// A hint that is named but has a value that means nothing.
    #[error("`{value}` is not a {what}")]
    Value {
        /// The offending text.
        value: String,
        /// What was expected.
        what: &'static str,
    },
    /// The same hint twice.
    #[error("`{0}` is given twice")]
    Twice(String),
}

impl FromStr for DiskSelector {
    type Err = BadDisk;

    /// Reads a path, or hints joined by spaces, `;` or `|` (a comma would end the CSV cell).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("/dev/") {
            let fine = |part: &str| {
                !part.is_empty()
                    && part != "."
                    && part != ".."
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:+@".contains(c))
            };
            if rest.split('/').all(fine) {
                return Ok(Self::Path(text.to_owned()));
            }
            return Err(BadDisk::Unknown(text.to_owned()));
        }
        let mut hints = DiskHints::default();
        let words: Vec<&str> =
            text.split(|c: char| c.is_whitespace() || c == ';' || c == '|').filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            return Err(BadDisk::Unknown(text.to_owned()));
        }
        for word in words {
            hints.add(word)?;
        }
        Ok(Self::Hints(hints))
    }
}

impl DiskHints {
    fn add(&mut self, word: &str) -> Result<(), BadDisk> {
        fn once<T>(slot: &mut Option<T>, value: T, word: &str) -> Result<(), BadDisk> {
            match slot.replace(value) {
                None => Ok(()),
                Some(_) => Err(BadDisk::Twice(word.to_owned())),
            }
        }
        let text = |value: &str, what| match value {
            "" => Err(BadDisk::Value { value: word.to_owned(), what }),
            value => Ok(value.to_owned()),
        };
        if let Some(value) = word.strip_prefix("serial=") {
            once(&mut self.serial, text(value, "serial number")?, word)
        } else if let Some(value) = word.strip_prefix("wwn=") {
            once(&mut self.wwn, text(value, "world wide name")?, word)
        } else if let Some(value) = word.strip_prefix("size>=") {
            once(&mut self.min_bytes, parse_size(value)?, word)
        } else if let Some(value) = word.strip_prefix("size<=") {
            once(&mut self.max_bytes, parse_size(value)?, word)
        } else if let Some(value) = word.strip_prefix("type=") {
            let kind = match value {
                "nvme" => DiskKind::Nvme,
                "ssd" => DiskKind::Ssd,
                "hdd" => DiskKind::Hdd,
                _ => return Err(BadDisk::Value { value: value.to_owned(), what: "disk type (nvme, ssd, hdd)" }),
            };
            once(&mut self.kind, kind, word)
        } else {
            Err(BadDisk::Unknown(word.to_owned()))
        }
    }
}

/// Reads `480GB`, `1.5TB` (powers of ten, as vendors print them) or `512GiB` (powers of two) into bytes.
fn parse_size(text: &str) -> Result<u64, BadDisk> {
    let bad = || BadDisk::Value { value: text.to_owned(), what: "size (480GB, 1.5TB, 512GiB)" };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let scale: f64 = match unit.to_ascii_uppercase().as_str() {
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "MIB" => 1_048_576.0,
        "GIB" => 1_073_741_824.0,
        "TIB" => 1_099_511_627_776.0,
        _ => return Err(bad()),
    };
    Ok((number * scale) as u64)
}

impl fmt::Display for DiskSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Hints(hints) => {
                let mut words = Vec::new();
                words.extend(hints.serial.as_ref().map(|serial| format!("serial={serial}")));
                words.extend(hints.wwn.as_ref().map(|wwn| format!("wwn={wwn}")));
                words.extend(hints.min_bytes.map(|bytes| format!("size>={}", exact_size(bytes))));
                words.extend(hints.max_bytes.map(|bytes| format!("size<={}", exact_size(bytes))));
                words.extend(hints.kind.map(|kind| {
                    format!(
                        "type={}",
                        match kind {
                            DiskKind::Nvme => "nvme",
                            DiskKind::Ssd => "ssd",
                            DiskKind::Hdd => "hdd",
                        }
                    )
                }));
                f.write_str(&words.join(" "))
            }
        }
    }
}

/// A size in the largest unit that keeps it whole, so that printing and parsing round-trip.
fn exact_size(bytes: u64) -> String {
    for (unit, scale) in [("TB", 1_000_000_000_000), ("TiB", 1 << 40), ("GB", 1_000_000_000), ("GiB", 1 << 30)] {
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    format!("{}MB", bytes as f64 / 1e6)
}

/// What the agent found on the machine it runs on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Architecture of the running kernel.
    pub arch: Arch,
    /// Firmware the machine was started by: UEFI if /sys/firmware/efi exists.
    pub firmware: BootMode,
    /// Processor model, as the kernel prints it.
    pub cpu_model: String,
    /// Logical processors.
    pub cpu_threads: u32,
    /// Usable memory in bytes.
    pub memory_bytes: u64,
    /// Vendor and product by SMBIOS.
    pub product: Option<String>,
    /// Serial number by SMBIOS.
    pub serial: Option<String>,
    /// Block devices that could hold an operating system.
    pub disks: Vec<DiskFacts>,
    /// Network interfaces with a hardware address.
    pub nics: Vec<NicFacts>,
}

/// One block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskFacts {
    /// Device node, `/dev/nvme0n1`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Kind of device.
    pub kind: DiskKind,
    /// Vendor and model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Names below /dev/disk/by-id that udev would give it.
    #[serde(default)]
    pub by_id: Vec<String>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NicFacts {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: MacAddr,
    /// Whether the link is up.
    pub link: bool,
    /// Driver, where sysfs names one.
    pub driver: Option<String>,
    /// Speed in Mbit/s, where the link reports it.
    pub speed_mbps: Option<u32>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_in_three_forms_and_printed_in_one() {
        for text in ["52:54:00:AA:00:01", "52-54-00-aa-00-01", "5254.00aa.0001"] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), "52:54:00:aa:00:01");
        }
        for text in [
            "",
            "52:54:00:aa:00",
            "52:54:00:aa:00:01:02",
            "52:54:00:aa:00:0g",
            "52-54:00:aa:00:01",
            "525:4:00:aa:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn disks_are_named_by_path_or_hint() {
        for text in [
            "/dev/sda",
            "/dev/disk/by-id/nvme-eui.0025388b710116a1",
            "serial=S3X size>=480GB size<=2TB type=ssd",
            "size>=1.5MB",
        ] {
            assert_eq!(text.parse::<DiskSelector>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "sda",
            "/dev/",
            "/dev//sda",
            "/dev/../etc/passwd",
            "size>=big",
            "type=floppy",
            "serial=",
            "type=ssd type=hdd",
        ] {
            assert!(text.parse::<DiskSelector>().is_err(), "{text}");
        }
    }
}
