//! What a lab leaves on disk for people and for `create cluster`: disks, firmware, an SSH key, hardware.csv, cluster.yaml.

use super::qemu::{DISK_FILE, PXE_CLIENT, VARS_FILE};
use super::rack::{BMC_USER, Rack};
use super::{LabError, at, host, network};
use crate::hardware::BootMode;
use crate::image::choice::ImageChoice;
use crate::inventory::{self, Column};
use crate::secret::Secret;
use minijinja::{Environment, context};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Inventory of the lab, for `--hardware-csv`.
pub const HARDWARE_CSV: &str = "hardware.csv";
/// Spec for the lab, for `-f`.
pub const CLUSTER_YAML: &str = "cluster.yaml";
/// The key that opens the installed machines' account.
pub const SSH_KEY: &str = "id_ed25519";
const SSH_PUBLIC_KEY: &str = "id_ed25519.pub";
/// The script for [`PXE_CLIENT`].
pub const PXE_CLIENT_FILE: &str = "pxe-client.ipxe";
/// The account that the spec asks for.
pub const SSH_USER: &str = "ops";
const LOG: &str = "serve.log";

const SPEC_TEMPLATE: &str = include_str!("../../templates/lab/cluster.yaml.j2");

/// Makes everything under the lab's directory.
pub fn make(rack: &Rack, image: Option<&ImageChoice>) -> Result<(), LabError> {
    let public_key = write_ssh_key(rack)?;
    write_private(&rack.dir.join(HARDWARE_CSV), hardware_csv(rack)?.expose())?;
    write_private(&rack.dir.join(CLUSTER_YAML), &cluster_yaml(rack, image, &public_key)?)?;
    write_private(&rack.dir.join(PXE_CLIENT_FILE), PXE_CLIENT)?;
    for machine in &rack.machines {
        let dir = rack.machine_dir(&machine.name);
        make_dir(&dir)?;
        // Raw, so that the host can read it, too; sparse: it takes space as it is written.
        let disk = dir.join(DISK_FILE);
        let size = u64::from(rack.disk_gb) * 1_000_000_000;
        std::fs::File::create(&disk).and_then(|file| file.set_len(size)).map_err(at(&disk))?;
        if machine.boot_mode == BootMode::Uefi {
            let (_, template) = host::ovmf()?;
            let vars = dir.join(VARS_FILE);
            let bytes = std::fs::read(template).map_err(at(template))?;
            std::fs::write(&vars, bytes).map_err(at(&vars))?;
        }
    }
    Ok(())
}

/// Fails if making the lab would overwrite something.
pub fn refuse_existing(rack: &Rack) -> Result<(), LabError> {
    match paths(rack).into_iter().find(|path| path.exists()) {
        Some(path) => Err(LabError::Taken { path }),
        None => Ok(()),
    }
}

/// Removes what [`make`] and the daemon made, and the directory itself if nothing else is in it.
pub fn remove(rack: &Rack) -> Result<(), LabError> {
    for path in paths(rack) {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => (),
        }
    }
    // Not empty: something of the user's is in it, and stays.
    let _ = std::fs::remove_dir(&rack.dir);
    Ok(())
}

fn paths(rack: &Rack) -> Vec<PathBuf> {
    let files = [HARDWARE_CSV, CLUSTER_YAML, SSH_KEY, SSH_PUBLIC_KEY, PXE_CLIENT_FILE, LOG];
    let machines = rack.machines.iter().map(|machine| rack.machine_dir(&machine.name));
    files.iter().map(|file| rack.dir.join(file)).chain(machines).collect()
}

/// Makes a directory that only root reads: it will hold passwords.
pub fn make_dir(path: &Path) -> Result<(), LabError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Writes a file that only root reads.
pub fn write_private(path: &Path, text: &str) -> Result<(), LabError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(at(path))
}

fn write_ssh_key(rack: &Rack) -> Result<String, LabError> {
    let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
    key.set_comment(format!("metalgate-lab-{}", rack.name));
    write_private(&rack.dir.join(SSH_KEY), &key.to_openssh(LineEnding::LF)?)?;
    let public = key.public_key().to_openssh()?;
    write_private(&rack.dir.join(SSH_PUBLIC_KEY), &format!("{public}\n"))?;
    Ok(public)
}

