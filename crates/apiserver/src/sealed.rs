//! Stored objects opened only as far as a change can reach: what it cannot touch stays the bytes it was.
//!
//! Most writes to a fleet are kubelets' reports, bindings and deletions. They leave alone three quarters of a pod's
//! tree: containers and volumes, and what other managers own. [`open`] leaves a mark in the place of each such
//! part, and [`Pieces`] puts the bytes back when the object is written. A mark begins with NUL, which
//! [`open`] makes sure that the object itself holds nowhere; where marks stand no rule looks (see [`Reach`]).

use std::fmt;

use bytes::Bytes;
use gantry_machinery::status::Failure;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};

use crate::{errors, object, registry::Entry};

/// How far a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere: nothing is sealed.
    Whole,
    /// Into `status`, by whoever: the rest of the object stays as it is.
    Status,
    /// What putting a pod on a node changes, or a deletion: nobody comes to own anything by it.
    Lifecycle,
}

/// The parts of an object that were not opened, as stored.
#[derive(Debug, Default, Clone)]
pub struct Pieces {
    bytes: Vec<Bytes>,
    /// Parts of `status` are among them.
    of_status: bool,
}

const MARK: char = '\0';

impl Pieces {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether this member of an object may hold marks.
    pub fn within(&self, member: &str) -> bool {
        match member {
            "spec" => !self.is_empty(),
            "status" => self.of_status,
            _ => false,
        }
    }

    fn mark(&mut self, whole: &Bytes, raw: &RawValue) -> String {
        self.bytes.push(whole.slice_ref(raw.get().as_bytes()));
        format!("{MARK}{}", self.bytes.len() - 1)
    }

    /// Seals what `object`, which is new, says of its only owner's fields: they are this text. Whether it
    /// did: not where the object itself holds what looks like a mark.
    pub fn seal_owner(&mut self, object: &mut Value, fields: String) -> bool {
        let marked = |value: &Value| value.as_str().is_some_and(|text| text.starts_with(MARK));
        let plain = match object.get("spec") {
            None => true,
            Some(Value::Object(spec)) => !spec.values().any(marked),
            Some(_) => false,
        };
        let owner = match plain {
            true => object.pointer_mut("/metadata/managedFields/0"),
            false => None,
        };
        let Some(owner) = owner else { return false };
        let mark = format!("{MARK}{}", self.bytes.len());
        self.bytes.push(fields.into());
        owner[FIELDS] = Value::Object(Map::from_iter([(mark, Value::Null)]));
        true
    }

    fn find(&self, mark: &str) -> Option<&Bytes> {
        self.bytes
            .get(mark.strip_prefix(MARK)?.parse::<usize>().ok()?)
    }

    /// The bytes that a member of `spec` stands for.
    fn of_member(&self, value: &Value) -> Option<&Bytes> {
        self.find(value.as_str()?)
    }

    /// The bytes that the fields of an owner stand for.
    fn of_fields(&self, fields: &Value) -> Option<&Bytes> {
        let fields = fields.as_object()?;
        self.find(fields.keys().next().filter(|_| fields.len() == 1)?)
    }

    /// Writes `spec`, `status` or `metadata.managedFields`, which may hold marks.
    pub fn write(&self, out: &mut Vec<u8>, value: &Value) -> serde_json::Result<()> {
        match value {
            Value::Object(members) => write_map(out, members, |out, _, member| {
                match self.of_member(member) {
                    Some(raw) => out.extend_from_slice(raw),
                    None => serde_json::to_writer(out, member)?,
                }
                Ok(())
            }),
            Value::Array(owners) => {
                out.push(b'[');
                for (i, owner) in owners.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    let Some(members) = owner.as_object() else {
                        serde_json::to_writer(&mut *out, owner)?;
                        continue;
                    };
                    write_map(out, members, |out, name, member| {
                        match self.of_fields(member).filter(|_| name == FIELDS) {
                            Some(raw) => out.extend_from_slice(raw),
                            None => serde_json::to_writer(out, member)?,
                        }
                        Ok(())
                    })?;
                }
                out.push(b']');
                Ok(())
            }
            other => serde_json::to_writer(out, other),
        }
    }
}

fn write_map(
    out: &mut Vec<u8>,
    members: &Map<String, Value>,
    mut value: impl FnMut(&mut Vec<u8>, &str, &Value) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    out.push(b'{');
    for (i, (name, member)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, name)?;
        out.push(b':');
        value(out, name, member)?;
    }
    out.push(b'}');
    Ok(())
}

const FIELDS: &str = "fieldsV1";
/// Where more managers than these own something, the oldest may be merged: all must be readable.
const MOST_OWNERS: usize = 9;

/// Members of `spec` that no rule about a status, a binding or a deletion reads.
fn closed(entry: &Entry) -> &'static [&'static str] {
    let resource = &entry.resource;
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => &[
            "affinity",
            "containers",
            "ephemeralContainers",
            "initContainers",
            "readinessGates",
            "securityContext",
            "tolerations",
            "topologySpreadConstraints",
            "volumes",
        ],
        ("apps", _) | ("batch", "jobs") => &["selector", "template", "volumeClaimTemplates"],
        _ => &[],
    }
}

