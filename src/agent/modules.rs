//! Kernel modules: finds and loads the drivers of the machine's devices, as udev and modprobe would.
//!
//! Fed by /lib/modules/<release> of the initramfs (`modules.dep`, `modules.alias`, `modules.softdep`; the modules are not
//! compressed) and by the `modalias` files that the kernel keeps for every device.

use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A driver may uncover devices that need further drivers (a controller its disks): so often we look again.
const ROUNDS: usize = 20;
/// Between two looks; devices come up in the background.
const PAUSE: Duration = Duration::from_millis(250);
/// After so many looks in a row that found nothing new, all devices are taken to be there.
const QUIET_ROUNDS: usize = 4;

/// A modules directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: is the initramfs built for this kernel?", path.display())]
pub struct ModulesError {
    path: PathBuf,
    source: io::Error,
}

/// The modules that the initramfs has, and what they are for.
#[derive(Debug, Default)]
pub struct Modules {
    /// By name with underscores: the file, then the files it needs, which are loaded last to first.
    files: HashMap<String, Vec<PathBuf>>,
    /// Pattern and module name, in the order of the file.
    aliases: Vec<(Pattern, String)>,
    /// Names to load before and after a module, where they exist.
    soft: HashMap<String, Soft>,
}

#[derive(Debug, Default)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// Module names use `-` and `_` alike.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

impl Modules {
    /// Reads the tables of `directory`, /lib/modules/<release>.
    pub fn read(directory: &Path) -> Result<Self, ModulesError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|source| ModulesError { path, source })
        };
        let mut modules = Self::default();
        for line in read("modules.dep")?.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let name = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.split_once(".ko").map_or(name, |(name, _)| name);
            let files = std::iter::once(file).chain(needs.split_whitespace()).map(|file| directory.join(file));
            modules.files.insert(canonical(name), files.collect());
        }
        for line in read("modules.alias")?.lines() {
            if let ["alias", pattern, module] = line.split_whitespace().collect::<Vec<_>>()[..] {
                modules.aliases.push((Pattern::new(pattern), canonical(module)));
            }
        }
        // Kernels whose modules name no soft dependencies come without this file.
        for line in read("modules.softdep").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                modules.soft.insert(canonical(module), Soft::parse(words));
            }
        }
        Ok(modules)
    }

    /// The modules that an alias (a device's `modalias`, or the name of a file system's module) stands for.
    fn named(&self, alias: &str) -> Vec<&str> {
        if let Some((name, _)) = self.files.get_key_value(&canonical(alias)) {
            return vec![name];
        }
        let matching = self.aliases.iter().filter(|(pattern, _)| pattern.matches(alias));
        matching.map(|(_, module)| module.as_str()).filter(|module| self.files.contains_key(*module)).collect()
    }

    /// The files to load for `alias`, in order: what a module needs comes before it. Empty where there is no module for it.
    pub fn plan(&self, alias: &str) -> Vec<PathBuf> {
        let mut plan = Vec::new();
        for module in self.named(alias) {
            self.add(module, &mut plan, &mut HashSet::new());
        }
        plan
    }

    fn add<'a>(&'a self, module: &'a str, plan: &mut Vec<PathBuf>, seen: &mut HashSet<&'a str>) {
        let Some(files) = self.files.get(module) else { return };
        // Soft dependencies may form a circle.
        if !seen.insert(module) {
            return;
        }
        let soft = self.soft.get(module);
        for name in soft.iter().flat_map(|soft| &soft.before) {
            self.named(name).into_iter().for_each(|name| self.add(name, plan, seen));
        }
        for file in files.iter().rev() {
            if !plan.contains(file) {
                plan.push(file.clone());
            }
        }
        for name in soft.iter().flat_map(|soft| &soft.after) {
            self.named(name).into_iter().for_each(|name| self.add(name, plan, seen));
        }
    }
}

impl Soft {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut soft = Self::default();
        let mut after = false;
        for word in words {
            match word {
                "pre:" => after = false,
                "post:" => after = true,
                name if after => soft.after.push(name.to_owned()),
                name => soft.before.push(name.to_owned()),
            }
        }
        soft
    }
}

/// A shell pattern of modules.alias: `*`, `?` and `[...]`.
#[derive(Debug)]
struct Pattern(Vec<u8>);

impl Pattern {
    fn new(pattern: &str) -> Self {
        Self(pattern.as_bytes().to_vec())
    }

    /// Whether the whole of `text` fits.
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (&self.0[..], text.as_bytes());
        let (mut at, mut position) = (0, 0);
        // Where to go on when what follows the last `*` does not fit: the star takes one byte more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            if at == pattern.len() && position == text.len() {
                return true;
            }
            if pattern.get(at) == Some(&b'*') {
                at += 1;
                retry = Some((at, position));
                continue;
            }
            match text.get(position).and_then(|byte| one(&pattern[at..], *byte)) {
                Some(width) => (at, position) = (at + width, position + 1),
                None => match retry {
                    Some((star, from)) if from < text.len() => {
                        retry = Some((star, from + 1));
                        (at, position) = (star, from + 1);
                    }
                    _ => return false,
                },
            }
        }
    }
}

/// How many bytes of `pattern` stand for the one byte `byte`, if they fit it.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => {
            let end = set.iter().position(|byte| *byte == b']')?;
            let mut set = &set[..end];
            let mut found = false;
            while let [low, rest @ ..] = set {
                (found, set) = match rest {
                    [b'-', high, rest @ ..] => (found || (*low..=*high).contains(&byte), rest),
                    rest => (found || *low == byte, rest),
                };
            }
            found.then_some(end + 2)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// Finds devices without a driver and loads theirs; remembers what was tried.
