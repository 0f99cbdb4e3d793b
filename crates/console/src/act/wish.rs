//! Wishes for single instances: written into the Group's spec, as the user; the hub grants them as far as
//! the Group's budget goes.

use std::collections::BTreeSet;

use gantry_api::Group;
use gantry_hub::group::{
    moves::{self, Asked},
    wishes::{Verb, wished},
};
use jiff::Timestamp;
use kube::{Api, ResourceExt, api::Patch};
use serde_json::{Value, json};

use super::patching;
use crate::{app::Cx, error::Fail};

/// Tries against other writers of the Group.
const TRIES: usize = 5;

/// What is asked for instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Of each where it is.
    Here(Verb),
    /// To be in another cell.
    MoveTo(String),
}

impl Wish {
    /// From the fields of a form; `None` for a verb that there is not. Where no cell is named yet, it is empty.
    pub fn read(verb: &str, to: &str) -> Option<Self> {
        match verb {
            "move" => Some(Self::MoveTo(to.to_owned())),
            verb => Verb::named(verb).map(Self::Here),
        }
    }

    /// Its verb in URLs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Here(verb) => verb.name(),
            Self::MoveTo(_) => "move",
        }
    }

    /// What of a Group's spec it changes.
    ///
    /// # Errors
    /// Why it cannot be.
    fn spec(&self, group: &Group, names: &[String], by: &str, why: &str) -> Result<Value, Fail> {
        let now = Timestamp::now();
        match self {
            Self::Here(verb) => {
                let all = wished(&group.spec.instances, names, *verb, (by, why), now);
                Ok(json!({"instances": all}))
            }
            Self::MoveTo(to) => {
                let asked = Asked {
                    names,
                    to: Some(to),
                    reason: why,
                    by,
                    now,
                };
                let change = moves::change(group, asked).map_err(Fail::Bad)?;
                Ok(
                    json!({"replicas": change.replicas, "instances": change.instances,
                    "placement": {"cells": change.cells}}),
                )
            }
        }
    }
}

/// Takes a wish down.
///
/// # Errors
/// If one of them is no instance of the Group, or the hub refuses it.
pub async fn take(
    cx: &Cx,
    group: &Group,
    names: &[String],
    wish: &Wish,
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
        let patch = json!({
            "metadata": {"resourceVersion": group.resource_version()},
            "spec": wish.spec(&group, names, cx.session.name(), reason)?,
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
        wish.name(),
        &format!("{} of group {tenant}/{name}", names.join(", ")),
        &end,
    );
    end
}
