//! Arguments that several commands take.

use super::{Failure, validate};
use crate::bootstrap::Provider;
use crate::diagnostic::Diagnostics;
use crate::preflight::Name;
use crate::workflow::Request;
use crate::workflow::work_dir::{self, WorkDirError};
use crate::{image, plan};
use std::path::PathBuf;

/// The user's two files.
#[derive(clap::Args)]
pub struct FilesArg {
    /// The cluster's spec, or EKS Anywhere's documents
    #[arg(short, long, value_name = "cluster.yaml")]
    filename: PathBuf,
    /// The inventory
    #[arg(short = 'z', long, value_name = "hardware.csv", env = "HARDWARE_CSV")]
    hardware_csv: PathBuf,
}

impl FilesArg {
    /// Reads both.
    pub fn read(&self) -> Result<validate::Input, Diagnostics> {
        validate::load(&self.filename, &self.hardware_csv)
    }

    /// Reads both, and shows what their user should know of them.
    pub fn load(&self) -> Result<validate::Input, Diagnostics> {
        self.read().inspect(|input| input.warnings.show())
    }
}

/// Where a cluster's files are.
#[derive(clap::Args)]
pub struct WorkDirArg {
    /// Where the cluster's files are kept [default: ~/.local/state/metalgate/NAME]
    #[arg(long = "work-dir", value_name = "DIR")]
    path: Option<PathBuf>,
}

impl WorkDirArg {
    /// The directory of the cluster called `name`.
    pub fn of(&self, name: &str) -> Result<PathBuf, WorkDirError> {
        self.path.clone().map_or_else(|| work_dir::default_path(name), Ok)
    }
}

/// Where the things that are served lie.
#[derive(clap::Args)]
pub struct ArtifactsArg {
    // Global for `metalgate artifacts`, which takes it on either side of its subcommand.
    /// The artifact directory: kernel, agent, images and binaries [default: ~/.cache/metalgate/artifacts]
    #[arg(id = "artifacts", long = "artifacts", global = true, value_name = "DIR", env = "METALGATE_ARTIFACTS")]
    path: Option<PathBuf>,
}

impl ArtifactsArg {
    /// The directory.
    pub fn dir(&self) -> Result<PathBuf, image::NoDirectory> {
        self.path.clone().map_or_else(image::default_dir, Ok)
    }
}

/// What a run of `create cluster`, or of its first part, is made of.
#[derive(clap::Args)]
pub struct RequestArgs {
    #[command(flatten)]
    files: FilesArg,
    #[command(flatten)]
    artifacts: ArtifactsArg,
    #[command(flatten)]
    work_dir: WorkDirArg,
    /// A preflight check to leave out (may be repeated)
    #[arg(long, value_name = "CHECK")]
    skip: Vec<Name>,
}

impl RequestArgs {
    /// Reads the files, and plans with what earlier runs have done; the path is that of the cluster's files.
    pub fn request(self, bootstrap: Provider) -> Result<(Request, PathBuf), Failure> {
        let input = self.files.load()?;
        let work_dir = self.work_dir.of(&input.spec.name)?;
        let plan = plan::plan(&input.spec, &input.machines, &super::create::recorded(&work_dir)?)?;
        let request = Request {
            spec: input.spec,
            machines: input.machines,
            plan,
            artifacts: self.artifacts.dir()?,
            metalgate: std::env::current_exe()?,
            bootstrap,
            skip: self.skip,
        };
        Ok((request, work_dir))
    }
}