/// The inventory: EKS Anywhere's columns and `boot_mode`.
pub fn hardware_csv(rack: &Rack) -> Result<Secret<String>, LabError> {
    let rows = rack.machines.iter().map(|machine| {
        vec![
            (Column::Hostname, machine.name.clone()),
            (Column::BmcIp, machine.bmc_address.to_string()),
            (Column::BmcUsername, BMC_USER.to_owned()),
            (Column::BmcPassword, machine.bmc_password.expose().clone()),
            (Column::Mac, machine.mac.to_string()),
            (Column::IpAddress, machine.address.to_string()),
            (Column::Netmask, rack.subnet.netmask().to_string()),
            (Column::Gateway, rack.gateway().to_string()),
            (Column::Nameservers, rack.gateway().to_string()),
            (Column::Labels, format!("type={}", machine.role)),
            (Column::Disk, String::from("/dev/vda")),
            (Column::BootMode, machine.boot_mode.to_string()),
        ]
    });
    inventory::write(&rows.collect::<Vec<_>>())
        .map_err(|error| LabError::Options(format!("hardware.csv cannot be written: {error}")))
}

/// The spec. Without an image it names the one that `artifacts fill` will make, and leaves its sum to the user.
pub fn cluster_yaml(rack: &Rack, image: Option<&ImageChoice>, public_key: &str) -> Result<String, LabError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let rendered = environment.render_str(
        SPEC_TEMPLATE,
        context! {
            name => &rack.name,
            // The one control-plane machine's own address: no virtual IP is needed.
            endpoint => rack.machines.first().map(|machine| machine.address.to_string()),
            interface => network::BRIDGE,
            kubernetes => image.map(|image| &image.kubernetes),
            image => image.map(|image| context! { url => &image.url, sha256 => &image.sha256 }),
            user => SSH_USER,
            public_key => public_key,
            workers => rack.machines.len() - 1,
        },
    );
    // The template engine drops the last line's end.
    rendered
        .map(|text| text + "\n")
        .map_err(|error| LabError::Options(format!("cluster.yaml cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::rack::{RackOptions, tests::options};
    use super::*;

    fn image() -> ImageChoice {
        ImageChoice {
            url: "file:images/debian-13.raw.zst".into(),
            sha256: "ab".repeat(32),
            kubernetes: "v1.36.3".into(),
        }
    }

    #[test]
    fn the_inventory_is_what_the_rack_is() {
        let fixed = RackOptions { bmc_password: Some(Secret::new("a,\"b".into())), ..options() };
        let csv = hardware_csv(&Rack::plan(fixed).unwrap()).unwrap();
        let expected = "hostname,bmc_ip,bmc_username,bmc_password,mac,ip_address,netmask,gateway,nameservers,labels,\
                        disk,boot_mode\n\
                        node1,10.77.0.200,admin,\"a,\"\"b\",52:54:00:6d:67:01,10.77.0.10,255.255.255.0,10.77.0.1,\
                        10.77.0.1,type=cp,/dev/vda,uefi\n\
                        node2,10.77.0.201,admin,\"a,\"\"b\",52:54:00:6d:67:02,10.77.0.11,255.255.255.0,10.77.0.1,\
                        10.77.0.1,type=worker,/dev/vda,bios\n";
        assert_eq!(csv.expose(), expected);
    }

    #[test]
    fn the_spec_asks_for_every_machine() {
        let spec = cluster_yaml(&Rack::plan(options()).unwrap(), Some(&image()), "ssh-ed25519 AAAA lab").unwrap();
        assert!(spec.contains("count: 1, selector: {type: worker}"), "{spec}");
        assert!(spec.contains("endpoint: {host: 10.77.0.10, port: 6443}"), "{spec}");
        assert!(spec.contains(&format!("sha256: \"{}\"", "ab".repeat(32))), "{spec}");
        let alone = RackOptions { machines: vec![BootMode::Bios], ..options() };
        let spec = cluster_yaml(&Rack::plan(alone).unwrap(), None, "ssh-ed25519 AAAA lab").unwrap();
        assert!(spec.contains("workers: []") && spec.contains("put the image's sum here"), "{spec}");
    }

    #[test]
    fn removes_what_it_made_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let rack = Rack::plan(RackOptions { dir: dir.path().join("lab"), ..options() }).unwrap();
        make_dir(&rack.machine_dir("node1")).unwrap();
        write_private(&rack.dir.join(HARDWARE_CSV), "x").unwrap();
        assert!(matches!(refuse_existing(&rack), Err(LabError::Taken { .. })));
        write_private(&rack.dir.join("notes.txt"), "mine").unwrap();
        remove(&rack).unwrap();
        refuse_existing(&rack).unwrap();
        let left: Vec<_> = std::fs::read_dir(&rack.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
        std::fs::remove_file(rack.dir.join("notes.txt")).unwrap();
        remove(&rack).unwrap();
        assert!(!rack.dir.exists());
    }
}
