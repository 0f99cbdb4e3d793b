//! Objects in the versions in which their managers wrote them.
//!
//! A manager's fields stay in the version of its request. What a write changed of them is told by
//! comparing the object before and after in that version; and what an applier left out is taken
//! away in the version in which it was applied.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    ResetFields,
    compare::{Comparison, compare},
    types::Type,
};
use crate::{schema::Schema, status::Failure};

/// The other versions of a kind.
pub trait Versions {
    /// What a version looks like; `None` when the kind has no such version (any more).
    fn typed(&self, api_version: &str) -> Option<(&Schema, &ResetFields)>;

    /// An object, without its managers, in that version.
    ///
    /// # Errors
    /// What the converter says.
    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Failure>;
}

/// A kind as a request sees it.
#[derive(Clone, Copy)]
pub struct Kind<'a> {
    /// Of the version of the request.
    pub schema: &'a Schema,
    pub reset: &'a ResetFields,
    /// `None`: entries of other versions are taken at their word, as if written in this one.
    pub others: Option<&'a dyn Versions>,
}

impl<'a> Kind<'a> {
    /// A kind of one version.
    #[must_use]
    pub fn alone(schema: &'a Schema, reset: &'a ResetFields) -> Self {
        Kind {
            schema,
            reset,
            others: None,
        }
    }
}

/// The versions of a kind in one write. `own` is that of the request.
#[derive(Clone, Copy)]
pub(super) struct Lens<'a> {
    pub kind: Kind<'a>,
    pub own: &'a str,
}

impl<'a> Lens<'a> {
    /// The kind in another version, where it is one to convert to.
    fn other(&self, version: &str) -> Option<(&'a dyn Versions, &'a Schema, &'a ResetFields)> {
        if version == self.own {
            return None;
        }
        let others = self.kind.others?;
        let (schema, reset) = others.typed(version)?;
        Some((others, schema, reset))
    }

    /// Whether fields recorded in a version mean something.
    pub(super) fn knows(&self, version: &str) -> bool {
        version == self.own || self.kind.others.is_none_or(|o| o.typed(version).is_some())
    }

