//! What is where: how an App's environments stand with their revisions, as its status tells.
//!
//! Whether a promotion goes through is decided by the release that makes it (`release::promote`).

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    App, AppStatus, Group,
    promotion::{EnvironmentStatus, PlaceState, PlaceStatus},
};

/// How a Group stands: what of it the status of its App tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Its environment.
    pub environment: String,
    /// The rest.
    pub status: PlaceStatus,
}

/// How `group` stands.
pub fn place(group: &Group) -> Place {
    let empty = gantry_api::GroupStatus::default();
    let status = group.status.as_ref().unwrap_or(&empty);
    let mixed = status
        .conditions
        .iter()
        .any(|c| c.type_ == "Settled" && c.status == "False");
    let state = match (&status.current, &status.target) {
        (None, _) => PlaceState::Unknown,
        (_, Some(_)) => PlaceState::Releasing,
        _ if mixed => PlaceState::Mixed,
        _ => PlaceState::Settled,
    };
    let current = status.current.clone().unwrap_or_default();
    Place {
        environment: group.spec.environment.clone(),
        status: PlaceStatus {
            group: group.metadata.name.clone().unwrap_or_default(),
            revision: (state != PlaceState::Unknown).then_some(current.revision),
            image: current.image,
            release: current.release,
            state,
            under_way: status.target.as_ref().and_then(|t| t.release.clone()),
        },
    }
}

/// The status of `app`, whose Groups stand so.
pub fn status(app: &App, places: Vec<Place>) -> AppStatus {
    let mut by_environment: BTreeMap<String, Vec<PlaceStatus>> = BTreeMap::new();
    for place in places {
        let all = by_environment.entry(place.environment).or_default();
        all.push(place.status);
    }
    let listed = app.spec.environments.len();
    let named = app.spec.environments.iter().map(|e| e.name.clone());
    let mut names: Vec<String> = named.collect();
    let others = by_environment.keys().filter(|e| !names.contains(e));
    names.extend(others.cloned().collect::<Vec<_>>());
    let mut environments: Vec<EnvironmentStatus> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let mut places = by_environment.remove(name).unwrap_or_default();
        places.sort_by(|a, b| a.group.cmp(&b.group));
        let before = index
            .checked_sub(1)
            .filter(|_| index < listed)
            .map(|i| &environments[i]);
        environments.push(environment(name, places, before));
    }
    AppStatus {
        observed_generation: app.metadata.generation,
        summary: summary(&environments[..], listed),
        environments,
    }
}

fn environment(
    name: &str,
    groups: Vec<PlaceStatus>,
    before: Option<&EnvironmentStatus>,
) -> EnvironmentStatus {
    let given: Option<BTreeSet<&str>> = before
        .map(images)
        .filter(|images| !images.is_empty() && !groups.is_empty());
    let behind = given.as_ref().is_some_and(|given| {
        groups
            .iter()
            .any(|g| g.image.is_empty() || !given.contains(g.image.as_str()))
    });
    let releasing: Vec<&str> = groups
        .iter()
        .filter_map(|g| g.under_way.as_deref())
        .collect();
    let mixed: Vec<&str> = groups
        .iter()
        .filter(|g| g.state == PlaceState::Mixed)
        .map(|g| g.group.as_str())
        .collect();
    let mut words = Vec::new();
    if groups.is_empty() {
        words.push("no group".to_owned());
    }
    if !releasing.is_empty() {
        words.push(format!("release {} is under way", releasing.join(", ")));
    }
    if !mixed.is_empty() {
        words.push(format!("{} runs several revisions", mixed.join(", ")));
    }
    if let (true, Some(before), Some(given)) = (behind, before, &given) {
        let settled = before.groups.iter().all(|g| g.state == PlaceState::Settled);
        let given: Vec<String> = given.iter().map(|i| short(i)).collect();
        words.push(if settled {
            format!("{} of {} can be promoted", given.join(", "), before.name)
        } else {
            format!("{} has not settled", before.name)
        });
    }
    EnvironmentStatus {
        name: name.to_owned(),
        behind,
        message: words.join("; "),
        groups,
    }
}