/// Members of `status` that no rule about a binding or a deletion reads.
fn closed_status(entry: &Entry) -> &'static [&'static str] {
    match entry.is("", "pods") {
        true => &[
            "containerStatuses",
            "ephemeralContainerStatuses",
            "initContainerStatuses",
        ],
        false => &[],
    }
}

/// A stored object of a built-in kind, in the version it is stored in, opened as far as a change reaches.
///
/// # Errors
/// What is stored is not JSON.
pub fn open(entry: &Entry, reach: Reach, whole: &Bytes) -> Result<(Value, Pieces), Failure> {
    let shut = match reach {
        Reach::Whole => None,
        Reach::Status | Reach::Lifecycle => shut(entry, reach, whole),
    };
    let Some(shut) = shut else {
        return Ok((object::parse(whole)?, Pieces::default()));
    };
    let mut pieces = Pieces::default();
    let seed = Opening {
        shut: &shut,
        whole,
        pieces: &mut pieces,
        level: Level::Object,
    };
    let opened = seed
        .deserialize(&mut serde_json::Deserializer::from_slice(whole))
        .map_err(|e| errors::internal(format_args!("decoding a stored object: {e}")))?;
    let owners = opened.pointer("/metadata/managedFields");
    if owners
        .and_then(Value::as_array)
        .is_some_and(|owners| owners.len() > MOST_OWNERS)
    {
        return Ok((object::parse(whole)?, Pieces::default()));
    }
    Ok((opened, pieces))
}

/// What stays shut of one object.
struct Shut {
    /// Of `spec`.
    members: Vec<&'static str>,
    of_status: &'static [&'static str],
    reach: Reach,
}

fn shut(entry: &Entry, reach: Reach, whole: &[u8]) -> Option<Shut> {
    if entry.resource.custom.is_some() || memchr::memmem::find(whole, b"\\u0000").is_some() {
        return None;
    }
    let mut members = closed(entry).to_vec();
    let reports = reach == Reach::Status && entry.is("", "pods");
    if reports && memchr::memmem::find(whole, b"\"terminated\"").is_some() {
        // Whether a container may run again depends on its own restart rules.
        members.retain(|name| !name.to_ascii_lowercase().ends_with("containers"));
    }
    let of_status = match reach {
        Reach::Lifecycle => closed_status(entry),
        Reach::Whole | Reach::Status => &[],
    };
    Some(Shut {
        members,
        of_status,
        reach,
    })
}

impl Shut {
    /// Whether an owner's fields cannot change, as the change does not reach them.
    fn owner(&self, owner: &Map<String, Value>, fields: &str) -> bool {
        match self.reach {
            Reach::Whole => false,
            Reach::Lifecycle => true,
            Reach::Status => {
                owner.get("subresource").and_then(Value::as_str) != Some("status")
                    && memchr::memmem::find(fields.as_bytes(), b"\"f:status\"").is_none()
                    && fields.starts_with('{')
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Object,
    Metadata,
    Owners,
    Owner,
    Spec,
    Status,
}

struct Opening<'a> {
    shut: &'a Shut,
    whole: &'a Bytes,
    pieces: &'a mut Pieces,
    level: Level,
}

impl<'de> DeserializeSeed<'de> for Opening<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Opening<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of an object in its stored form")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = Vec::with_capacity(8);
        loop {
            let seed = Opening {
                shut: self.shut,
                whole: self.whole,
                pieces: &mut *self.pieces,
                level: Level::Owner,
            };
            match seq.next_element_seed(seed)? {
                Some(owner) => all.push(owner),
                None => return Ok(Value::Array(all)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        let mut fields: Option<&'de RawValue> = None;
        while let Some(name) = map.next_key::<String>()? {
            let deeper = match (self.level, name.as_str()) {
                (Level::Object, "metadata") => Some(Level::Metadata),
                (Level::Object, "spec") if !self.shut.members.is_empty() => Some(Level::Spec),
                (Level::Object, "status") if !self.shut.of_status.is_empty() => Some(Level::Status),
                (Level::Metadata, "managedFields") => Some(Level::Owners),
                _ => None,
            };
            if self.level == Level::Owner && name == FIELDS {
                fields = Some(map.next_value()?);
                continue;
            }
            let value = if let Some(level) = deeper {
                map.next_value_seed(Opening {
                    shut: self.shut,
                    whole: self.whole,
                    pieces: &mut *self.pieces,
                    level,
                })?
            } else if self.level == Level::Spec && self.shut.members.contains(&name.as_str()) {
                Value::String(self.pieces.mark(self.whole, map.next_value()?))
            } else if self.level == Level::Status && self.shut.of_status.contains(&name.as_str()) {
                self.pieces.of_status = true;
                Value::String(self.pieces.mark(self.whole, map.next_value()?))
            } else {
                map.next_value()?
            };
            members.insert(name, value);
        }
        if let Some(raw) = fields {
            let value = if self.shut.owner(&members, raw.get()) {
                let mark = self.pieces.mark(self.whole, raw);
                Value::Object(Map::from_iter([(mark, Value::Null)]))
            } else {
                serde_json::from_str(raw.get()).map_err(A::Error::custom)?
            };
            members.insert(FIELDS.to_owned(), value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests;
