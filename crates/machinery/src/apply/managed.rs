//! `metadata.managedFields`: reading it, writing it, and changing it in place.

use serde_json::{Map, Value, json};

use super::{FieldSet, Manager, Operation, set::Node};

/// What tells entries apart: one manager has one entry for each of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub manager: String,
    pub operation: Operation,
    /// Empty for appliers, who keep their entry when they change the version.
    pub api_version: String,
    pub subresource: String,
}

impl Id {
    pub(super) fn of(manager: &Manager<'_>) -> Self {
        let name = if manager.name.is_empty() {
            "unknown"
        } else {
            manager.name
        };
        Id {
            manager: name.to_owned(),
            operation: manager.operation,
            api_version: match manager.operation {
                Operation::Apply => String::new(),
                Operation::Update => manager.api_version.to_owned(),
            },
            subresource: manager.subresource.to_owned(),
        }
    }

    /// Whether a well-formed entry is this manager's.
    pub(super) fn is(&self, entry: &Value) -> bool {
        text(entry, "manager") == self.manager
            && text(entry, "operation") == self.operation.name()
            && text(entry, "subresource") == self.subresource
            && (self.operation == Operation::Apply || text(entry, "apiVersion") == self.api_version)
    }

    /// As conflicts name a manager.
    pub(super) fn describe(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }
}

/// One manager's fields, decoded.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub id: Id,
    /// The version in which the fields were recorded.
    pub version: String,
    pub fields: FieldSet,
    /// RFC 3339, UTC, whole seconds.
    pub time: Option<String>,
}

fn text<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry.get(name).and_then(Value::as_str).unwrap_or("")
}

/// The version in which an entry's fields are recorded.
pub(super) fn version(entry: &Value) -> &str {
    text(entry, "apiVersion")
}

/// Whether entries can be read.
///
/// # Errors
/// What is wrong with the first that cannot.
pub fn check_entries(entries: Option<&Value>) -> Result<(), String> {
    decode(entries).map(|_| ())
}

/// The entries of an object, decoded. A manager that is there twice keeps its last entry.
///
/// # Errors
/// What is wrong with the first bad entry.
pub(super) fn decode(entries: Option<&Value>) -> Result<Vec<Entry>, String> {
    let mut out: Vec<Entry> = Vec::new();
    let entries = match entries {
        None | Some(Value::Null) => return Ok(out),
        Some(Value::Array(entries)) => entries,
        Some(other) => return Err(format!("expected a list, got {other}")),
    };
    for (i, entry) in entries.iter().enumerate() {
        let operation = match text(entry, "operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let version = text(entry, "apiVersion").to_owned();
        if version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text(entry, "fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
            other => {
                return Err(format!(
                    "invalid fieldsType {other:?} in managed fields entry {i}"
                ));
            }
        }
        let fields = match entry.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::new(),
            Some(fields) => {
                FieldSet::from_fields_v1(fields).map_err(|e| format!("error decoding set: {e}"))?
            }
        };
        let id = Id {
            manager: text(entry, "manager").to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => version.clone(),
            },
            subresource: text(entry, "subresource").to_owned(),
        };
        let time = text(entry, "time");
        let decoded = Entry {
            id,
            version,
            fields,
            time: (!time.is_empty()).then(|| time.to_owned()),
        };
        match out.iter_mut().find(|e| e.id == decoded.id) {
            Some(known) => *known = decoded,
            None => out.push(decoded),
        }
    }
    Ok(out)
}

/// The entries as they are stored, sorted; `None` when there are none.
pub(super) fn encode(entries: Vec<Entry>) -> Option<Value> {
    if entries.is_empty() {
        return None;
    }
    let mut out: Vec<Value> = entries
        .into_iter()
        .map(|e| {
            entry(
                &e.id,
                &e.version,
                e.fields.to_fields_v1(),
                e.time.as_deref(),
            )
        })
        .collect();
    sort(&mut out);
    Some(Value::Array(out))
}