/// The images that an environment's Groups are on.
fn images(environment: &EnvironmentStatus) -> BTreeSet<&str> {
    let known = environment.groups.iter().map(|g| g.image.as_str());
    known.filter(|i| !i.is_empty()).collect()
}

/// An image for a narrow column: its tag, else the beginning of its digest, else its name.
pub fn short(image: &str) -> String {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag.to_owned(),
        (None, Some(digest)) => digest
            .trim_start_matches("sha256:")
            .chars()
            .take(12)
            .collect(),
        (None, None) => last.to_owned(),
    }
}

fn summary(environments: &[EnvironmentStatus], listed: usize) -> String {
    let word = |e: &EnvironmentStatus| {
        let known: BTreeSet<String> = images(e).into_iter().map(short).collect();
        let known: Vec<String> = known.into_iter().collect();
        let image = if known.is_empty() {
            "–".to_owned()
        } else {
            known.join("/")
        };
        let moving = e.groups.iter().any(|g| g.state == PlaceState::Releasing);
        let name = if e.name.is_empty() { "\"\"" } else { &e.name };
        format!("{name} {image}{}", if moving { "…" } else { "" })
    };
    let ordered: Vec<String> = environments.iter().take(listed).map(word).collect();
    let others = environments.iter().skip(listed).map(word);
    Some(ordered.join(" → "))
        .filter(|o| !o.is_empty())
        .into_iter()
        .chain(others)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use gantry_api::{
        AppSpec, GroupSpec, GroupStatus, promotion::Environment, revision::RevisionRef,
    };

    use super::*;

    fn group(name: &str, environment: &str, image: &str, target: Option<&str>) -> Group {
        let mut group = Group::new(
            name,
            GroupSpec {
                environment: environment.into(),
                ..GroupSpec::default()
            },
        );
        group.status = (!image.is_empty()).then(|| GroupStatus {
            current: Some(RevisionRef {
                revision: 3,
                image: image.into(),
                release: None,
            }),
            target: target.map(|release| RevisionRef {
                release: Some(release.into()),
                ..RevisionRef::default()
            }),
            ..GroupStatus::default()
        });
        group
    }

    #[test]
    fn what_is_where() {
        let mut app = App::new("cart", AppSpec::default());
        app.spec.environments = ["dev", "test", "stage", "prod"]
            .map(|name| Environment {
                name: name.into(),
                only_promoted: false,
            })
            .to_vec();
        let groups = [
            group("cart-dev", "dev", "r/cart:3@sha256:c", Some("cart-dev-9")),
            group("cart-test", "test", "r/cart:2@sha256:b", None),
            group("cart-prod-us", "prod", "r/cart:1@sha256:a", None),
            group("cart-prod-eu", "prod", "r/cart:2@sha256:b", None),
            group("cart-lab", "lab", "r/cart@sha256:0123456789abcdef", None),
            group("cart-new", "lab", "", None),
        ];
        let places = || groups.iter().map(place).collect();
        let status = status(&app, places());
        assert_eq!(
            status.summary,
            "dev 3… → test 2 → stage – → prod 1/2, lab 0123456789ab"
        );
        let rows: Vec<(&str, bool, &str)> = status
            .environments
            .iter()
            .map(|e| (e.name.as_str(), e.behind, e.message.as_str()))
            .collect();
        assert_eq!(
            rows,
            [
                ("dev", false, "release cart-dev-9 is under way"),
                ("test", true, "dev has not settled"),
                ("stage", false, "no group"),
                ("prod", false, ""),
                ("lab", false, ""),
            ]
        );
        let mut short = app.clone();
        short.spec.environments.remove(2);
        let status = super::status(&short, places());
        assert_eq!(status.environments[2].message, "2 of test can be promoted");
        let prod: Vec<&str> = status.environments[2]
            .groups
            .iter()
            .map(|g| g.group.as_str())
            .collect();
        assert_eq!(prod, ["cart-prod-eu", "cart-prod-us"]);
    }
}
