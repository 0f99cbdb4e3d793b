//! Starting a release and pressing its buttons.

use gantry_api::{Group, Release, ReleaseSpec};
use gantry_hub::release::buttons::{self, Button};
use kube::{
    Api, ResourceExt,
    api::{Patch, PostParams},
};
use serde_json::{Value, json};

use super::{MANAGER, patching};
use crate::{
    app::Cx,
    error::Fail,
    view::{Params, run::Press},
};

/// Writes the release under the first free `GROUP-N`; its name.
///
/// # Errors
/// If nothing changes, or the hub refuses it.
pub async fn start(cx: &Cx, group: &Group, spec: ReleaseSpec) -> Result<String, Fail> {
    let tenant = group.namespace().unwrap_or_default();
    let name = group.name_any();
    if spec.revision.to.is_none() && !spec.revision.has_changes() {
        return Err(Fail::Bad(
            "nothing changes: give another image, environment, file or revision".to_owned(),
        ));
    }
    let key = (tenant.clone(), name.clone());
    let mut number = {
        let state = cx.app.model.read();
        let numbers = state.releases_of(&key).filter_map(|r| {
            r.metadata
                .name
                .as_deref()?
                .strip_prefix(&name)?
                .strip_prefix('-')?
                .parse::<i64>()
                .ok()
        });
        let current = group
            .status
            .as_ref()
            .and_then(|s| s.current.as_ref())
            .map_or(0, |c| c.revision);
        numbers.max().unwrap_or(0).max(current) + 1
    };
    let api: Api<Release> = Api::namespaced(cx.session.client.clone(), &tenant);
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let end = loop {
        let release = Release::new(&format!("{name}-{number}"), spec.clone());
        match api.create(&params, &release).await {
            // Someone else started one at the same time; theirs keeps the name.
            Err(kube::Error::Api(e)) if e.reason == "AlreadyExists" => number += 1,
            other => break other.map(|r| r.name_any()).map_err(Fail::from),
        }
    };
    cx.audit("start release", &format!("{tenant}/{name}"), &end);
    end
}

/// What a button writes now, and what that does in words.
fn patch(
    cx: &Cx,
    release: &Release,
    press: Press,
    form: &Params,
) -> Result<(Value, String), String> {
    let by = cx.session.name();
    let ended = release.status.as_ref().is_some_and(|s| s.phase.is_final());
    let plain = |button| buttons::patch(release, button);
    match press {
        Press::Continue => plain(Button::Continue),
        Press::Pause => plain(Button::Pause),
        Press::Retry => plain(Button::Retry),
        Press::Rollback => plain(Button::Rollback),
        Press::Abort => plain(Button::Abort),
        _ if ended => Err("it has ended: its buttons do nothing any more".to_owned()),
        Press::Skip => {
            let batch = buttons::under_way(release).ok_or("no batch is under way")?;
            let mut skip = release.spec.skip.clone();
            if !skip.contains(&batch) {
                skip.push(batch);
            }
            Ok((
                json!({"skip": skip}),
                format!("batch {batch} is no longer waited for"),
            ))
        }
        Press::Approve => {
            let (gate, after) = buttons::asked(release, None)?;
            let reject = form.get("verdict") == "no";
            let verdict =
                buttons::verdict(&gate, after, &cx.session.user, reject, form.get("note"));
            let mut approvals = release.spec.approvals.clone();
            if approvals.contains(&verdict) {
                return Err(format!("{by} has said so already"));
            }
            approvals.push(verdict);
            let word = if reject { "rejects" } else { "approves" };
            Ok((
                json!({"approvals": approvals}),
                format!("{by} {word} gate {}", gate.name),
            ))
        }
        Press::Emergency => {
            let reason = form.get("reason");
            if reason.is_empty() {
                return Err("an emergency needs a reason".to_owned());
            }
            let gates: Vec<&str> = form.all("gates").filter(|g| !g.is_empty()).collect();
            let emergency = json!({"reason": reason, "by": by, "gates": gates});
            Ok((
                json!({"emergency": emergency}),
                "it goes on in spite of freezes and windows; that is recorded".to_owned(),
            ))
        }
    }
}

/// Presses a button; what that does in words.
///
/// # Errors
/// If it would do nothing, or the hub refuses it.
pub async fn press(
    cx: &Cx,
    tenant: &str,
    name: &str,
    press: Press,
    form: &Params,
) -> Result<String, Fail> {
    let api: Api<Release> = Api::namespaced(cx.session.client.clone(), tenant);
    let end = async {
        for _ in 0..10 {
            let release = api.get(name).await?;
            let (spec, words) = patch(cx, &release, press, form).map_err(Fail::Conflict)?;
            let body =
                json!({"metadata": {"resourceVersion": release.resource_version()}, "spec": spec});
            match api.patch(name, &patching(), &Patch::Merge(body)).await {
                // Its status moves all the time; what counts is that the button still means the same.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map(|_| words).map_err(Fail::from),
            }
        }
        Err(Fail::Conflict(
            "the release changes faster than the button can be pressed; try again".to_owned(),
        ))
    };
    let end = end.await;
    cx.audit(press.name(), &format!("release {tenant}/{name}"), &end);
    end
}
