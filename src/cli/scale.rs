//! `metalgate scale NAME GROUP --count N`: a group of a cluster that manages itself gets more machines, or fewer.

use super::Failure;
use super::arguments::WorkDirArg;
use crate::api::{ApiError, MachineRole, MetalCluster, NAMESPACE};
use crate::workflow::managed;
use kube::Api;
use kube::api::PostParams;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's name, as in its spec
    name: String,
    /// `control-plane`, or the worker group's name
    group: String,
    /// How many machines it is to have
    #[arg(long)]
    count: u32,
    #[command(flatten)]
    work_dir: WorkDirArg,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let dir = args.work_dir.of(&args.name)?;
    let client = managed::client(&dir, &args.name).await.map_err(Failure::Failed)?;
    let mut cluster = managed::find(&client, &args.name).await?;
    let known: Vec<String> = cluster.spec.groups.iter().map(|group| group.name.clone()).collect();
    let Some(group) = cluster.spec.groups.iter_mut().find(|group| group.name == args.group) else {
        return Err(Failure::Input(format!("error: no group `{}`; there are {}\n", args.group, known.join(", "))));
    };
    if group.role == MachineRole::ControlPlane && args.count.is_multiple_of(2) {
        let text = format!("error: a control plane has an odd number of machines, not {}\n", args.count);
        return Err(Failure::Input(text));
    }
    let before = std::mem::replace(&mut group.count, args.count);
    let api: Api<MetalCluster> = Api::namespaced(client, NAMESPACE);
    let replaced = api.replace(&args.name, &PostParams::default(), &cluster).await;
    replaced.map_err(ApiError::of(format!("MetalCluster {}", args.name)))?;
    eprintln!(
        "group {}: {before} -> {} machines; `metalgate status {}` shows how it goes",
        args.group, args.count, args.name
    );
    eprintln!("hint: change `count` in cluster.yaml too, or the next `metalgate apply` undoes it");
    Ok(())
}