pub(super) fn entry(id: &Id, version: &str, fields: Value, time: Option<&str>) -> Value {
    let mut out = Map::new();
    if !id.manager.is_empty() {
        out.insert("manager".to_owned(), Value::from(id.manager.as_str()));
    }
    out.insert("operation".to_owned(), Value::from(id.operation.name()));
    out.insert("apiVersion".to_owned(), Value::from(version));
    if let Some(time) = time {
        out.insert("time".to_owned(), Value::from(time));
    }
    out.insert("fieldsType".to_owned(), Value::from("FieldsV1"));
    out.insert("fieldsV1".to_owned(), fields);
    if !id.subresource.is_empty() {
        out.insert(
            "subresource".to_owned(),
            Value::from(id.subresource.as_str()),
        );
    }
    Value::Object(out)
}

/// The order of stored entries: appliers first, then by time, name, version and subresource.
pub(super) fn sort(entries: &mut [Value]) {
    entries.sort_by(|a, b| {
        // Times are UTC with whole seconds: their text sorts as they do.
        ["operation", "time", "manager", "apiVersion", "subresource"]
            .into_iter()
            .map(|name| text(a, name).cmp(text(b, name)))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
}

/// The moment as an entry holds it.
pub(super) fn timestamp(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether stored entries have the form that changing them in place asks for. What is stored was
/// written by [`encode`] or checked by [`decode`], so names of fields are not looked at again.
pub(super) fn is_well_formed(entries: &[Value]) -> bool {
    entries.iter().all(|entry| {
        matches!(text(entry, "operation"), "Apply" | "Update")
            && !text(entry, "apiVersion").is_empty()
            && text(entry, "fieldsType") == "FieldsV1"
            && entry.get("fieldsV1").is_some_and(Value::is_object)
    })
}

/// Whether the value asks to forget all ownership: an empty list, or a list of one empty entry.
pub(super) fn is_reset(entries: &Value) -> bool {
    match entries {
        Value::Array(entries) => match entries.as_slice() {
            [] => true,
            [Value::Object(only)] => only.is_empty(),
            _ => false,
        },
        _ => false,
    }
}

/// Takes the paths of `gone` out of `fieldsV1`. Whether something is left.
pub(super) fn subtract(fields: &mut Value, gone: &FieldSet) -> bool {
    let Value::Object(map) = fields else {
        return false;
    };
    for Node {
        element,
        member,
        children,
    } in gone.nodes()
    {
        let name = element.encode();
        let Some(below) = map.get_mut(&name) else {
            continue;
        };
        let Value::Object(inner) = below else {
            continue;
        };
        let leaf = inner.is_empty();
        let owned = leaf || inner.contains_key(".");
        let stays = owned && !member;
        if leaf {
            if !stays {
                map.remove(&name);
            }
            continue;
        }
        inner.remove(".");
        let deeper = !inner.is_empty() && subtract(below, children);
        match (deeper, stays) {
            (true, true) => {
                if let Value::Object(inner) = below {
                    inner.insert(".".to_owned(), json!({}));
                }
            }
            (true, false) => {}
            (false, true) => *below = json!({}),
            (false, false) => {
                map.remove(&name);
            }
        }
    }
    !map.is_empty()
}

/// Adds the paths of `more` to `fieldsV1`.
pub(super) fn add(fields: &mut Value, more: &FieldSet) {
    if !fields.is_object() {
        *fields = json!({});
    }
    let Value::Object(map) = fields else {
        return;
    };
    for Node {
        element,
        member,
        children,
    } in more.nodes()
    {
        let name = element.encode();
        let Some(below) = map.get_mut(&name) else {
            let mut new = children.to_fields_v1();
            if let (true, Value::Object(new)) = (*member && !children.is_empty(), &mut new) {
                new.insert(".".to_owned(), json!({}));
            }
            map.insert(name, new);
            continue;
        };
        let was_leaf = below.as_object().is_some_and(Map::is_empty);
        let owned = was_leaf || below.get(".").is_some() || *member;
        add(below, children);
        if let Value::Object(inner) = below {
            inner.remove(".");
            if owned && !inner.is_empty() {
                inner.insert(".".to_owned(), json!({}));
            }
        }
    }
}

/// Makes a write that changed nothing but the times of managers no change at all: where old and
/// new object are otherwise equal, the new one gets the old times back.
///
/// The API server calls this last, just before it decides whether anything has to be stored.
pub fn keep_times(old: &Value, new: &mut Value) {
    fn managed(object: &Value) -> Option<&Value> {
        object.get("metadata")?.get("managedFields")
    }
    let same_entries = match (managed(old), managed(new)) {
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && b.iter().all(|e| a.iter().any(|f| same_but_time(e, f)))
        }
        _ => return,
    };
    if !same_entries {
        return;
    }
    let same_rest = match (old, &*new) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(k, v)| match (k.as_str(), v, b.get(k)) {
                    ("metadata", Value::Object(v), Some(Value::Object(w))) => {
                        v.len() == w.len()
                            && v.iter()
                                .all(|(k, v)| k == "managedFields" || w.get(k) == Some(v))
                    }
                    (_, v, w) => Some(v) == w,
                })
        }
        _ => false,
    };
    if same_rest {
        let before = managed(old).cloned();
        if let (Some(before), Some(slot)) = (before, new.pointer_mut("/metadata/managedFields")) {
            *slot = before;
        }
    }
}

