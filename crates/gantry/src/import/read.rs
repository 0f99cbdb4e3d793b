//! Manifests from YAML or JSON text: several documents, and Lists, as kubectl takes them.

use serde_json::Value;

use super::leftover::Manifest;

/// All objects of a text, in order. The error says where the text cannot be read.
pub fn read(text: &str) -> Result<Vec<Manifest>, String> {
    values(text)?.into_iter().map(Manifest::new).collect()
}

/// The same as they are written.
pub fn values(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| e.to_string())?;
    let mut out = vec![];
    for document in documents {
        flatten(document, &mut out);
    }
    Ok(out)
}

fn flatten(document: Value, out: &mut Vec<Value>) {
    // An empty document, as between two `---`, is none.
    if document.is_null() {
        return;
    }
    let is_list = document
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|k| k.ends_with("List"));
    match document.get("items") {
        Some(Value::Array(items)) if is_list => {
            for item in items {
                flatten(item.clone(), out);
            }
        }
        _ => out.push(document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists() {
        let text = "---\nkind: A\nmetadata: {name: one}\n---\n# nothing\n---\nkind: List\nitems:\n- kind: B\n  metadata: {name: two}\n";
        let ids: Vec<_> = read(text).unwrap().iter().map(Manifest::id).collect();
        assert_eq!(ids, ["A/one", "B/two"]);
    }

    #[test]
    fn bad_text_is_placed() {
        let error = read("kind: A\nmetadata: {name: one\n").unwrap_err();
        assert!(error.contains("line"), "{error}");
    }
}
