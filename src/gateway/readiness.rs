//! What ready means, kind by kind, in the words of an object's own status.

use serde_json::Value;

/// Whether an object does what it is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// Not yet, because of this.
    Waiting(String),
    /// It will not, because of this.
    Failed(String),
}

fn waiting(reason: impl Into<String>) -> Readiness {
    Readiness::Waiting(reason.into())
}

/// What ready means for an object as it is; of kinds that have no status, that they are there.
pub fn readiness(live: &Value) -> Readiness {
    if live.is_null() {
        return waiting("it is not there yet");
    }
    let (status, spec) = (&live["status"], &live["spec"]);
    let generation = live["metadata"]["generation"].as_i64().unwrap_or_default();
    let observed = status["observedGeneration"].as_i64().unwrap_or_default() >= generation;
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    match live["kind"].as_str().unwrap_or_default() {
        "Deployment" | "StatefulSet" => {
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let deadline =
                condition(status, "Progressing").is_some_and(|one| one["reason"] == "ProgressDeadlineExceeded");
            let available = number(&status["availableReplicas"]);
            let (updated, all) = (number(&status["updatedReplicas"]), number(&status["replicas"]));
            match () {
                () if !observed => waiting("its controller has not seen the change"),
                () if deadline => waiting(format!("{available} of {wanted} pods are available, for too long already")),
                () if updated < wanted => waiting(format!("{updated} of {wanted} pods are of the new kind")),
                () if all > updated => waiting(format!("{} old pods have not ended", all - updated)),
                () if available < wanted => waiting(format!("{available} of {wanted} pods are available")),
                () => Readiness::Ready,
            }
        }
        "DaemonSet" => {
            let wanted = number(&status["desiredNumberScheduled"]);
            let done = number(&status["numberAvailable"]).min(number(&status["updatedNumberScheduled"]));
            match observed && done >= wanted {
                true => Readiness::Ready,
                false => waiting(format!("{done} of {wanted} pods are available")),
            }
        }
        "Job" => match (condition(status, "Complete"), condition(status, "Failed")) {
            (Some(one), _) if one["status"] == "True" => Readiness::Ready,
            (_, Some(one)) if one["status"] == "True" => Readiness::Failed(message(one)),
            _ => waiting(format!("it runs; {} attempts have failed", number(&status["failed"]))),
        },
        "CustomResourceDefinition" => wants(status, "Established", None),
        "GatewayClass" => wants(status, "Accepted", Some(generation)),
        "Gateway" => wants(status, "Programmed", Some(generation)),
        "HTTPRoute" => parents(&status["parents"], number_of_parents(spec), &["Accepted", "ResolvedRefs"], generation),
        "SecurityPolicy" | "BackendTLSPolicy" => parents(&status["ancestors"], 1, &["Accepted"], generation),
        "Backend" => wants(status, "Accepted", Some(generation)),
        _ => Readiness::Ready,
    }
}

fn number_of_parents(spec: &Value) -> usize {
    spec["parentRefs"].as_array().map_or(0, Vec::len)
}

fn condition<'s>(status: &'s Value, kind: &str) -> Option<&'s Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn message(condition: &Value) -> String {
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    match (text("reason"), text("message")) {
        (reason, message) if message.is_empty() => reason,
        (reason, message) => format!("{reason}: {message}"),
    }
}

/// Whether a condition is true, of this generation where it says so.
fn wants(status: &Value, kind: &str, generation: Option<i64>) -> Readiness {
    let Some(found) = condition(status, kind) else { return waiting(format!("it has no condition {kind} yet")) };
    let current =
        generation.is_none_or(|generation| found["observedGeneration"].as_i64().unwrap_or(generation) >= generation);
    match (found["status"] == "True", current) {
        (true, true) => Readiness::Ready,
        (_, false) => waiting("its controller has not seen the change"),
        (false, true) => {
            waiting(format!("{kind} is {}: {}", found["status"].as_str().unwrap_or("unknown"), message(found)))
        }
    }
}

