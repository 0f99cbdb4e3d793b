//! The row of a pod: one word for the state of all its containers.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    cells::{name, old, or, since},
    metadata,
};
use crate::validation::value::{at, flag, has, int, list, text};

pub fn pod(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let summary = summary(o);
    let restarts = match summary.restarted {
        Some(time) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, since(time, now))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = match list(status, "podIPs").first() {
        Some(first) => text(first, "ip"),
        None => text(status, "podIP"),
    };
    let gates = list(spec, "readinessGates");
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let passed = gates.iter().filter(|g| {
            let kind = text(g, "conditionType");
            condition(status, kind).is_some_and(|c| text(c, "status") == "True")
        });
        format!("{}/{}", passed.count(), gates.len())
    };
    vec![
        name(o),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.state.into(),
        restarts.into(),
        old(o, now),
        or(ip, "<none>").into(),
        or(text(spec, "nodeName"), "<none>").into(),
        or(text(status, "nominatedNodeName"), "<none>").into(),
        gates.into(),
    ]
}

struct Summary<'a> {
    ready: usize,
    total: usize,
    state: String,
    restarts: i64,
    /// When a container last ended and was started again.
    restarted: Option<&'a str>,
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    list(status, "conditions")
        .iter()
        .find(|c| text(c, "type") == kind)
}

/// Whether an init container is one that keeps running beside the others.
fn is_sidecar(spec: &Value, name: &str) -> bool {
    list(spec, "initContainers")
        .iter()
        .any(|c| text(c, "name") == name && text(c, "restartPolicy") == "Always")
}

fn finished(container: &Value) -> Option<&str> {
    let ended = at(at(container, "lastState"), "terminated");
    Some(text(ended, "finishedAt")).filter(|t| !t.is_empty())
}

fn ending(terminated: &Value, prefix: &str) -> String {
    let reason = text(terminated, "reason");
    if !reason.is_empty() {
        return format!("{prefix}{reason}");
    }
    match int(terminated, "signal").unwrap_or(0) {
        0 => format!(
            "{prefix}ExitCode:{}",
            int(terminated, "exitCode").unwrap_or(0)
        ),
        signal => format!("{prefix}Signal:{signal}"),
    }
}

fn summary(o: &Value) -> Summary<'_> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let reason = text(status, "reason");
    let phase = text(status, "phase");
    let mut out = Summary {
        ready: 0,
        total: list(spec, "containers").len(),
        state: or(reason, phase).to_owned(),
        restarts: 0,
        restarted: None,
    };
    for gate in list(status, "conditions") {
        if text(gate, "type") == "PodScheduled" && text(gate, "reason") == "SchedulingGated" {
            out.state = "SchedulingGated".into();
        }
    }
    let inits = list(spec, "initContainers");
    out.total += inits
        .iter()
        .filter(|c| text(c, "restartPolicy") == "Always")
        .count();
    let latest = |a: Option<&'_ str>, b: Option<&'_ str>| match (a, b) {
        (Some(a), Some(b)) => a < b,
        (None, Some(_)) => true,
        _ => false,
    };
    let mut initializing = false;
    let (mut sidecar_restarts, mut sidecar_restarted) = (0, None);
    for (i, container) in list(status, "initContainerStatuses").iter().enumerate() {
        let sidecar = is_sidecar(spec, text(container, "name"));
        let count = int(container, "restartCount").unwrap_or(0);
        out.restarts += count;
        if latest(out.restarted, finished(container)) {
            out.restarted = finished(container);
        }
        if sidecar {
            sidecar_restarts += count;
            if latest(sidecar_restarted, finished(container)) {
                sidecar_restarted = finished(container);
            }
        }
        let state = at(container, "state");
        let terminated = at(state, "terminated");
        if !terminated.is_null() && int(terminated, "exitCode").unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && flag(container, "started") {
            if flag(container, "ready") {
                out.ready += 1;
            }
            continue;
        }
        let waiting = text(at(state, "waiting"), "reason");
        out.state = if !terminated.is_null() {
            ending(terminated, "Init:")
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", inits.len())
        };
        initializing = true;
        break;
    }
    let initialized = condition(status, "Initialized").is_some_and(|c| text(c, "status") == "True");
    if !initializing || initialized {
        out.restarts = sidecar_restarts;
        out.restarted = sidecar_restarted;
        let mut running = false;
        for container in list(status, "containerStatuses").iter().rev() {
            out.restarts += int(container, "restartCount").unwrap_or(0);
            if latest(out.restarted, finished(container)) {
                out.restarted = finished(container);
            }
            let state = at(container, "state");
            let (waiting, terminated) = (at(state, "waiting"), at(state, "terminated"));
            if !text(waiting, "reason").is_empty() {
                out.state = text(waiting, "reason").to_owned();
            } else if !terminated.is_null() {
                out.state = ending(terminated, "");
            } else if flag(container, "ready") && has(state, "running") {
                running = true;
                out.ready += 1;
            }
        }
        if out.state == "Completed" && running {
            let ready = condition(status, "Ready").is_some_and(|c| text(c, "status") == "True");
            out.state = if ready { "Running" } else { "NotReady" }.into();
        }
    }
    if has(metadata(o), "deletionTimestamp") {
        if reason == "NodeLost" {
            out.state = "Unknown".into();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            out.state = "Terminating".into();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(status: Value, deleted: bool) -> (String, String) {
        let mut pod = json!({
            "metadata": {"name": "x"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
            "status": status,
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
        }
        let row = super::pod(&pod, Timestamp::UNIX_EPOCH);
        let cell = |i: usize| row[i].as_str().unwrap_or("").to_owned();
        (cell(1), cell(2))
    }

    #[test]
    fn one_word_for_all_containers() {
        let running = json!([{"name": "c", "ready": true, "state": {"running": {}}}]);
        for (status, deleted, ready, word) in [
            (json!({"phase": "Pending"}), false, "0/1", "Pending"),
            (
                json!({"phase": "Running", "containerStatuses": running}),
                false,
                "1/1",
                "Running",
            ),
            (
                json!({"phase": "Running", "containerStatuses": running}),
                true,
                "1/1",
                "Terminating",
            ),
            (json!({"phase": "Succeeded"}), true, "0/1", "Succeeded"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "state": {"running": {}}}]}),
                false,
                "0/1",
                "Init:0/1",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
                false,
                "0/1",
                "Init:ExitCode:3",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [
                    {"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                false,
                "0/1",
                "CrashLoopBackOff",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [
                    {"name": "c", "state": {"terminated": {"exitCode": 1, "signal": 9}}}]}),
                false,
                "0/1",
                "Signal:9",
            ),
        ] {
            assert_eq!(state(status, deleted), (ready.into(), word.into()));
        }
    }
}
