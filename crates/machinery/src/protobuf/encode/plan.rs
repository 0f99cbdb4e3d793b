//! How a message is written: its fields in the order of their numbers, found by their names.

use std::fmt;

use rustc_hash::FxHashMap;

use crate::{
    protobuf::table::{Field, Kind, Many, Message},
    shape::{self, Wire},
};

/// A field of a message's JSON: one of its own, or of a struct embedded in it.
pub(super) struct Leaf {
    pub field: &'static Field,
    /// Written even when the JSON does not name it.
    pub always: bool,
}

/// How a message is written, found out when the first one is.
pub struct Plan {
    /// In the order of writing: by number, those of an embedded struct in its place.
    pub(super) leaves: Vec<Leaf>,
    pub(super) by_name: FxHashMap<&'static str, u16>,
    /// Indices of the message's own fields by number.
    pub(super) order: Vec<u16>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({} fields)", self.leaves.len())
    }
}

impl Plan {
    pub fn of(message: &'static Message) -> Plan {
        let mut plan = Plan {
            leaves: vec![],
            by_name: FxHashMap::default(),
            order: by_number(message),
        };
        plan.add(message, message.name);
        for (slot, leaf) in plan.leaves.iter().enumerate() {
            plan.by_name.insert(leaf.field.name, slot as u16);
        }
        plan
    }

    /// `outer` is the type in whose JSON the fields are.
    fn add(&mut self, message: &'static Message, outer: &str) {
        let facts = shape::by_name(outer);
        for index in by_number(message) {
            let field = &message.fields[usize::from(index)];
            if let ("", Kind::Message(id)) = (field.name, field.kind) {
                self.add(id.get(), outer);
                continue;
            }
            let wire = facts.and_then(|id| id.get().field(field.name).map(|f| f.wire));
            let value = match wire {
                Some(wire) => !matches!(wire, Wire::Pointer | Wire::NullablePointer),
                // Types without facts have no pointers; see the test.
                None => true,
            };
            let always = value && field.many == Many::One && field.kind != Kind::Bytes;
            self.leaves.push(Leaf { field, always });
        }
    }
}

fn by_number(message: &Message) -> Vec<u16> {
    let mut order: Vec<u16> = (0..message.fields.len() as u16).collect();
    order.sort_by_key(|i| message.fields[usize::from(*i)].number);
    order
}
