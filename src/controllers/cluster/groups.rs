//! Groups and their machines: what is missing is made of free Hardware, a failed machine is replaced by a spare, what is too
//! much goes.

use crate::api::{
    ApiError, Hardware, MACHINE_FINALIZER, MachineGroup, MachineRole, MachineState, MetalCluster, MetalMachine,
    MetalMachineSpec, OUT_OF_SERVICE_LABEL, SURPLUS_ANNOTATION, secrets,
};
use crate::controllers::{Context, ReconcileError, status};
use crate::event::EventKind;
use crate::plan::by_name;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;

/// Makes the machines that groups lack, and deletes what they have too many. Gives what cannot be had, a sentence each.
pub async fn keep(
    context: &Context,
    cluster: &MetalCluster,
    machines: &[MetalMachine],
) -> Result<Vec<String>, ReconcileError> {
    let name = cluster.name_any();
    let mut free = free_hardware(context, &name, machines).await?;
    let mut lacking = Vec::new();
    for group in &cluster.spec.groups {
        let members: Vec<&MetalMachine> = machines.iter().filter(|machine| machine.spec.group == group.name).collect();
        let live: Vec<&MetalMachine> = members.iter().copied().filter(|machine| is_live(machine)).collect();
        let missing = (group.count as usize).saturating_sub(live.len());
        for number in 0..missing {
            let Some(at) = free.iter().position(|hardware| fits(group, hardware)) else {
                lacking.push(lack(group, missing - number));
                break;
            };
            let hardware = free.remove(at).name_any();
            add(context, &name, group, &hardware).await?;
            let failed =
                members.iter().find(|machine| machine.state() == MachineState::Failed && !is_replaced(machine));
            if let Some(failed) = failed.filter(|_| number == 0) {
                replace(context, &failed.name_any(), &hardware).await?;
            }
        }
        remove_surplus(context, group.role, group.count as usize, live).await?;
    }
    // Machines of groups that the spec no longer has. The control plane's group is always there.
    let known: BTreeSet<&str> = cluster.spec.groups.iter().map(|group| group.name.as_str()).collect();
    let orphans = machines.iter().filter(|machine| !known.contains(machine.spec.group.as_str()));
    let orphans = orphans.filter(|machine| machine.metadata.deletion_timestamp.is_none()).collect();
    remove_surplus(context, MachineRole::Worker, 0, orphans).await?;
    Ok(lacking)
}

fn is_live(machine: &MetalMachine) -> bool {
    machine.metadata.deletion_timestamp.is_none() && machine.state() != MachineState::Failed
}

fn is_replaced(machine: &MetalMachine) -> bool {
    machine.status.as_ref().is_some_and(|status| status.replaced_by.is_some())
}

fn lack(group: &MachineGroup, missing: usize) -> String {
    let selector: Vec<String> = group.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!(
        "group {} lacks {missing} of {} machines, and no free hardware has the labels {}: add rows to the inventory and run \
         `metalgate apply`",
        group.name,
        group.count,
        selector.join(", ")
    )
}

fn fits(group: &MachineGroup, hardware: &Hardware) -> bool {
    let labels = hardware.labels();
    group.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Hardware that no machine is made of and that may be used, by name.
async fn free_hardware(
    context: &Context,
    cluster: &str,
    machines: &[MetalMachine],
) -> Result<Vec<Hardware>, ReconcileError> {
    let used: BTreeSet<&str> = machines.iter().map(|machine| machine.spec.hardware.as_str()).collect();
    let ours =
        ListParams::default().labels(&format!("{}={cluster},!{OUT_OF_SERVICE_LABEL}", crate::api::CLUSTER_LABEL));
    let hardware = context.objects::<Hardware>().list(&ours).await.map_err(ApiError::of("the list of Hardware"))?;
    let mut free: Vec<Hardware> =
        hardware.into_iter().filter(|hardware| !used.contains(hardware.name_any().as_str())).collect();
    free.sort_by(|one, other| by_name(&one.name_any(), &other.name_any()));
    Ok(free)
}

/// The machine of `hardware` in `group`, as it is written by `create` too.
pub fn machine(cluster: &str, group: &MachineGroup, hardware: &str) -> MetalMachine {
    let spec = MetalMachineSpec {
        cluster: cluster.to_owned(),
        hardware: hardware.to_owned(),
        role: group.role,
        group: group.name.clone(),
        host_key: secrets::host_key_name(hardware),
        labels: group.labels.clone(),
        taints: group.taints.clone(),
    };
    let mut machine = MetalMachine::new(hardware, spec);
    machine.metadata = secrets::metadata(hardware, cluster);
    machine.metadata.finalizers = Some(vec![MACHINE_FINALIZER.to_owned()]);
    machine
}

async fn add(context: &Context, cluster: &str, group: &MachineGroup, hardware: &str) -> Result<(), ReconcileError> {
    secrets::keep_key(&context.client, &secrets::host_key_name(hardware), cluster).await?;
    let machine = machine(cluster, group, hardware);
    match context.objects().create(&PostParams::default(), &machine).await {
        // Another reconciliation was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        made => Ok(made.map(drop).map_err(ApiError::of(format!("MetalMachine {hardware}")))?),
    }
}

/// The reason of the failed machine stays in its status, with the name of the one that takes its place.
async fn replace(context: &Context, failed: &str, by: &str) -> Result<(), ReconcileError> {
    let api = context.objects::<MetalMachine>();
    let noted = status::update(&api, failed, |status| {
        status.replaced_by = Some(by.to_owned());
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(()) = noted.await?;
    context.events.emit(Some(failed), EventKind::MachineReplaced { by: by.to_owned() });
    Ok(())
}

/// Workers that were begun last go first; of a control plane one at a time.
async fn remove_surplus(
    context: &Context,
    role: MachineRole,
    count: usize,
    mut live: Vec<&MetalMachine>,
) -> Result<(), ReconcileError> {
    let surplus = live.len().saturating_sub(count);
    let surplus = if role == MachineRole::ControlPlane { surplus.min(1) } else { surplus };
    live.sort_by(|one, other| one.state().cmp(&other.state()).then(by_name(&other.name_any(), &one.name_any())));
    for machine in live.into_iter().take(surplus) {
        let name = machine.name_any();
        let api = context.objects::<MetalMachine>();
        let mark = Patch::Merge(json!({ "metadata": { "annotations": { SURPLUS_ANNOTATION: "true" } } }));
        let what = || format!("MetalMachine {name}, which is too many");
        api.patch(&name, &PatchParams::default(), &mark).await.map_err(ApiError::of(what()))?;
        api.delete(&name, &DeleteParams::default()).await.map_err(ApiError::of(what()))?;
    }
    Ok(())
}
