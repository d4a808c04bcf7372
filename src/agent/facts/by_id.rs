//! What identifies a disk, and the names below /dev/disk/by-id that udev would give it.
//!
//! There is no udev in the initramfs, and an inventory names disks as the operator saw them on a running system. These are
//! the rules of systemd's 60-persistent-storage.rules with `ata_id` and `scsi_id`, from the kernel's files alone: SCSI's
//! vital product data pages 0x80 (serial number) and 0x83 (device identification, SPC-4 section 7.8.6), which libata
//! answers for SATA disks too.

use super::text;
use std::fs;
use std::path::Path;

/// What identifies a disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub model: Option<String>,
    pub serial: Option<String>,
    /// As in `wwn-...`: with `0x` for SCSI and ATA, with `eui.`, `nvme.` or `uuid.` for NVMe.
    pub wwn: Option<String>,
    /// Names below /dev/disk/by-id.
    pub names: Vec<String>,
}

/// Identifies disk `name`, whose directory in sysfs is `path`.
pub fn identify(name: &str, path: &Path) -> Identity {
    if name.starts_with("nvme") {
        nvme(path)
    } else if name.starts_with("mmcblk") {
        mmc(path)
    } else if name.starts_with("sd") {
        scsi(path)
    } else {
        virtio(path)
    }
}

fn virtio(path: &Path) -> Identity {
    let serial = text(&path.join("serial"));
    let names = serial.iter().map(|serial| format!("virtio-{}", link(serial))).collect();
    Identity { serial, names, ..Identity::default() }
}

fn mmc(path: &Path) -> Identity {
    let (model, serial) = (text(&path.join("device/name")), text(&path.join("device/serial")));
    let both = model.as_ref().zip(serial.as_ref());
    let names = both.map(|(model, serial)| format!("mmc-{}_{}", link(model), link(serial)));
    Identity { names: names.into_iter().collect(), model, serial, wwn: None }
}

fn nvme(path: &Path) -> Identity {
    let (model, serial) = (text(&path.join("device/model")), text(&path.join("device/serial")));
    let wwn = text(&path.join("wwid"));
    let mut names: Vec<String> = wwn.iter().map(|wwn| format!("nvme-{}", link(wwn))).collect();
    if let (Some(model), Some(serial)) = (&model, &serial) {
        let name = format!("nvme-{}_{}", link(model), link(serial));
        let namespace = text(&path.join("nsid")).map(|namespace| format!("{name}_{namespace}"));
        names.push(name);
        names.extend(namespace);
    }
    Identity { model, serial, wwn, names }
}

fn scsi(path: &Path) -> Identity {
    let device = path.join("device");
    let (vendor, model) = (text(&device.join("vendor")), text(&device.join("model")));
    let serial = fs::read(device.join("vpd_pg80")).ok().and_then(|page| printable(page.get(4..)?));
    let page = fs::read(device.join("vpd_pg83")).unwrap_or_default();
    let designators = designators(&page);
    let naa = best_naa(&designators);
    let wwn = naa.map(|naa| format!("0x{}", hex::encode(naa)));
    let mut identity = Identity { model, serial, wwn, names: Vec::new() };
    identity.names.extend(identity.wwn.iter().map(|wwn| format!("wwn-{wwn}")));
    if vendor.as_deref() == Some("ATA") {
        identity.ata(&designators);
    } else {
        let padded = |name, width| format!("{:width$}", text(&device.join(name)).unwrap_or_default());
        let inquiry = padded("vendor", 8) + &padded("model", 16);
        let fallback = || identity.serial.as_ref().map(|serial| format!("S{inquiry}{serial}"));
        let id = scsi_id(&designators, &inquiry).or_else(fallback);
        identity.names.extend(id.map(|id| format!("scsi-{}", link(&id))));
    }
    identity.names.sort();
    identity
}

impl Identity {
    /// libata's T10 designator holds the whole model (SCSI's own field cuts it at 16 characters) and the serial number:
    /// `ATA     `, 40 characters, 20 characters.
    fn ata(&mut self, designators: &[Designator]) {
        let t10 = designators.iter().find(|it| it.kind == T10_VENDOR && it.data.starts_with(b"ATA     "));
        let t10 = t10.map(|it| it.data);
        let field = |from: usize, to: usize| t10.and_then(|data| printable(data.get(from..to.min(data.len()))?));
        self.model = field(8, 48).or(self.model.take());
        self.serial = field(48, 68).or(self.serial.take());
        if let Some(model) = &self.model {
            let serial = self.serial.iter().map(|serial| format!("_{}", link(serial)));
            self.names.push(format!("ata-{}{}", link(model), serial.collect::<String>()));
        }
    }
}

const VENDOR_SPECIFIC: u8 = 0;
const T10_VENDOR: u8 = 1;
const EUI_64: u8 = 2;
const NAA: u8 = 3;
/// Code set of data that is bytes, not text.
const BINARY: u8 = 1;

/// A designation descriptor of page 0x83 that is about the logical unit.
#[derive(Debug)]
struct Designator<'a> {
    code_set: u8,
    kind: u8,
    data: &'a [u8],
}

fn designators(page: &[u8]) -> Vec<Designator<'_>> {
    let mut found = Vec::new();
    let mut rest = page.get(4..).unwrap_or_default();
    while let [code_set, kind, _, length, data @ ..] = rest {
        let Some((data, next)) = data.split_at_checked(usize::from(*length)) else { break };
        // Association 0: the unit itself, not a port or the enclosure.
        if kind >> 4 & 3 == 0 {
            found.push(Designator { code_set: code_set & 0xf, kind: kind & 0xf, data });
        }
        rest = next;
    }
    found
}

