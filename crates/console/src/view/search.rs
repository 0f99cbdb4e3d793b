//! The palette's search: pages, Groups, Apps, releases, nodes by a few letters.

use serde::Serialize;

use super::{matches, words};
use crate::{access::Sight, model::State};

/// Something found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// `group`, `release`, `app`, `node`.
    pub kind: &'static str,
    /// What it is called.
    pub title: String,
    /// Where it is.
    pub place: String,
    /// Its page.
    pub href: String,
}

/// The first hits, best kinds first.
pub fn search(state: &State, sight: &Sight, text: &str, most: usize) -> Vec<Hit> {
    let q = words(text);
    if q.is_empty() {
        return Vec::new();
    }
    let mut hits = Vec::new();
    for (key, group) in &state.groups {
        if hits.len() >= most {
            return hits;
        }
        if sight.groups.see(&key.0) && matches(&q, &[&key.1, &key.0, &group.spec.app]) {
            hits.push(Hit {
                kind: "group",
                title: key.1.clone(),
                place: key.0.clone(),
                href: format!("/groups/{}/{}", key.0, key.1),
            });
        }
    }
    for key in &state.running {
        if hits.len() >= most {
            return hits;
        }
        if sight.releases.see(&key.0) && matches(&q, &[&key.1, &key.0]) {
            hits.push(Hit {
                kind: "release",
                title: key.1.clone(),
                place: key.0.clone(),
                href: format!("/releases/{}/{}", key.0, key.1),
            });
        }
    }
    if sight.nodes {
        for (cluster, member) in &state.members {
            for name in member.nodes.keys().filter(|n| matches(&q, &[n, cluster])) {
                if hits.len() >= most {
                    return hits;
                }
                hits.push(Hit {
                    kind: "node",
                    title: name.clone(),
                    place: cluster.clone(),
                    href: format!("/nodes/{cluster}/{name}"),
                });
            }
        }
    }
    hits
}