fn same_but_time(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return a == b;
    };
    let timeless = |(name, _): &(&String, &Value)| name.as_str() != "time";
    a.iter().filter(timeless).eq(b.iter().filter(timeless))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::set::tests::element, *};

    fn set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec(element(), 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::new();
            for path in paths {
                set.insert(&path);
            }
            set
        })
    }

    proptest! {
        #[test]
        fn json_and_sets_agree(a in set(), b in set()) {
            let mut json = a.to_fields_v1();
            let left = subtract(&mut json, &b);
            prop_assert_eq!(&json, &a.difference(&b).to_fields_v1());
            prop_assert_eq!(left, !a.difference(&b).is_empty());
            let mut json = a.to_fields_v1();
            add(&mut json, &b);
            prop_assert_eq!(json, a.union(&b).to_fields_v1());
        }
    }

    #[test]
    fn bad_entries() {
        let good = json!({"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}});
        assert_eq!(decode(Some(&json!([good]))).unwrap().len(), 1);
        for (name, value, message) in [
            (
                "operation",
                "Guess",
                "operation must be `Apply` or `Update`",
            ),
            ("apiVersion", "", "apiVersion must not be empty"),
            (
                "fieldsType",
                "",
                "missing fieldsType in managed fields entry 0",
            ),
            (
                "fieldsType",
                "V2",
                "invalid fieldsType \"V2\" in managed fields entry 0",
            ),
        ] {
            let mut bad = good.clone();
            bad[name] = json!(value);
            assert_eq!(decode(Some(&json!([bad]))).unwrap_err(), message);
        }
        assert!(is_reset(&json!([])) && is_reset(&json!([{}])) && !is_reset(&json!([good])));
    }

    #[test]
    fn times_alone_are_no_change() {
        let at = |time: &str, data: &str| json!({"metadata": {"name": "x", "managedFields": [{"manager": "m", "time": time}]}, "data": {"a": data}});
        let old = at("2026-01-01T00:00:00Z", "1");
        let mut new = at("2026-02-02T00:00:00Z", "1");
        keep_times(&old, &mut new);
        assert_eq!(new, old);
        let mut new = at("2026-02-02T00:00:00Z", "2");
        keep_times(&old, &mut new);
        assert_eq!(new, at("2026-02-02T00:00:00Z", "2"));
    }
}
