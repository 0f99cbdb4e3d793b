//! JSON in the order in which Go writes the fields of its structs, which is that of their numbers.
//! Messages about patches show objects so.

use serde_json::Value;

use super::table::{self, Field, Kind, Many, Message};

/// A patched object as Kubernetes shows it: what the patch touched has its members by name, what
/// it did not is still as the server wrote it.
pub fn patched(api_version: &str, kind: &str, old: &Value, new: &Value) -> String {
    let message = super::type_name(api_version, kind).and_then(|n| table::by_name(&n));
    let mut out = String::new();
    touched(message.map(table::MessageId::get), Some(old), new, &mut out);
    out
}

fn touched(message: Option<&'static Message>, old: Option<&Value>, new: &Value, out: &mut String) {
    let Value::Object(members) = new else {
        out.push_str(&new.to_string());
        return;
    };
    out.push('{');
    for (i, (name, value)) in members.iter().enumerate() {
        key(i, name, out);
        let before = old.and_then(|o| o.get(name));
        let field = message.and_then(|m| field(m, name));
        if before == Some(value) {
            untouched(field, value, out);
        } else {
            let message = field.filter(|f| f.many == Many::One).and_then(message_of);
            touched(message, before, value, out);
        }
    }
    out.push('}');
}

fn key(i: usize, name: &str, out: &mut String) {
    if i > 0 {
        out.push(',');
    }
    out.push_str(&Value::from(name).to_string());
    out.push(':');
}

fn message_of(field: &Field) -> Option<&'static Message> {
    match field.kind {
        Kind::Message(id) => Some(id.get()),
        _ => None,
    }
}

/// The field of a message or of a struct embedded in it.
fn field(message: &'static Message, name: &str) -> Option<&'static Field> {
    message.fields.iter().find_map(|f| {
        if f.name.is_empty() {
            return message_of(f).and_then(|inner| field(inner, name));
        }
        (f.name == name).then_some(f)
    })
}

fn untouched(field: Option<&'static Field>, value: &Value, out: &mut String) {
    let Some(field) = field else {
        out.push_str(&value.to_string());
        return;
    };
    match (field.many, value) {
        (Many::List, Value::Array(items)) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                one(field, item, out);
            }
            out.push(']');
        }
        (Many::Map, Value::Object(members)) => {
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                key(i, name, out);
                one(field, value, out);
            }
            out.push('}');
        }
        _ => one(field, value, out),
    }
}

fn one(field: &'static Field, value: &Value, out: &mut String) {
    match (message_of(field), value) {
        (Some(message), Value::Object(_)) if message.transparent().is_none() => {
            out.push('{');
            let mut written = 0;
            members(message, value, &mut written, out);
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn members(message: &'static Message, value: &Value, written: &mut usize, out: &mut String) {
    let mut fields: Vec<&Field> = message.fields.iter().collect();
    fields.sort_by_key(|f| f.number);
    for field in fields {
        if field.name.is_empty() {
            if let Some(inner) = message_of(field) {
                members(inner, value, written, out);
            }
        } else if let Some(value) = value.get(field.name) {
            key(*written, field.name, out);
            *written += 1;
            untouched(Some(field), value, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_patch_left_alone_is_in_the_order_of_its_type() {
        let old = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"annotations": {"b": "1", "a": "2"}, "labels": {"x": "1"}, "name": "p", "uid": "u"},
            "spec": {"containers": [{"image": "i", "name": "c"}], "volumes": [{"emptyDir": {}, "name": "v"}]},
        });
        let mut new = old.clone();
        new["data"] = "text".into();
        new["metadata"]["labels"]["x"] = "2".into();
        assert_eq!(
            patched("v1", "Pod", &old, &new),
            r#"{"apiVersion":"v1","data":"text","kind":"Pod","metadata":{"annotations":{"a":"2","b":"1"},"labels":{"x":"2"},"name":"p","uid":"u"},"spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"c","image":"i"}]}}"#
        );
        assert_eq!(patched("v1", "None", &old, &json!([1])), "[1]");
    }
}
