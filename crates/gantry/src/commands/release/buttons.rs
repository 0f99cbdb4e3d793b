//! The buttons of a release: each is a field of its spec, set by a patch.

use gantry_api::release::BatchState;
use gantry_api::{Phase, Release};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::connect::failed;
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    Pause,
    Continue,
    Retry,
    Abort,
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
        Button::Retry => Ok((
            json!({"retry": release.spec.retry + 1}),
            "failed instances are tried again".into(),
        )),
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

/// After which batch (0: the bastion) the release waits to be let on.
fn waits_after(release: &Release) -> Option<i32> {
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

/// Presses a button and says what that does.
pub async fn press(client: &Client, release: Release, button: Button) -> Result<Release> {
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    let (spec, words) = patch(&release, button).map_err(|reason| {
        Failure::new(
            Exit::Failure,
            format!("release {namespace}/{name}: {reason}"),
        )
    })?;
    let api: Api<Release> = Api::namespaced(client.clone(), &namespace);
    // With the version read: a button pressed on an old picture is refused, not carried out.
    let body = json!({"metadata": {"resourceVersion": release.resource_version()}, "spec": spec});
    let pressed = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(body))
        .await;
    let pressed = match pressed {
        // Its status moves all the time; what counts is that the button still means the same.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let now = api
                .get(&name)
                .await
                .map_err(|e| failed(&format!("cannot get the release {namespace}/{name}"), e))?;
            return Box::pin(press(client, now, button)).await;
        }
        other => other
            .map_err(|e| failed(&format!("cannot change the release {namespace}/{name}"), e))?,
    };
    println(format!("release {namespace}/{name}: {words}"))?;
    Ok(pressed)
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
}
