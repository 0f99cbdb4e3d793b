//! APIServices of what this server serves itself: of built-in groups, made at the start, and of
//! custom ones, kept as long as they are served.

use std::sync::Arc;

use futures::future::join_all;
use gantry_machinery::status::Failure;
use serde_json::{Value, json};

use super::{
    GROUP, PLURAL,
    state::{AUTOMANAGED, Known, Priority},
};
use crate::{
    api::Api,
    bootstrap,
    registry::Registry,
    rest::{
        create::{self, Ownership},
        delete,
        update::{self, Change, Track},
    },
};

/// Of built-in groups: written at the start, left alone afterwards.
const AT_START: &str = "onstart";
/// Of custom ones: always kept as they have to be.
const ALWAYS: &str = "true";

/// Where custom groups stand.
const CUSTOM: Priority = Priority {
    group: 1000,
    version: 100,
};

/// Where built-in groups stand, in hundreds from the last to the first.
const BUILT_IN: [(&str, &str, i64, i64); 22] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("autoscaling", "v1", 17_500, 15),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 20),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    // The aggregator's own group comes first; it has no APIService.
    (GROUP, "v1", 20_000, 100),
];

/// Where a group version stands by itself.
pub fn priority(group: &str, version: &str) -> Priority {
    let found = BUILT_IN.iter().find(|b| (b.0, b.1) == (group, version));
    found.map_or(CUSTOM, |(_, _, group, version)| Priority {
        group: *group,
        version: *version,
    })
}

/// What an APIService is to say, and how it is kept.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    spec: Value,
    kept: &'static str,
}

fn wanted(registry: &Registry) -> Vec<(String, Wanted)> {
    let versions = registry.groups.iter().flat_map(|g| {
        let own = g.name == GROUP;
        g.versions
            .iter()
            .filter(move |_| !own)
            .map(|(v, entries)| (g.name.as_str(), v.as_str(), entries))
    });
    versions
        .map(|(group, version, entries)| {
            let custom = entries.iter().any(|e| e.resource.custom.is_some());
            let Priority {
                group: first,
                version: second,
            } = priority(group, version);
            let mut spec = json!({
                "version": version, "groupPriorityMinimum": first, "versionPriority": second,
            });
            if !group.is_empty() {
                spec["group"] = group.into();
            }
            let kept = if custom { ALWAYS } else { AT_START };
            (format!("{version}.{group}"), Wanted { spec, kept })
        })
        .collect()
}

#[derive(Debug, PartialEq)]
enum Step {
    Create,
    Update,
    Delete,
}

/// What is to be done about one APIService, as it is there (its label and spec) and as it is wanted.
/// What somebody else has made is left alone.
fn step(there: Option<(&str, &Value)>, wanted: Option<&Wanted>, starting: bool) -> Option<Step> {
    let syncs = |label: &str| label == ALWAYS || label == AT_START && starting;
    match (there, wanted) {
        (None, Some(wanted)) => syncs(wanted.kept).then_some(Step::Create),
        (Some((label, spec)), Some(wanted)) => {
            (syncs(label) && *spec != wanted.spec).then_some(Step::Update)
        }
        (Some((label, _)), None) => syncs(label).then_some(Step::Delete),
        (None, None) => None,
    }
}

/// Brings the APIServices in step with what is served.
pub async fn settle(api: &Arc<Api>, starting: bool) -> Result<(), Failure> {
    let registry = api.registry.read().clone();
    let state = api.aggregator.state();
    let all = wanted(&registry);
    let gone = state
        .all()
        .filter(|k| all.iter().all(|(name, _)| *name != k.name))
        .map(|k| (k.name.clone(), None));
    let all = all.iter().map(|(name, w)| (name.clone(), Some(w)));
    let mut steps = vec![];
    for (name, wanted) in all.chain(gone) {
        let there = state.by_name(&name);
        let there = there.map(|k: &Arc<Known>| (k.automanaged.as_str(), &k.spec));
        if let Some(step) = step(there, wanted, starting) {
            steps.push(carry_out(api, name, wanted, step));
        }
    }
    // At once: the store commits them together.
    for outcome in join_all(steps).await {
        match outcome {
            Err(failure) if !matches!(failure.code, 404 | 409) => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

async fn carry_out(
    api: &Arc<Api>,
    name: String,
    wanted: Option<&Wanted>,
    step: Step,
) -> Result<(), Failure> {
    let Some(mut cx) = bootstrap::own(api, GROUP, "v1", PLURAL, "") else {
        return Ok(());
    };
    cx.target.name.clone_from(&name);
    match (step, wanted) {
        (Step::Create, Some(wanted)) => {
            let object = json!({
                "metadata": {"name": name, "labels": {AUTOMANAGED: wanted.kept}},
                "spec": wanted.spec,
            });
            create::object_of(&mut cx, object, Ownership::Update).await?;
        }
        (Step::Update, Some(wanted)) => {
            let change = Change {
                subresource: String::new(),
                track: Track::Update,
                given: None,
                retries: 16,
            };
            update::modify(&mut cx, change, |_, old| {
                let mut new = old.clone();
                new["spec"] = wanted.spec.clone();
                Ok(new)
            })
            .await?;
        }
        (Step::Delete, _) => {
            delete::one(&mut cx, &name, &delete::Options::default()).await?;
        }
        (_, None) => {}
    }
    Ok(())
}

/// Keeps the APIServices of custom groups until the server stops.
pub async fn run(api: Arc<Api>) {
    loop {
        tokio::select! {
            () = api.aggregator.registered.notified() => {}
            () = api.stop.cancelled() => return,
        }
        if let Err(failure) = settle(&api, false).await {
            tracing::warn!(%failure, "APIServices of what is served here");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_made_is_left_alone() {
        let spec = json!({"version": "v1"});
        let other = json!({"version": "v2"});
        let custom = Wanted {
            spec: spec.clone(),
            kept: ALWAYS,
        };
        let built_in = Wanted {
            spec: spec.clone(),
            kept: AT_START,
        };
        let cases = [
            // (label and spec there, wanted, starting, what is done)
            (None, Some(&custom), false, Some(Step::Create)),
            (None, Some(&built_in), true, Some(Step::Create)),
            (None, Some(&built_in), false, None),
            (Some(("", &other)), Some(&custom), true, None),
            (Some((ALWAYS, &spec)), Some(&custom), false, None),
            (
                Some((ALWAYS, &other)),
                Some(&custom),
                false,
                Some(Step::Update),
            ),
            (
                Some((AT_START, &other)),
                Some(&built_in),
                true,
                Some(Step::Update),
            ),
            (Some((AT_START, &other)), Some(&built_in), false, None),
            (Some((ALWAYS, &spec)), None, false, Some(Step::Delete)),
            (Some((AT_START, &spec)), None, true, Some(Step::Delete)),
            (Some(("", &spec)), None, true, None),
        ];
        for (there, wanted, starting, expected) in cases {
            assert_eq!(
                step(there, wanted, starting),
                expected,
                "{there:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn every_built_in_group_has_its_place() {
        let registry = Registry::new(vec![], 0);
        let all = wanted(&registry);
        for (name, wanted) in &all {
            assert_ne!(wanted.spec["groupPriorityMinimum"], 1000, "{name}");
            assert_eq!(wanted.kept, AT_START);
        }
        assert!(all.iter().any(|(name, _)| name == "v1."));
        assert!(
            all.iter()
                .all(|(name, _)| name != "v1.apiregistration.k8s.io")
        );
    }
}
