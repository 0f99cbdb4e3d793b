//! What is served, by whomever, in the order of discovery: groups by their priority, then by name;
//! versions of a group by theirs, then the newer and stabler first.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    aggregate::{
        register,
        state::{Priority, Remote, State},
    },
    registry::{Entry, Registry, version_order},
};

/// Whose a group version is.
pub enum Owner<'a> {
    Here(&'a [Arc<Entry>]),
    Elsewhere(&'a Remote),
}

/// A group with its versions, preferred first.
pub struct Group<'a> {
    pub name: &'a str,
    pub versions: Vec<(&'a str, Owner<'a>)>,
}

fn priority(state: &State, group: &str, version: &str) -> Priority {
    match state.by_name(&format!("{version}.{group}")) {
        Some(known) => known.priority,
        None => register::priority(group, version),
    }
}

/// All groups. What is served here and by another server too is the other's.
pub fn groups<'a>(registry: &'a Registry, state: &'a State) -> Vec<Group<'a>> {
    let mut all: Vec<Group<'a>> = registry
        .groups
        .iter()
        .map(|g| {
            let mine = |v: &str| state.elsewhere(&format!("{}/{v}", g.name)).is_none();
            let versions = g.versions.iter().filter(|(v, _)| mine(v));
            Group {
                name: &g.name,
                versions: versions
                    .map(|(v, entries)| (v.as_str(), Owner::Here(entries)))
                    .collect(),
            }
        })
        .collect();
    for known in state.remotes() {
        let Some(remote) = &known.remote else {
            continue;
        };
        let one = (known.version.as_str(), Owner::Elsewhere(remote));
        match all.iter_mut().find(|g| g.name == known.group) {
            Some(group) => group.versions.push(one),
            None => all.push(Group {
                name: &known.group,
                versions: vec![one],
            }),
        }
    }
    all.retain(|g| !g.versions.is_empty());
    for group in &mut all {
        let name = group.name;
        group.versions.sort_by(|(a, _), (b, _)| {
            let of = |v: &str| priority(state, name, v).version;
            of(b).cmp(&of(a)).then_with(|| version_order(b, a))
        });
    }
    all.sort_by_cached_key(|g| {
        let versions = g
            .versions
            .iter()
            .map(|(v, _)| priority(state, g.name, v).group);
        (Reverse(versions.max()), g.name.to_owned())
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_groups_stand_as_their_priorities_say() {
        let registry = Registry::new(vec![], 0);
        let state = State::default();
        let names: Vec<&str> = groups(&registry, &state).iter().map(|g| g.name).collect();
        let recorded: Vec<&str> = registry.groups.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names[..2], ["apiregistration.k8s.io", ""]);
        let sorted = |mut all: Vec<&str>| {
            all.retain(|n| !matches!(*n, "" | "apiregistration.k8s.io"));
            all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(sorted(names), sorted(recorded));
    }
}
