//! The buttons of a release: what pressing one writes into its spec, and what that does in words. Pure;
//! command line and console press the same ones.

use gantry_api::{
    Phase, Release,
    gate::{Gate, GateState, Verdict},
    release::{BatchState, BatchStatus},
};
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::{Value, json};

/// A button that takes no more than a press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// What is under way is finished, then it stands still.
    Pause,
    /// On: after a pause, past the bastion, past a batch.
    Continue,
    /// Failed instances and gates once more.
    Retry,
    /// It ends here.
    Abort,
    /// Every touched instance goes back.
    Rollback,
}

/// The patch of the spec that the button makes, and what it does in words; an error where it would
/// do nothing now.
pub fn patch(release: &Release, button: Button) -> Result<(Value, String), String> {
    let status = release.status.clone().unwrap_or_default();
    let phase = status.phase;
    let ended = |what: &str| Err(format!("it has ended ({}): {what}", phase.as_str()));
    match button {
        Button::Rollback if matches!(phase, Phase::Succeeded) => {
            ended("release the old revision again with `gantry release start GROUP --to NUMBER`")
        }
        Button::Rollback if matches!(phase, Phase::RolledBack | Phase::Failed) => {
            ended("there is nothing to take back")
        }
        Button::Rollback => Ok((
            json!({"rollback": true}),
            "every touched instance is taken back to where it came from".into(),
        )),
        _ if phase.is_final() => ended("its buttons do nothing any more"),
        Button::Pause if release.spec.paused => Err("it is paused already".into()),
        Button::Pause => Ok((
            json!({"paused": true}),
            "what is under way is finished, then it stands still".into(),
        )),
        Button::Abort => Ok((
            json!({"abort": true}),
            "it ends here; every instance stays as it is".into(),
        )),
        Button::Retry => match rejected(release) {
            Some(why) => Err(why),
            None => Ok((
                json!({"retry": release.spec.retry + 1}),
                "failed instances are tried again".into(),
            )),
        },
        Button::Continue if release.spec.paused => {
            Ok((json!({"paused": false}), "it goes on".into()))
        }
        Button::Continue if status.halt.is_some() => Err(format!(
            "it stopped because of failures ({}): retry, rollback or abort it",
            status.message
        )),
        Button::Continue => match waits_after(release) {
            Some(0) => Ok((
                json!({"acceptedThrough": 0}),
                "the bastion is accepted; the batches follow".into(),
            )),
            Some(n) => Ok((
                json!({"acceptedThrough": n}),
                format!("batch {n} is accepted; the next follows"),
            )),
            None => Err(format!("it waits for nobody ({})", phase.as_str())),
        },
    }
}

/// What to do about a rejection, where one has halted the release: asking again changes nothing.
fn rejected(release: &Release) -> Option<String> {
    let status = release.status.as_ref()?;
    status.halt.as_ref()?;
    let gates = status.gates.iter();
    let overridden = |name: &str| {
        let emergency = release.spec.emergency.as_ref();
        emergency.is_some_and(|e| e.overrides(name))
    };
    let mut failed = gates.filter(|g| g.state == GateState::Failed && !overridden(&g.name));
    let (gate, no) = failed.find_map(|gate| {
        let mut said = release.spec.approvals.iter();
        let meant = |v: &&Verdict| {
            v.reject && v.gate == gate.name && v.batch.is_none_or(|b| b == gate.batch)
        };
        Some((gate, said.find(meant)?))
    })?;
    let name = release.metadata.name.as_deref().unwrap_or_default();
    Some(format!(
        "{} has rejected it at gate {}, and a rejection stands: `gantry release rollback {name}`, or, \
         on the record, `gantry release emergency {name} --reason … --gate {}`",
        no.by, gate.name, gate.name
    ))
}

/// After which batch (0: the bastion) the release waits to be let on.
pub fn waits_after(release: &Release) -> Option<i32> {
    let status = release.status.as_ref()?;
    let ready = status
        .batches
        .iter()
        .filter(|b| {
            matches!(
                b.state,
                BatchState::Done | BatchState::Ready | BatchState::Skipped
            )
        })
        .map(|b| b.index)
        .max()?;
    let accepted = release.spec.accepted_through.unwrap_or(-1);
    (status.waiting_since.is_some() && ready > accepted).then_some(ready)
}

/// The batch that runs or has stopped the release.
pub fn under_way(release: &Release) -> Option<i32> {
    use BatchState::{Failed, Ready, Running};
    let batches = &release.status.as_ref()?.batches;
    let state = |b: &&BatchStatus| matches!(b.state, Failed | Ready | Running);
    batches.iter().find(state).map(|b| b.index)
}

/// The gate that is meant, and after which batch it waits.
pub fn asked(release: &Release, name: Option<&str>) -> Result<(Gate, Option<i32>), String> {
    let status = release.status.clone().unwrap_or_default();
    let plan = status.plan.ok_or("it has not begun")?;
    let waits = |gate: &Gate| {
        status
            .gates
            .iter()
            .find(|s| s.name == gate.name && s.state == GateState::Running)
            .map(|s| s.batch)
    };
    let mut gates = plan
        .strategy
        .gates
        .into_iter()
        .filter(|g| g.approval.is_some());
    let found = match name {
        Some(name) => gates.find(|g| g.name == name),
        None => gates.find(|g| waits(g).is_some()),
    };
    let gate = found.ok_or(match name {
        Some(name) => format!("it has no gate {name} that asks for approval"),
        None => "no gate waits for approval now".to_owned(),
    })?;
    let after = waits(&gate);
    Ok((gate, after))
}