/// Whether all parents of a route have these conditions.
fn parents(parents: &Value, least: usize, kinds: &[&str], generation: i64) -> Readiness {
    let parents = parents.as_array().map(Vec::as_slice).unwrap_or_default();
    if parents.len() < least.max(1) {
        return waiting(format!("{} of {least} gateways have looked at it", parents.len()));
    }
    let looked = parents.iter().flat_map(|parent| kinds.iter().map(move |kind| (parent, *kind)));
    // A gateway is made before the services behind it: a route to one that is not there yet holds nothing up.
    let mut states = looked
        .filter(|(parent, kind)| *kind != "ResolvedRefs" || !lacks_backend(parent))
        .map(|(parent, kind)| wants(parent, kind, Some(generation)));
    states.find(|state| *state != Readiness::Ready).unwrap_or(Readiness::Ready)
}

fn lacks_backend(parent: &Value) -> bool {
    // Without its namespace there is no leave to use it, either.
    let missing = |one: &Value| one["reason"] == "BackendNotFound" || one["reason"] == "RefNotPermitted";
    condition(parent, "ResolvedRefs").is_some_and(|one| one["status"] == "False" && missing(one))
}

/// Whether a route names a Service that is not there.
pub fn waits_for_backend(live: &Value) -> bool {
    live["status"]["parents"].as_array().is_some_and(|parents| parents.iter().any(lacks_backend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reason(live: Value) -> String {
        match readiness(&live) {
            Readiness::Ready => String::from("ready"),
            Readiness::Waiting(reason) => reason,
            Readiness::Failed(reason) => format!("failed: {reason}"),
        }
    }

    #[test]
    fn a_deployment_is_ready_when_only_new_pods_are_there_and_all_are_available() {
        let of = |generation: i64, status: Value| {
            reason(
                json!({"kind": "Deployment", "metadata": {"generation": generation}, "spec": {"replicas": 2}, "status": status}),
            )
        };
        let whole = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert_eq!(of(2, whole.clone()), "ready");
        assert_eq!(of(3, whole), "its controller has not seen the change");
        let old = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3});
        assert_eq!(of(2, old), "1 old pods have not ended");
        let few = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1});
        assert_eq!(of(2, few), "1 of 2 pods are available");
    }

    #[test]
    fn a_route_is_ready_when_every_gateway_has_taken_its_present_form() {
        let parent = |accepted: &str, resolved: &str, generation: i64| {
            let one = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "BackendNotFound", "observedGeneration": generation});
            json!({"conditions": [one("Accepted", accepted), one("ResolvedRefs", resolved)]})
        };
        let of = |parents: Value| {
            reason(json!({
                "kind": "HTTPRoute", "metadata": {"generation": 2}, "spec": {"parentRefs": [{}, {}]},
                "status": {"parents": parents},
            }))
        };
        assert_eq!(of(json!([parent("True", "True", 2)])), "1 of 2 gateways have looked at it");
        assert_eq!(of(json!([parent("True", "True", 2), parent("True", "True", 2)])), "ready");
        // The Service that it names may come later.
        assert_eq!(of(json!([parent("True", "True", 2), parent("True", "False", 2)])), "ready");
        assert_eq!(
            of(json!([parent("True", "True", 2), parent("False", "True", 2)])),
            "Accepted is False: BackendNotFound"
        );
        assert_eq!(
            of(json!([parent("True", "True", 2), parent("True", "True", 1)])),
            "its controller has not seen the change"
        );
    }

    #[test]
    fn a_job_that_gave_up_is_not_waited_for() {
        let status = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]});
        assert_eq!(reason(json!({"kind": "Job", "status": status})), "failed: BackoffLimitExceeded");
        assert_eq!(reason(Value::Null), "it is not there yet");
    }
}
