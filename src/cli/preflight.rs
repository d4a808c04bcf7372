//! `metalgate preflight`: what `create cluster` looks at before it powers a machine on, and nothing else.

use super::{Failure, OutputFormat, create, progress};
use crate::bootstrap::Provider;
use crate::event::EventBus;
use crate::preflight::{Name, Verdict};
use crate::workflow::{self, Request};
use crate::{image, plan};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's spec
    #[arg(short, long, value_name = "cluster.yaml")]
    filename: PathBuf,
    /// The inventory
    #[arg(short = 'z', long, value_name = "hardware.csv", env = "HARDWARE_CSV")]
    hardware_csv: PathBuf,
    /// A check to leave out (may be repeated)
    #[arg(long, value_name = "CHECK")]
    skip: Vec<Name>,
    /// Where kernel, agent, images and binaries lie [default: ~/.cache/metalgate/artifacts]
    #[arg(long, value_name = "DIR", env = "METALGATE_ARTIFACTS")]
    artifacts: Option<PathBuf>,
    #[command(flatten)]
    work_dir: super::WorkDirArg,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// What is in the way is on stdout already.
#[derive(Debug, thiserror::Error)]
#[error("the preflight failed: {0} in the way; `create cluster` would not power a machine on")]
struct InTheWay(usize);

pub async fn run(args: Args) -> Result<(), Failure> {
    let input = super::validate::load(&args.filename, &args.hardware_csv)?;
    input.warnings.show();
    let work_dir = args.work_dir.of(&input.spec.name)?;
    let plan = plan::plan(&input.spec, &input.machines, &create::recorded(&work_dir)?)?;
    let artifacts = match args.artifacts {
        Some(dir) => dir,
        None => image::default_dir()?,
    };
    let request = Request {
        spec: input.spec,
        machines: input.machines,
        plan,
        artifacts,
        metalgate: std::env::current_exe()?,
        bootstrap: Provider::Embedded,
        skip: args.skip,
    };
    let events = EventBus::default();
    let display = progress::start(&events);
    let report = workflow::preflight::alone(&request, &work_dir, &events).await;
    drop(events);
    display.await?;
    let report = report?;
    match args.output {
        OutputFormat::Text => print!("{}", report.text()),
        OutputFormat::Json => {
            let (failed, warnings) = (report.count(Verdict::Failed), report.count(Verdict::Warning));
            println!("{}", json!({"passed": failed == 0, "failed": failed, "warnings": warnings, "findings": report}));
        }
    }
    match report.count(Verdict::Failed) {
        0 => Ok(()),
        failed => Err(InTheWay(failed).into()),
    }
}
