//! What is looked at of an object.

use std::collections::BTreeMap;

use gantry_api::labels;
use gantry_records::{Object, Via};
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What is looked at of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Which object.
    pub object: Object,
    /// `metadata.generation`.
    pub generation: i64,
    /// Its resource version, which is not part of what is compared.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When its spec was last changed.
    pub changed: Timestamp,
    /// By which program.
    pub via: Via,
    /// `spec`, as JSON.
    pub spec: Value,
    /// Who changed the spec last.
    pub stamp: Option<Stamp>,
    /// What the one who changes it says of the change.
    pub note: String,
    /// What the one who is about to delete it says.
    pub delete_note: Option<String>,
    /// Of a release: where it stands.
    pub run: Option<Value>,
}

/// What the API server has written down of whoever changed the spec last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The user.
    pub by: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// The resource version that was changed; empty for a new object.
    pub from: String,
}

/// Looks at an object. `group` names the Group that it is about, `run` is its [`Observed::run`].
pub fn observe<K>(object: &K, spec: &impl Serialize, group: &str, run: Option<Value>) -> Observed
where
    K: Resource<DynamicType = ()>,
{
    let meta = object.meta();
    let created = meta
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    // Each entry is a manager's last write; the status is none of our business.
    let writes = meta.managed_fields.iter().flatten();
    let last = writes
        .filter(|f| f.subresource.as_deref().is_none_or(|s| s != "status"))
        .max_by_key(|f| f.time.as_ref().map(|t| t.0));
    let generation = meta.generation.unwrap_or(1);
    let changed = last
        .and_then(|f| f.time.as_ref())
        .map_or(created, |t| t.0)
        .max(created);
    let via = last
        .and_then(|f| f.manager.as_deref())
        .map_or(Via::Other, via);
    let empty = BTreeMap::new();
    let annotations = meta.annotations.as_ref().unwrap_or(&empty);
    let text = |key: &str| annotations.get(key).cloned();
    let by = text(labels::CHANGED_BY).filter(|by| !by.is_empty());
    let stamp = by.map(|by| Stamp {
        by,
        groups: text(labels::CHANGED_BY_GROUPS)
            .unwrap_or_default()
            .split(',')
            .filter(|g| !g.is_empty())
            .map(str::to_owned)
            .collect(),
        from: text(labels::CHANGED_FROM).unwrap_or_default(),
    });
    let name = object.name_any();
    Observed {
        object: Object {
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace().unwrap_or_default(),
            group: if group == name {
                String::new()
            } else {
                group.to_owned()
            },
            uid: meta.uid.clone().unwrap_or_default(),
            name,
        },
        generation,
        version: version(meta.resource_version.as_deref()),
        created,
        changed: if generation <= 1 { created } else { changed },
        via,
        // What has no form in JSON has no fields that matter.
        spec: serde_json::to_value(spec).unwrap_or_default(),
        stamp,
        note: text(labels::CHANGE_NOTE).unwrap_or_default(),
        delete_note: text(labels::DELETE_NOTE),
        run,
    }
}

/// A resource version as the number that it is; of what is none, the newest.
pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|v| v.parse().ok()).unwrap_or(u64::MAX)
}

/// The program behind a field manager, or behind the first word of a user agent.
pub(super) fn via(manager: &str) -> Via {
    match manager {
        labels::FIELD_MANAGER => Via::Hub,
        "gantry-console" => Via::Console,
        manager if manager.starts_with("kubectl") => Via::Kubectl,
        manager if manager.split(['/', '-']).next() == Some("gantry") => Via::Cli,
        _ => Via::Other,
    }
}

impl Observed {
    /// What is kept of it for the next comparison.
    pub(super) fn state(&self, creator: &Value) -> Value {
        let mut state = Map::new();
        state.insert("spec".to_owned(), self.spec.clone());
        state.insert("created".to_owned(), json!(self.created));
        let stamp = self.stamp.as_ref();
        let stamp = stamp.map(|s| json!({"by": s.by, "groups": s.groups, "from": s.from}));
        for (key, value) in [
            ("stamp", stamp),
            ("run", self.run.clone()),
            ("note", (!self.note.is_empty()).then(|| json!(self.note))),
            ("deleteNote", self.delete_note.as_ref().map(|n| json!(n))),
            ("creator", (!creator.is_null()).then(|| creator.clone())),
        ] {
            if let Some(value) = value {
                state.insert(key.to_owned(), value);
            }
        }
        state.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_by_their_field_managers() {
        for (manager, want) in [
            ("gantry-hub", Via::Hub),
            ("gantry-console", Via::Console),
            ("gantry", Via::Cli),
            ("gantry-up", Via::Cli),
            ("kubectl-client-side-apply", Via::Kubectl),
            ("kubectl", Via::Kubectl),
            ("argocd-controller", Via::Other),
            ("unknown", Via::Other),
        ] {
            assert_eq!(via(manager), want, "{manager}");
        }
    }
}
