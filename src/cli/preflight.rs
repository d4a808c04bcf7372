//! `metalgate preflight`: what `create cluster` looks at before it powers a machine on, and nothing else.

use super::arguments::RequestArgs;
use super::{Failure, OutputFormat, progress};
use crate::bootstrap::Provider;
use crate::event::EventBus;
use crate::preflight::Verdict;
use crate::workflow;
use serde_json::json;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: RequestArgs,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// What is in the way is on stdout already.
#[derive(Debug, thiserror::Error)]
#[error("the preflight failed: {0}; `create cluster` would not power a machine on")]
struct InTheWay(String);

pub async fn run(args: Args) -> Result<(), Failure> {
    let (request, work_dir) = args.request.request(Provider::Embedded)?;
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
    report.in_the_way().map_or(Ok(()), |summary| Err(InTheWay(summary).into()))
}
