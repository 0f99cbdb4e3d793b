//! Wishes for single instances: written into the Group's spec, as the user; the hub grants them as far as
//! the Group's budget goes.

use std::collections::BTreeSet;

use gantry_api::Group;
use gantry_hub::group::wishes::{Verb, wished};
use jiff::Timestamp;
use kube::{Api, ResourceExt, api::Patch};
use serde_json::json;

use super::patching;
use crate::{app::Cx, error::Fail};

/// Tries against other writers of the Group.
const TRIES: usize = 5;

/// Takes a wish down.
///
/// # Errors
/// If one of them is no instance of the Group, or the hub refuses it.
pub async fn take(
    cx: &Cx,
    group: &Group,
    names: &[String],
    verb: Verb,
    reason: &str,
) -> Result<(), Fail> {
    let (tenant, name) = (group.namespace().unwrap_or_default(), group.name_any());
    {
        let state = cx.app.model.read();
        let key = (tenant.clone(), name.clone());
        let there: BTreeSet<&str> = state
            .instances(&key)
            .map(|(_, i)| i.name.as_str())
            .collect();
        if let Some(other) = names.iter().find(|n| !there.contains(n.as_str())) {
            return Err(Fail::Bad(format!("{other} is no instance of {name}")));
        }
    }
    let api: Api<Group> = Api::namespaced(cx.session.client.clone(), &tenant);
    let mut group = group.clone();
    let mut end = Err(Fail::Conflict(name.clone()));
    for _ in 0..TRIES {
        let who = (cx.session.name(), reason);
        let wishes = wished(&group.spec.instances, names, verb, who, Timestamp::now());
        let patch = json!({
            "metadata": {"resourceVersion": group.resource_version()},
            "spec": {"instances": wishes},
        });
        end = api
            .patch(&name, &patching(), &Patch::Merge(patch))
            .await
            .map(|_| ())
            .map_err(Fail::from);
        // Its status moves all the time; what was read last is looked at again.
        if !matches!(end, Err(Fail::Conflict(_))) {
            break;
        }
        group = api.get(&name).await?;
    }
    cx.audit(
        verb.name(),
        &format!("{} of group {tenant}/{name}", names.join(", ")),
        &end,
    );
    end
}