/// What the user says, with those of their groups that matter to the gate.
pub fn verdict(
    gate: &Gate,
    batch: Option<i32>,
    user: &UserInfo,
    reject: bool,
    note: &str,
) -> Verdict {
    let wanted = gate.approval.as_ref().map(|a| a.groups.clone());
    let mut groups = user.groups.clone().unwrap_or_default();
    groups.retain(|g| wanted.as_ref().is_some_and(|w| w.contains(g)));
    Verdict {
        gate: gate.name.clone(),
        batch,
        by: user.username.clone().unwrap_or_default(),
        groups,
        reject,
        note: note.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(spec: Value, status: Value) -> Release {
        let mut spec = spec;
        spec["group"] = json!("cart-prod");
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": {"name": "r"},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn buttons_by_where_the_release_stands() {
        let bastion = json!({"phase": "Gate", "waitingSince": "2026-11-21T08:00:00Z",
            "batches": [{"index": 0, "state": "Ready"}, {"index": 1, "state": "Waiting"}]});
        let second = json!({"phase": "Gate", "waitingSince": "2026-11-21T08:00:00Z",
            "batches": [{"index": 0, "state": "Done"}, {"index": 1, "state": "Done"}, {"index": 2, "state": "Waiting"}]});
        let cases = [
            (
                json!({}),
                bastion,
                Button::Continue,
                Ok(json!({"acceptedThrough": 0})),
            ),
            (
                json!({"acceptedThrough": 0}),
                second,
                Button::Continue,
                Ok(json!({"acceptedThrough": 1})),
            ),
            (
                json!({"paused": true}),
                json!({"phase": "Paused"}),
                Button::Continue,
                Ok(json!({"paused": false})),
            ),
            (
                json!({}),
                json!({"phase": "Batch"}),
                Button::Continue,
                Err("it waits for nobody (Batch)"),
            ),
            (
                json!({}),
                json!({"phase": "Batch"}),
                Button::Rollback,
                Ok(json!({"rollback": true})),
            ),
            (
                json!({"retry": 2}),
                json!({"phase": "Paused"}),
                Button::Retry,
                Ok(json!({"retry": 3})),
            ),
            (
                json!({}),
                json!({"phase": "Aborted"}),
                Button::Rollback,
                Ok(json!({"rollback": true})),
            ),
            (
                json!({}),
                json!({"phase": "RolledBack"}),
                Button::Pause,
                Err("it has ended (RolledBack): its buttons do nothing any more"),
            ),
        ];
        for (spec, status, button, expected) in cases {
            let got = patch(&release(spec, status), button).map(|(patch, _)| patch);
            assert_eq!(got, expected.map_err(str::to_owned), "{button:?}");
        }
    }

    #[test]
    fn a_rejection_is_not_asked_again() {
        let status = json!({"phase": "Paused", "gates": [{"name": "owners", "batch": 0, "state": "Failed"}],
            "halt": {"reason": "GateFailed", "message": "rejected", "at": "2026-11-21T08:00:00Z", "batch": 0}});
        let no = json!([{"gate": "owners", "by": "bob", "reject": true}]);
        let retry = |spec: Value| patch(&release(spec, status.clone()), Button::Retry);
        let why = retry(json!({"approvals": no})).unwrap_err();
        assert!(
            why.starts_with("bob has rejected it at gate owners"),
            "{why}"
        );
        assert!(retry(json!({"approvals": []})).is_ok(), "another reason");
        let emergency = json!({"reason": "fire", "by": "erin", "gates": ["*"]});
        assert!(retry(json!({"approvals": no, "emergency": emergency})).is_ok());
    }

    #[test]
    fn the_gate_that_waits_is_the_one_that_is_meant() {
        let release: Release = serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": {"name": "r"},
            "spec": {"group": "cart"},
            "status": {
                "plan": {"batches": [], "replicas": 1, "maxOut": 1, "tolerance": 0, "method": "InPlace", "strategy": {"gates": [
                    {"name": "time", "wait": "1m"},
                    {"name": "people", "approval": {"groups": ["sre"]}},
                ]}},
                "gates": [{"name": "people", "batch": 2, "state": "Running"}],
                "batches": [{"index": 0, "state": "Done"}, {"index": 1, "state": "Failed"}],
            },
        }))
        .unwrap();
        assert_eq!(under_way(&release), Some(1));
        let (gate, after) = asked(&release, None).unwrap();
        assert_eq!((gate.name.as_str(), after), ("people", Some(2)));
        assert!(asked(&release, Some("time")).is_err());
        let user = UserInfo {
            username: Some("carol".into()),
            groups: Some(vec!["sre".into(), "system:authenticated".into()]),
            ..UserInfo::default()
        };
        let said = verdict(&gate, after, &user, false, "");
        assert_eq!(
            (said.by.as_str(), said.groups),
            ("carol", vec!["sre".to_owned()])
        );
    }
}