    pub(super) fn ty(&self, version: &str) -> Type<'a> {
        Type::of(self.other(version).map_or(self.kind.schema, |o| o.1))
    }

    /// An object of one version in another.
    pub(super) fn convert(&self, object: Value, from: &str, to: &str) -> Result<Value, Failure> {
        match self.kind.others {
            Some(others) if from != to => others.convert(&object, to),
            _ => Ok(object),
        }
    }

    /// What changed from one object of the own version to another, seen in a version; without what
    /// the endpoint does not let anybody change.
    pub(super) fn compare(
        &self,
        version: &str,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<Comparison, Failure> {
        let (change, reset) = match self.other(version) {
            None => (compare(self.kind.schema, old, new), self.kind.reset),
            Some((others, schema, reset)) => {
                let old = old.map(|old| others.convert(old, version)).transpose()?;
                let new = others.convert(new, version)?;
                (compare(schema, old.as_ref(), &new), reset)
            }
        };
        Ok(Comparison {
            removed: reset.keep(change.removed),
            modified: reset.keep(change.modified),
            added: reset.keep(change.added),
        })
    }

    /// The same in each of these versions but the own one.
    pub(super) fn compare_elsewhere<'v>(
        &self,
        versions: impl Iterator<Item = &'v str>,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<BTreeMap<String, Comparison>, Failure> {
        let mut out = BTreeMap::new();
        for version in versions {
            if self.other(version).is_some() && !out.contains_key(version) {
                out.insert(version.to_owned(), self.compare(version, old, new)?);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::json;

    use super::{
        super::{Manager, Operation, apply_in, track_update_in},
        *,
    };
    use crate::crd;

    fn version(fields: &[&str]) -> Schema {
        let fields: serde_json::Map<String, Value> = fields
            .iter()
            .map(|f| ((*f).to_owned(), json!({"type": "string"})))
            .collect();
        crd::structural(&json!({"type": "object", "properties": fields})).unwrap()
    }

    /// v1 says `address`, v2 `host`; both say `port` and `note`.
    static V1: LazyLock<Schema> = LazyLock::new(|| version(&["address", "port", "note"]));
    static V2: LazyLock<Schema> = LazyLock::new(|| version(&["host", "port", "note"]));
    static NONE: LazyLock<ResetFields> = LazyLock::new(ResetFields::none);

    struct Both;

    impl Versions for Both {
        fn typed(&self, api_version: &str) -> Option<(&Schema, &ResetFields)> {
            match api_version {
                "g/v1" => Some((&V1, &NONE)),
                "g/v2" => Some((&V2, &NONE)),
                _ => None,
            }
        }

        fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Failure> {
            let (from, to) = match api_version {
                "g/v1" => ("host", "address"),
                _ => ("address", "host"),
            };
            let mut object = object.clone();
            let map = object.as_object_mut().unwrap();
            if let Some(value) = map.remove(from) {
                map.insert(to.to_owned(), value);
            }
            map.insert("apiVersion".to_owned(), api_version.into());
            Ok(object)
        }
    }

    fn kind(version: &str) -> Kind<'static> {
        let (schema, reset) = Both.typed(version).unwrap();
        Kind {
            schema,
            reset,
            others: Some(&Both),
        }
    }

    fn manager<'a>(name: &'a str, operation: Operation, version: &'a str) -> Manager<'a> {
        Manager {
            name,
            operation,
            api_version: version,
            subresource: "",
            time: jiff::Timestamp::from_second(1).unwrap(),
        }
    }

    fn object(version: &str, fields: &[(&str, &str)]) -> Value {
        let mut object = json!({"apiVersion": version, "kind": "K", "metadata": {"name": "x"}});
        for (name, value) in fields {
            object[*name] = json!(value);
        }
        object
    }

    /// One turn of a story, after which it is told who owns what, and what the object says.
    enum Turn {
        Apply(
            &'static str,
            &'static str,
            &'static [(&'static str, &'static str)],
        ),
        Update(
            &'static str,
            &'static str,
            &'static [(&'static str, &'static str)],
        ),
    }
    use Turn::{Apply, Update};

    /// What it is about, what happens, and what is told of it: owners and object, or the refusal.
    type Case = (
        &'static str,
        &'static [Turn],
        Result<(&'static str, &'static str), &'static str>,
    );

    /// The object is stored in v1.
    fn tell(turns: &[Turn]) -> Result<(String, String), String> {
        let mut stored: Option<Value> = None;
        for turn in turns {
            let (Apply(name, version, fields) | Update(name, version, fields)) = turn;
            let config = object(version, fields);
            let live = stored.as_ref().map(|s| match *version {
                "g/v1" => s.clone(),
                other => Both.convert(s, other).unwrap(),
            });
            let mut new = match turn {
                Apply(..) => {
                    let manager = manager(name, Operation::Apply, version);
                    apply_in(kind(version), live.as_ref(), config, manager, false)
                        .map_err(|e| e.message)?
                }
                Update(..) => {
                    let manager = manager(name, Operation::Update, version);
                    let mut new = config;
                    track_update_in(kind(version), live.as_ref(), &mut new, manager).unwrap();
                    new
                }
            };
            if *version != "g/v1" {
                new = Both.convert(&new, "g/v1").unwrap();
            }
            stored = Some(new);
        }
        let stored = stored.unwrap_or_default();
        let entries = stored["metadata"]["managedFields"].as_array();
        let owners: Vec<String> = entries
            .into_iter()
            .flatten()
            .map(|e| {
                let fields = e["fieldsV1"].as_object().unwrap().keys();
                let fields: Vec<&str> = fields.map(|f| f.trim_start_matches("f:")).collect();
                let version = e["apiVersion"].as_str().unwrap().trim_start_matches("g/");
                format!(
                    "{} {version} {}",
                    e["manager"].as_str().unwrap(),
                    fields.join(",")
                )
            })
            .collect();
        let said: Vec<String> = ["address", "port", "note"]
            .iter()
            .filter_map(|f| Some(format!("{f}={}", stored.get(*f)?.as_str()?)))
            .collect();
        Ok((owners.join("; "), said.join(" ")))
    }

    #[test]
    fn each_manager_is_met_in_its_version() {
        let cases: &[Case] = &[
            (
                "an update in v2 takes what it changed from an applier in v1, and only that",
                &[
                    Apply("a", "g/v1", &[("address", "h"), ("port", "1")]),
                    Update("u", "g/v2", &[("host", "i"), ("port", "1")]),
                ],
                Ok(("a v1 port; u v2 host", "address=i port=1")),
            ),
            (
                "what the versions call differently is the same to both",
                &[
                    Apply("a", "g/v1", &[("address", "h")]),
                    Apply("b", "g/v2", &[("host", "h")]),
                ],
                // An apply that changes nothing leaves its entry without a time.
                Ok(("b v2 host; a v1 address", "address=h")),
            ),
            (
                "a conflict is told in the words of the other's version",
                &[
                    Apply("a", "g/v1", &[("address", "h")]),
                    Apply("b", "g/v2", &[("host", "i")]),
                ],
                Err("Apply failed with 1 conflict: conflict with \"a\": .address"),
            ),
            (
                "an applier that changes the version loses what it leaves out",
                &[
                    Apply(
                        "a",
                        "g/v1",
                        &[("address", "h"), ("port", "1"), ("note", "n")],
                    ),
                    Apply("a", "g/v2", &[("port", "1")]),
                ],
                Ok(("a v2 port", "port=1")),
            ),
            (
                "unless another owns it, in whichever version",
                &[
                    Apply("a", "g/v1", &[("address", "h"), ("port", "1")]),
                    Apply("b", "g/v2", &[("host", "h")]),
                    Apply("a", "g/v1", &[("port", "1")]),
                ],
                Ok(("b v2 host; a v1 port", "address=h port=1")),
            ),
            (
                "and keeps what it says in the new words",
                &[
                    Apply("a", "g/v1", &[("address", "h"), ("port", "1")]),
                    Apply("a", "g/v2", &[("host", "h"), ("port", "1")]),
                ],
                Ok(("a v2 host,port", "address=h port=1")),
            ),
            (
                "removal by an update in another version is loss",
                &[
                    Apply("a", "g/v1", &[("address", "h"), ("port", "1")]),
                    Update("u", "g/v2", &[("port", "1")]),
                ],
                Ok(("a v1 port", "port=1")),
            ),
        ];
        for (name, turns, expected) in cases {
            let told = tell(turns);
            let told = told.as_ref().map(|(o, s)| (o.as_str(), s.as_str()));
            assert_eq!(told.map_err(String::as_str), *expected, "{name}");
        }
    }

    #[test]
    fn entries_of_a_version_that_is_gone_are_dropped() {
        let mut live = object("g/v1", &[("address", "h"), ("port", "1")]);
        let entry = |manager: &str, version: &str, field: &str| {
            json!({"manager": manager, "operation": "Apply", "apiVersion": version,
                "fieldsType": "FieldsV1", "fieldsV1": {field: {}}})
        };
        live["metadata"]["managedFields"] = json!([
            entry("old", "g/v0", "f:address"),
            entry("a", "g/v1", "f:port")
        ]);
        let config = object("g/v1", &[("address", "i")]);
        let by = manager("b", Operation::Apply, "g/v1");
        let new = apply_in(kind("g/v1"), Some(&live), config, by, false).unwrap();
        let names = |object: &Value| -> Vec<String> {
            let entries = object["metadata"]["managedFields"].as_array().unwrap();
            let names = entries.iter().map(|e| e["manager"].as_str().unwrap());
            names.map(str::to_owned).collect()
        };
        assert_eq!(names(&new), ["a", "b"]);
        let mut new = live.clone();
        new["note"] = json!("n");
        let by = manager("u", Operation::Update, "g/v1");
        track_update_in(kind("g/v1"), Some(&live), &mut new, by).unwrap();
        assert_eq!(names(&new), ["a", "u"]);
    }
}
