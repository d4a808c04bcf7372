//! `metalgate validate`: reads the spec and the inventory, reports every mistake of both, and does nothing else.

use super::{Failure, OutputFormat};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::inventory::{self, Machine};
use crate::plan::{self, Plan, Recorded};
use crate::spec::{self, ClusterSpec};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Largest files that are read; what is larger was not meant.
const MAX_SPEC: u64 = 1 << 20;
const MAX_INVENTORY: u64 = 64 << 20;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's spec
    #[arg(short, long, value_name = "cluster.yaml")]
    filename: PathBuf,
    /// The inventory
    #[arg(short = 'z', long, value_name = "hardware.csv", env = "HARDWARE_CSV")]
    hardware_csv: PathBuf,
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
    let sorted = |found: Diagnostics| found.sorted(&[&spec_name, &csv_name]);
    let mut found = Diagnostics::default();
    let spec = bytes(spec_path, MAX_SPEC).map(|bytes| spec::read(&spec_name, bytes));
    let inventory = bytes(csv_path, MAX_INVENTORY).map(|bytes| inventory::read(&csv_name, bytes));
    let (spec, inventory) = match (spec, inventory) {
        (Ok(spec), Ok(inventory)) => (spec, inventory),
        (spec, inventory) => {
            found.extend(spec.map_or_else(|found| found, |spec| spec.diagnostics));
            found.extend(inventory.map_or_else(|found| found, |inventory| inventory.diagnostics));
            return Err(sorted(found));
        }
    };
    found.extend(plan::check(&spec, &inventory));
    found.extend(spec.diagnostics);
    found.extend(inventory.diagnostics);
    let found = sorted(found);
    let (Some(cluster), false) = (spec.cluster, found.has_errors()) else { return Err(found) };
    match plan::plan(&cluster, &inventory.machines, &Recorded::new()) {
        Ok(plan) => Ok(Input { spec: cluster, machines: inventory.machines, plan, warnings: found }),
        Err(error) => Err(Diagnostics::of(Diagnostic::error(Place::file(&csv_name), error.to_string()))),
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
    let result = load(&args.filename, &args.hardware_csv);
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

fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, Diagnostics> {
    let refuse = |message| {
        let place = Place::file(&path.display().to_string());
        Err(Diagnostics::of(Diagnostic::error(place, message)))
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => refuse(format!("the file cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > most => refuse(format!("the file is larger than {} MiB", most >> 20)),
        Ok(_) => Ok(bytes),
    }
}