/// The NAA designator that `scsi_id` takes: IEEE registered extended (6) before registered (5) before any other.
fn best_naa<'a>(designators: &[Designator<'a>]) -> Option<&'a [u8]> {
    let binary = designators.iter().filter(|it| it.kind == NAA && it.code_set == BINARY && !it.data.is_empty());
    let rank = |data: &[u8]| match data[0] >> 4 {
        6 => 0,
        5 => 1,
        _ => 2,
    };
    binary.map(|it| it.data).min_by_key(|data| rank(data))
}

/// The text that `scsi_id` makes of page 0x83: the kind as a digit, then the designator.
fn scsi_id(designators: &[Designator], inquiry: &str) -> Option<String> {
    if let Some(naa) = best_naa(designators) {
        return Some(format!("3{}", hex::encode(naa)));
    }
    let of = |kind| designators.iter().find(move |it| it.kind == kind && !it.data.is_empty());
    let shown = |it: &Designator| match it.code_set {
        BINARY => hex::encode(it.data),
        _ => String::from_utf8_lossy(it.data).into_owned(),
    };
    let eui = || of(EUI_64).map(|it| format!("2{}", shown(it)));
    let t10 = || of(T10_VENDOR).map(|it| format!("1{}", shown(it)));
    let vendor = || of(VENDOR_SPECIFIC).map(|it| format!("0{inquiry}{}", shown(it)));
    eui().or_else(t10).or_else(vendor)
}

fn printable(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// As udev writes a value into a link's name: runs of blanks are one `_`, other characters that it does not allow are `_`.
fn link(value: &str) -> String {
    let value = value.trim_matches('\0').split_whitespace().collect::<Vec<_>>().join("_");
    let allowed = |c: char| c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c) || !c.is_ascii();
    value.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn page(kind: u8, designators: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut page = vec![0, kind, 0, 0];
        for (code_set, kind, data) in designators {
            page.extend([*code_set, *kind, 0, data.len() as u8]);
            page.extend(*data);
        }
        page
    }

    #[test]
    fn nvme_and_virtio_disks_are_named_as_by_udev() {
        let dir = directory(&[
            ("device/model", b"Samsung SSD 980 PRO 1TB                 \n"),
            ("device/serial", b"S5GXNX0T123456      \n"),
            ("wwid", b"eui.002538b121b4e6c9\n"),
            ("nsid", b"1\n"),
        ]);
        let found = identify("nvme0n1", dir.path());
        assert_eq!(
            found.names,
            [
                "nvme-eui.002538b121b4e6c9",
                "nvme-Samsung_SSD_980_PRO_1TB_S5GXNX0T123456",
                "nvme-Samsung_SSD_980_PRO_1TB_S5GXNX0T123456_1"
            ]
        );
        assert_eq!(found.serial.as_deref(), Some("S5GXNX0T123456"));
        let dir = directory(&[("serial", b"node-1 root")]);
        assert_eq!(identify("vda", dir.path()).names, ["virtio-node-1_root"]);
        assert_eq!(identify("vdb", Path::new("/nonexistent")), Identity::default());
    }

    #[test]
    fn sata_disks_have_their_whole_model_from_page_83() {
        let t10 = format!("ATA     {:40}{:20}", "WDC  WD40EFRX-68N32N0", "     WD-WCC7K1234567");
        let page83 = page(
            0x83,
            &[
                (2, 0, b"     WD-WCC7K1234567"),
                (2, 1, t10.as_bytes()),
                (1, 3, &[0x50, 1, 0x4e, 0xe2, 0xb5, 0x8f, 0x0a, 0x1b]),
            ],
        );
        let dir = directory(&[
            ("device/vendor", b"ATA     \n"),
            ("device/model", b"WDC WD40EFRX-68N\n"),
            ("device/vpd_pg80", &[&[0, 0x80, 0, 20][..], b"     WD-WCC7K1234567"].concat()),
            ("device/vpd_pg83", &page83),
        ]);
        let found = identify("sda", dir.path());
        assert_eq!(found.names, ["ata-WDC_WD40EFRX-68N32N0_WD-WCC7K1234567", "wwn-0x50014ee2b58f0a1b"]);
        assert_eq!(found.serial.as_deref(), Some("WD-WCC7K1234567"));
        assert_eq!(found.wwn.as_deref(), Some("0x50014ee2b58f0a1b"));
    }

    #[test]
    fn scsi_disks_are_named_as_by_scsi_id() {
        let naa6 = [0x60, 5, 0x7, 0x6f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let sas: &[(u8, u8, &[u8])] =
            &[(1, 0x93, &[0x50; 8]), (1, 3, &[0x50, 0, 0xc5, 0, 1, 2, 3, 4]), (1, 3, &naa6), (3, 1, b"DELL    PERC")];
        let names = |files: &[(&str, &[u8])]| {
            let all = [&[("device/vendor", &b"QEMU    "[..]), ("device/model", b"QEMU HARDDISK   ")], files].concat();
            identify("sdb", directory(&all).path()).names
        };
        assert_eq!(
            names(&[("device/vpd_pg83", &page(0x83, sas))]),
            ["scsi-36005076f0102030405060708090a0b0c", "wwn-0x6005076f0102030405060708090a0b0c"]
        );
        assert_eq!(
            names(&[("device/vpd_pg83", &page(0x83, &[(2, 0, b"drive-scsi0")]))]),
            ["scsi-0QEMU_QEMU_HARDDISK_drive-scsi0"]
        );
        assert_eq!(names(&[("device/vpd_pg80", b"\0\x80\0\x04AB 7")]), ["scsi-SQEMU_QEMU_HARDDISK_AB_7"]);
        // A page that ends in the middle of a designator.
        assert_eq!(names(&[("device/vpd_pg83", &page(0x83, sas)[..9])]), Vec::<String>::new());
    }
}
