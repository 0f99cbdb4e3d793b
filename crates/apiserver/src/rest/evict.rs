//! Eviction: a deletion that respects PodDisruptionBudgets.

use std::sync::Arc;

use bytes::Bytes;
use gantry_machinery::status::{Cause, Details, Failure};
use serde_json::{Map, Value, json};

use super::{
    delete, input, pods,
    update::{self, Change, Track},
};
use crate::{
    admission::{asking::ask, attributes::Operation},
    api::Cx,
    audit, errors, object,
    registry::Entry,
    respond::Reply,
    rules::Labels,
};

pub async fn evict(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    input::options(cx, "CreateOptions")?;
    let mut eviction = input::plain(cx, &body)?;
    input::of_kind(&eviction, "Eviction", &["policy/v1", "policy/v1beta1"])?;
    let name = cx.target.name.clone();
    let given = object::name(&eviction);
    if !given.is_empty() && given != name {
        return Err(errors::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    ask(cx, Operation::Create, "eviction", &mut eviction).await?;
    let mut options = delete::from_value(eviction.get("deleteOptions").unwrap_or(&Value::Null));
    options.asked = true;
    if object::strings(eviction.pointer("/deleteOptions/dryRun"))
        .iter()
        .any(|d| d == "All")
    {
        cx.query.add("dryRun", "All");
    }
    let stored = cx
        .store()
        .get(&cx.key(&name))
        .ok_or_else(|| cx.not_found())?;
    let pod = object::parse(&stored.value)?;
    crate::admission::eviction(cx, &pod)?;
    if !ignores_budgets(&pod) {
        let budgets = budgets_of(cx, &pod);
        match budgets.as_slice() {
            [] => {}
            [budget] => charge(cx, budget, &pod).await?,
            _ => {
                return Err(errors::plain_internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        }
    }
    note(cx).await?;
    delete::one(cx, &name, &options).await?;
    pods::success(cx)
}

/// Says in the pod's conditions why it goes: whoever watches sees it, and finalizers may keep it for long.
async fn note(cx: &mut Cx) -> Result<(), Failure> {
    let now = object::time(cx.now);
    let change = Change {
        subresource: "status".to_owned(),
        track: Track::Nobody,
        given: None,
        retries: 16,
    };
    update::modify(cx, change, |_, old| {
        let mut new = old.clone();
        if object::deleting(old) {
            return Ok(new);
        }
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": now, "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        });
        let status = &mut new["status"];
        if !status["conditions"].is_array() {
            status["conditions"] = json!([]);
        }
        if let Some(conditions) = status["conditions"].as_array_mut() {
            conditions.retain(|c| object::text(c, "/type") != "DisruptionTarget");
            conditions.push(condition);
        }
        Ok(new)
    })
    .await?;
    Ok(())
}

/// Pods that serve nobody (finished, waiting, or going anyway) do not count for a budget.
fn ignores_budgets(pod: &Value) -> bool {
    matches!(
        object::text(pod, "/status/phase"),
        "Succeeded" | "Failed" | "Pending"
    ) || object::deleting(pod)
}

fn ready(pod: &Value) -> bool {
    pod.pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| object::text(c, "/type") == "Ready" && object::text(c, "/status") == "True")
}

fn budgets(cx: &Cx) -> Option<Arc<Entry>> {
    let registry = cx.api.registry.read();
    registry
        .lookup("policy", "v1", "poddisruptionbudgets")
        .cloned()
}

/// Names of the budgets whose selectors match the pod.
fn budgets_of(cx: &Cx, pod: &Value) -> Vec<String> {
    let Some(entry) = budgets(cx) else {
        return vec![];
    };
    let prefix = format!("{}/", cx.target.namespace);
    let labels = object::meta(pod).and_then(|m| m.get("labels"));
    cx.store()
        .snapshot(&entry.bucket)
        .range(&prefix, None)
        .filter_map(|s| serde_json::from_slice::<Value>(&s.value).ok())
        .filter(|budget| {
            let selector = budget.pointer("/spec/selector");
            selector.is_some_and(|s| {
                Labels::from_label_selector(s).is_ok_and(|l| {
                    l.matches(|k| labels.and_then(|m| m.get(k)).and_then(Value::as_str))
                })
            })
        })
        .map(|b| object::name(&b).to_owned())
        .collect()
}

fn refused(cause: Option<String>) -> Failure {
    let causes = cause.map(|message| Cause {
        reason: "DisruptionBudget".to_owned(),
        message,
        field: String::new(),
    });
    Failure::new(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    )
    .with_details(Details {
        causes: causes.into_iter().collect(),
        ..Details::default()
    })
}

/// Evictions that the budget's controller has not yet taken notice of, at most.
const MOST_DISRUPTED: usize = 2000;

/// A budget of which nothing can be taken.
fn unfit(budget: &str, why: &str) -> Failure {
    Failure::new(
        403,
        "Forbidden",
        format!("poddisruptionbudget.policy {budget:?} is forbidden: {why}"),
    )
    .with_details(Details {
        name: budget.to_owned(),
        group: "policy".to_owned(),
        kind: "poddisruptionbudget".to_owned(),
        ..Details::default()
    })
}

/// Why a budget allows no disruption.
fn no_room(name: &str, budget: &Value) -> String {
    let number = |field: &str| {
        let at = format!("/status/{field}");
        budget.pointer(&at).and_then(Value::as_i64).unwrap_or(0)
    };
    let conditions = budget
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let failed = conditions.into_iter().flatten().find(|c| {
        object::text(c, "/type") == "DisruptionAllowed"
            && object::text(c, "/status") == "False"
            && object::text(c, "/reason") == "SyncFailed"
    });
    match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            object::text(condition, "/message")
        ),
        None => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        ),
    }
}

