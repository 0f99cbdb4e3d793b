//! The FlowSchemas and priority levels that every Kubernetes server has.

use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value};

/// Specs by name, of one of the two kinds' plural names.
pub fn built_in(plural: &str) -> &'static Map<String, Value> {
    static TABLE: OnceLock<Map<String, Value>> = OnceLock::new();
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let table = TABLE.get_or_init(|| {
        // The table is part of the binary: a build with a broken one fails every test.
        serde_json::from_str(include_str!("../data/flowcontrol.json")).unwrap_or_default()
    });
    table
        .get(plural)
        .and_then(Value::as_object)
        .unwrap_or(&NONE)
}

/// The two of each kind that a server cannot do without, and whose specs are fixed.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
