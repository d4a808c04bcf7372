//! `metalgate validate`: reads the spec and the inventory, reports every mistake of both, and does nothing else.

use super::arguments::FilesArg;
use super::{Failure, OutputFormat};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::inventory::{self, Machine};
use crate::plan::{self, Plan, Recorded};
use crate::spec::{self, ClusterSpec};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Largest files that are read; what is larger was not meant.
const MAX_SPEC: u64 = 1 << 20;
const MAX_INVENTORY: u64 = 64 << 20;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: FilesArg,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Two files that fit each other.
pub struct Input {
    /// The cluster.
    pub spec: ClusterSpec,
    /// The inventory, whole, in the order of the file.
    pub machines: Vec<Machine>,
    /// What will be done if nothing was done yet.
    pub plan: Plan,
    /// What the user should know all the same.
    pub warnings: Diagnostics,
}

/// Reads both files.
///
/// # Errors
/// Every mistake of both, in their order; warnings are among them.
pub fn load(spec_path: &Path, csv_path: &Path) -> Result<Input, Diagnostics> {
    let (spec_name, csv_name) = (spec_path.display().to_string(), csv_path.display().to_string());
    let spec = read_spec(spec_path);
    let inventory = match bytes(csv_path, MAX_INVENTORY) {
        Ok(bytes) => inventory::read(&csv_name, bytes),
        Err(diagnostic) => inventory::Read::unreadable(&csv_name, *diagnostic),
    };
    fit(&[&spec_name, &csv_name], spec, inventory)
}

/// Reads a spec alone.
pub(super) fn read_spec(path: &Path) -> spec::Read {
    let name = path.display().to_string();
    match bytes(path, MAX_SPEC) {
        Ok(bytes) => spec::read(&name, bytes),
        Err(diagnostic) => spec::Read::unreadable(&name, *diagnostic),
    }
}

/// Holds what was read of both files against each other.
fn fit(names: &[&str; 2], spec: spec::Read, inventory: inventory::Read) -> Result<Input, Diagnostics> {
    let mut found = plan::check(&spec, &inventory);
    found.extend(spec.diagnostics);
    found.extend(inventory.diagnostics);
    let found = found.sorted(names);
    let (Some(cluster), false) = (spec.cluster, found.has_errors()) else { return Err(found) };
    match plan::plan(&cluster, &inventory.machines, &Recorded::new()) {
        Ok(plan) => Ok(Input { spec: cluster, machines: inventory.machines, plan, warnings: found }),
        Err(error) => Err(Diagnostics::of(Diagnostic::error(Place::file(names[1]), error.to_string()))),
    }
}

pub fn run(args: Args) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Report<'a> {
        valid: bool,
        errors: usize,
        warnings: usize,
        diagnostics: &'a Diagnostics,
    }
    let result = args.files.read();
    match args.output {
        OutputFormat::Text => {
            let input = result?;
            input.warnings.show();
            writeln!(std::io::stdout(), "{}", summary(&input.plan))?;
            Ok(())
        }
        OutputFormat::Json => {
            let (valid, diagnostics) = match &result {
                Ok(input) => (true, &input.warnings),
                Err(diagnostics) => (false, diagnostics),
            };
            let (errors, warnings) = (diagnostics.count(Severity::Error), diagnostics.count(Severity::Warning));
            let report = serde_json::to_string_pretty(&Report { valid, errors, warnings, diagnostics })?;
            writeln!(std::io::stdout(), "{report}")?;
            result.map(drop).map_err(|_| Failure::Input(String::new()))
        }
    }
}

/// `cluster rack-a is valid: 1 control plane, 2 workers, 1 spare`.
fn summary(plan: &Plan) -> String {
    let of = |role| plan.machines.iter().filter(|machine| machine.role == role).count();
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let parts = [
        counted(of(crate::api::MachineRole::ControlPlane), "control-plane machine"),
        counted(of(crate::api::MachineRole::Worker), "worker"),
        counted(plan.spares.len(), "spare"),
    ];
    format!("cluster {} is valid: {}", plan.cluster, parts.join(", "))
}

fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, Box<Diagnostic>> {
    let refuse = |message| {
        let place = Place::file(&path.display().to_string());
        Err(Box::new(Diagnostic::error(place, message)))
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => refuse(format!("the file cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > most => refuse(format!("the file is larger than {} MiB", most >> 20)),
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;
    use std::time::{Duration, Instant};

    const SPEC: &str = include_str!("../../hardware-examples/accepted/worker-groups/cluster.yaml");
    const CSV: &str = include_str!("../../hardware-examples/accepted/worker-groups/hardware.csv");

    fn examine(spec: &[u8], csv: &[u8]) -> Result<Input, Diagnostics> {
        fit(&["a", "b"], spec::read("a", spec.to_vec()), inventory::read("b", csv.to_vec()))
    }

    /// Whatever comes out can be shown, and says where it is.
    fn show(result: Result<Input, Diagnostics>) {
        match result {
            Ok(input) => drop(plan::render_text(&input.plan)),
            Err(found) => {
                assert!(found.has_errors());
                assert!(found.render(true).contains("error"));
                serde_json::to_string(&found).unwrap();
            }
        }
    }

    fn rows(count: u32) -> String {
        let mut csv = String::from(
            "hostname,bmc_ip,bmc_username,bmc_password,mac,ip_address,netmask,gateway,nameservers,labels,disk\n",
        );
        for row in 0..count {
            let (address, bmc) =
                (std::net::Ipv4Addr::from(0x0a14_0002 + row), std::net::Ipv4Addr::from(0x0a15_0002 + row));
            let kind = if row < 3 { "cp" } else { "worker" };
            let [_, a, b, c] = row.to_be_bytes();
            writeln!(
                csv,
                "node-{row},{bmc},admin,secret-{row},52:54:00:{a:02x}:{b:02x}:{c:02x},{address},/16,10.20.0.1,9.9.9.9,type={kind},/dev/sda"
            )
            .unwrap();
        }
        csv
    }

    #[test]
    fn ten_thousand_rows_are_read_and_planned() {
        let spec = SPEC.split("  workers:").next().unwrap().replace("10.20.0.10", "10.20.255.10");
        let started = Instant::now();
        let input =
            examine(spec.as_bytes(), rows(10_000).as_bytes()).unwrap_or_else(|found| panic!("{}", found.render(false)));
        assert_eq!((input.machines.len(), input.plan.machines.len(), input.plan.spares.len()), (10_000, 3, 9_997));
        // Two hundred times what it takes: only an accident in the algorithm is this slow.
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }

    #[test]
    fn ten_thousand_wrong_rows_are_all_reported() {
        let csv = rows(10_000).replace("/16", "/33").replace("9.9.9.9", "nine");
        let Err(found) = examine(SPEC.as_bytes(), csv.as_bytes()) else { panic!("accepted") };
        assert_eq!(found.count(Severity::Error), 20_000);
        let text = found.render(false);
        assert!(text.ends_with("20000 errors; the first 200 are shown, `metalgate validate --output json` has all\n"));
    }

    #[test]
    fn files_that_are_not_there_or_too_large_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (spec, csv) = (dir.path().join("no.yaml"), dir.path().join("large.csv"));
        File::create(&csv).unwrap().set_len(MAX_INVENTORY + 1).unwrap();
        let Err(found) = load(&spec, &csv) else { panic!("accepted") };
        let messages: Vec<String> = found.iter().map(|one| format!("{}: {}", one.place.file, one.message)).collect();
        assert!(messages[0].ends_with("no.yaml: the file cannot be read: No such file or directory (os error 2)"));
        assert!(messages[1].ends_with("large.csv: the file is larger than 64 MiB"));
        assert_eq!(messages.len(), 2);
    }

    /// A text with some bytes replaced, put in, or taken out.
    fn damaged(text: &'static str, most: usize) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\t\r\n\"',:;-[]{}&*!#|>%@`<\0\xff ".to_vec())];
        let edits = prop::collection::vec((0..text.len(), 0..3u8, byte), 1..=most);
        edits.prop_map(move |edits| {
            let mut bytes = text.as_bytes().to_vec();
            for (at, what, byte) in edits {
                let at = at.min(bytes.len() - 1);
                match what {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
    }

    const EKS_ANYWHERE: &str =
        include_str!("../../hardware-examples/eks-anywhere/accepted/worker-groups/ClusterSpec.yml");

    proptest! {
        #[test]
        fn no_damage_to_documents_of_eks_anywhere_makes_their_reader_panic(spec in damaged(EKS_ANYWHERE, 8)) {
            show(examine(&spec, CSV.as_bytes()));
        }

        #[test]
        fn no_bytes_make_a_reader_panic(spec in prop::collection::vec(any::<u8>(), 0..600), csv in prop::collection::vec(any::<u8>(), 0..600)) {
            show(examine(&spec, &csv));
        }

        #[test]
        fn no_text_makes_a_reader_panic(spec in "(\\PC|[ \n\t:{}&*\"-]){0,200}", csv in "(\\PC|[,\n\r\"]){0,200}") {
            show(examine(spec.as_bytes(), csv.as_bytes()));
        }

        #[test]
        fn no_damage_makes_a_reader_panic(spec in damaged(SPEC, 8), csv in damaged(CSV, 8)) {
            show(examine(&spec, &csv));
        }

        #[test]
        fn a_password_is_not_shown_however_its_row_is_damaged(csv in damaged(CSV, 1)) {
            if let Err(found) = examine(SPEC.as_bytes(), &csv) {
                let shown = found.render(false) + &serde_json::to_string(&found).unwrap();
                prop_assert!(!shown.contains("s3cret"), "{shown}");
            }
        }
    }
}