/// Takes one disruption from the budget, or refuses.
async fn charge(cx: &mut Cx, budget: &str, pod: &Value) -> Result<(), Failure> {
    let Some(entry) = budgets(cx) else {
        return Ok(());
    };
    let name = object::name(pod).to_owned();
    let unready = !ready(pod);
    let now = object::time(cx.now);
    let mut inner = cx.about(entry, budget);
    let mut spared = false;
    let change = Change {
        subresource: "status".to_owned(),
        track: Track::Server,
        given: None,
        retries: 32,
    };
    update::modify(&mut inner, change, |_, old| {
        let number = |f: &str| {
            old.pointer(&format!("/status/{f}"))
                .and_then(Value::as_i64)
                .unwrap_or(0)
        };
        let always = object::text(old, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if unready
            && (always
                || number("currentHealthy") >= number("desiredHealthy")
                    && number("desiredHealthy") > 0)
        {
            spared = true;
            return Ok(old.clone());
        }
        let generation = object::meta(old)
            .and_then(|m| m.get("generation"))
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if number("observedGeneration") < generation {
            let mut failure = refused(Some(format!(
                "The disruption budget {budget} is still being processed by the server."
            )));
            if let Some(details) = failure.details.as_mut() {
                details.retry_after_seconds = 10;
            }
            return Err(failure);
        }
        let left = number("disruptionsAllowed");
        let disrupted = old.pointer("/status/disruptedPods");
        let disrupted = disrupted.and_then(Value::as_object).map_or(0, Map::len);
        if left < 0 {
            return Err(unfit(budget, "pdb disruptions allowed is negative"));
        }
        if disrupted > MOST_DISRUPTED {
            return Err(unfit(
                budget,
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            ));
        }
        if left == 0 {
            return Err(refused(Some(no_room(budget, old))));
        }
        let mut new = old.clone();
        let status = &mut new["status"];
        status["disruptionsAllowed"] = (left - 1).into();
        if !status["disruptedPods"].is_object() {
            status["disruptedPods"] = json!({});
        }
        status["disruptedPods"][&name] = now.clone().into();
        let condition = json!({
            "type": "DisruptionAllowed",
            "status": if left > 1 { "True" } else { "False" },
            "observedGeneration": number("observedGeneration"),
            "lastTransitionTime": now,
            "reason": if left > 1 { "SufficientPods" } else { "InsufficientPods" },
            "message": "",
        });
        if !status["conditions"].is_array() {
            status["conditions"] = json!([]);
        }
        if let Some(conditions) = status["conditions"].as_array_mut() {
            match conditions
                .iter_mut()
                .find(|c| object::text(c, "/type") == "DisruptionAllowed")
            {
                Some(there) => {
                    if there["status"] != condition["status"] {
                        *there = condition;
                    }
                }
                None => conditions.push(condition),
            }
        }
        Ok(new)
    })
    .await?;
    let _ = spared;
    Ok(())
}

impl Cx {
    /// The same request about another object of the namespace, for the server's own writes.
    pub fn about(&self, entry: Arc<Entry>, name: &str) -> Cx {
        let mut target = self.target.clone();
        target.group.clone_from(&entry.resource.group);
        target.version.clone_from(&entry.resource.version);
        target.plural.clone_from(&entry.resource.plural);
        target.name = name.to_owned();
        target.subresource = String::new();
        Cx {
            api: self.api.clone(),
            entry,
            target,
            query: self.query.clone(),
            user: self.user.clone(),
            headers: self.headers.clone(),
            output: self.output,
            now: self.now,
            warnings: vec![],
            notes: audit::Notes::default(),
            own: true,
            pieces: Default::default(),
            conversions: Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_says_why_it_has_no_room() {
        let budget = |conditions: Value| json!({"status": {"desiredHealthy": 2, "currentHealthy": 1, "conditions": conditions}});
        assert_eq!(
            no_room("b", &budget(json!([]))),
            "The disruption budget b needs 2 healthy pods and has 1 currently"
        );
        let failed = json!([{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "two of them"}]);
        assert_eq!(
            no_room("b", &budget(failed)),
            "The disruption budget b does not allow evicting pods currently because it failed sync: two of them"
        );
    }
}