pub struct Drivers<F> {
    modules: Modules,
    sys: PathBuf,
    load: F,
    aliases: HashSet<String>,
    tried: HashSet<PathBuf>,
}

impl<F: FnMut(&Path) -> Result<(), Errno>> Drivers<F> {
    /// Drivers out of `modules` for the devices below `sys`; `load` loads one file.
    pub fn new(modules: Modules, sys: &Path, load: F) -> Self {
        Self { modules, sys: sys.to_owned(), load, aliases: HashSet::new(), tried: HashSet::new() }
    }

    /// Looks once for new devices and loads their drivers. Returns whether there were any.
    pub fn look(&mut self) -> bool {
        let mut new = false;
        for alias in modaliases(&self.sys.join("devices")) {
            if self.aliases.insert(alias.clone()) {
                new = true;
                self.load(&alias);
            }
        }
        new
    }

    /// Looks until no new device has appeared for a second.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            quiet = if self.look() { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Loads the modules for an alias or of a name, where the initramfs has them; what is built into the kernel needs none.
    /// A module that cannot be loaded costs its device only, and is told on the console.
    pub fn load(&mut self, alias: &str) {
        for file in self.modules.plan(alias) {
            if !self.tried.insert(file.clone()) {
                continue;
            }
            match (self.load)(&file) {
                // Loaded already, or a driver that looked and has nothing to do here.
                Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
                Err(error) => tracing::warn!("cannot load {}: {error}", file.display()),
            }
        }
    }
}

/// Loads one file.
pub type Load = fn(&Path) -> Result<(), Errno>;

/// Hands a module to the kernel.
pub fn insert(file: &Path) -> Result<(), Errno> {
    let file = File::open(file).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    rustix::system::finit_module(&file, c"", 0)
}

/// The contents of every `modalias` file below `directory`. sysfs has symbolic links in circles: none is followed.
fn modaliases(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    found.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_the_shell() {
        for (pattern, text) in [
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4"),
            ("pci:v00008086d000010D3sv*sd*bc*sc*i*", "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00"),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"),
            ("usb:v0781p5406d[0-4]*dc*", "usb:v0781p5406d3000dc00"),
            ("cpu:type:x86,ven*fam*mod*:feature:*0099*", "cpu:type:x86,ven0000fam0006mod001A:feature:,0000,0099,009A"),
            ("a?c", "abc"),
            ("*", ""),
        ] {
            assert!(Pattern::new(pattern).matches(text), "{pattern} should fit {text}");
        }
        for (pattern, text) in [
            ("virtio:d00000002v*", "virtio:d00000001v00001AF4"),
            ("usb:v0781p5406d[0-4]*dc*", "usb:v0781p5406d5000dc00"),
            ("a?c", "ac"),
            ("abc", "abcd"),
            ("*b", "abc"),
            ("[0-9", "5"),
        ] {
            assert!(!Pattern::new(pattern).matches(text), "{pattern} should not fit {text}");
        }
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "modules.dep",
            "kernel/virtio_net.ko: kernel/net_failover.ko kernel/failover.ko\nkernel/net_failover.ko: kernel/failover.ko\n\
             kernel/failover.ko:\nkernel/sd_mod.ko: kernel/scsi_mod.ko\nkernel/scsi_mod.ko:\nkernel/crct10dif-generic.ko:\n\
             kernel/virtio_pci.ko:\n",
        );
        write(
            "modules.alias",
            "# comment\nalias virtio:d00000001v* virtio_net\nalias scsi:t-0x00* sd_mod\nalias crct10dif crct10dif_generic\n\
             alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias pci:v00001AF4d00001041* not_shipped\n",
        );
        write("modules.softdep", "softdep sd_mod pre: crct10dif post: sd_mod\n");
        dir
    }

    fn names(plan: &[PathBuf]) -> Vec<&str> {
        plan.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let dir = tree();
        let modules = Modules::read(dir.path()).unwrap();
        let plan = |alias| names(&modules.plan(alias)).join(" ");
        assert_eq!(plan("virtio:d00000001v00001AF4"), "failover.ko net_failover.ko virtio_net.ko");
        assert_eq!(plan("scsi:t-0x00"), "crct10dif-generic.ko scsi_mod.ko sd_mod.ko");
        assert_eq!(plan("virtio-net"), "failover.ko net_failover.ko virtio_net.ko");
        assert_eq!(plan("pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00"), "virtio_pci.ko");
        assert_eq!(plan("acpi:PNP0501:"), "");
    }

    #[test]
    fn devices_that_appear_after_a_driver_was_loaded_get_theirs_too() {
        let (dir, sys) = (tree(), tempfile::tempdir().unwrap());
        let modules = Modules::read(dir.path()).unwrap();
        let device = |path: &str, modalias: &str| {
            let path = sys.path().join("devices").join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("modalias"), modalias).unwrap();
        };
        device("pci0/00:03.0", "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00\n");
        std::os::unix::fs::symlink(sys.path(), sys.path().join("devices/pci0/subsystem")).unwrap();
        let mut order = Vec::new();
        let mut drivers = Drivers::new(modules, sys.path(), |file: &Path| {
            let name = names(&[file.to_owned()])[0].to_owned();
            if name == "virtio_pci.ko" {
                device("pci0/00:03.0/virtio0", "virtio:d00000001v00001AF4\n");
            }
            order.push(name.clone());
            if name == "failover.ko" { Err(Errno::EXIST) } else { Ok(()) }
        });
        drivers.settle();
        drop(drivers);
        assert_eq!(order, ["virtio_pci.ko", "failover.ko", "net_failover.ko", "virtio_net.ko"]);
    }

    #[test]
    fn a_directory_without_tables_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Modules::read(dir.path()).unwrap_err().to_string().contains("modules.dep"));
    }
}
