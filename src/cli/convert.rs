//! `metalgate convert`: EKS Anywhere's documents as a spec of our own.

use super::{Failure, validate};
use crate::spec::{self, ClusterSpec};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// EKS Anywhere's documents
    #[arg(short, long, value_name = "ClusterSpec.yml")]
    filename: PathBuf,
    /// Where the spec is written [default: stdout]
    #[arg(short, long, value_name = "cluster.yaml")]
    output: Option<PathBuf>,
    /// Replace the file that is there
    #[arg(long, requires = "output")]
    overwrite: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let name = args.filename.display().to_string();
    let read = validate::read_spec(&args.filename);
    let is_eks_anywhere = read.is_eks_anywhere();
    let found = read.diagnostics.sorted(&[&name]);
    let Some(cluster) = read.cluster.filter(|_| !found.has_errors()) else { return Err(found.into()) };
    if !is_eks_anywhere {
        return Err(Failure::Input(format!("error: {name} is a spec of metalgate's own already\n")));
    }
    found.show();
    let left_out = found.iter().map(|one| {
        let line = one.place.position.map(|(line, _)| line).unwrap_or_default();
        let hint = one.hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default();
        format!("line {line}: {}{hint}", one.message)
    });
    let comments: Vec<String> = std::iter::once(format!("Made of {name}.")).chain(left_out).collect();
    write(&cluster, &comments, args.output.as_deref(), args.overwrite)
}

fn write(cluster: &ClusterSpec, comments: &[String], output: Option<&Path>, overwrite: bool) -> Result<(), Failure> {
    let text = spec::write::yaml(cluster, comments)?;
    let Some(path) = output else { return Ok(std::io::stdout().write_all(text.as_bytes())?) };
    let mut options = OpenOptions::new();
    let options = match overwrite {
        true => options.write(true).create(true).truncate(true),
        false => options.write(true).create_new(true),
    };
    match options.open(path).and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::Input(format!("error: {} is there already; --overwrite replaces it\n", path.display())))
        }
        Err(error) => Err(Failure::Failed(format!("cannot write {}: {error}", path.display()).into())),
        Ok(()) => {
            eprintln!("wrote {}", path.display());
            Ok(())
        }
    }
}
