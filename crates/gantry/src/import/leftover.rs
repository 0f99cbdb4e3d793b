//! A manifest out of which fields are taken, and what is left in it.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Left;

/// One object of a manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub kind: String,
    pub name: String,
    rest: Value,
}

impl Manifest {
    /// An object with kind and name; the error says what is missing.
    pub fn new(mut object: Value) -> Result<Manifest, String> {
        let text = |v: Option<Value>| v.and_then(|v| v.as_str().map(str::to_owned));
        let map = object
            .as_object_mut()
            .ok_or("a document is not an object")?;
        let kind = text(map.remove("kind")).ok_or("a document has no kind")?;
        map.remove("apiVersion");
        let name = map
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .and_then(|m| text(m.remove("name")));
        let name = name.ok_or_else(|| format!("a {kind} has no metadata.name"))?;
        // What a server wrote is no wish of the author's.
        map.remove("status");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in [
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "managedFields",
                "selfLink",
            ] {
                metadata.remove(field);
            }
            if let Some(annotations) = metadata
                .get_mut("annotations")
                .and_then(Value::as_object_mut)
            {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                annotations.remove("deployment.kubernetes.io/revision");
            }
        }
        Ok(Manifest {
            kind,
            name,
            rest: object,
        })
    }

    pub fn id(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// Looks at a field without taking it: `spec.template.spec`.
    pub fn peek(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.rest, |v, key| v.get(key))
    }

    /// Takes a field out; `None` where it is not there or null.
    pub fn take(&mut self, path: &str) -> Option<Value> {
        let (parent, key) = match path.rsplit_once('.') {
            Some((parent, key)) => (
                parent
                    .split('.')
                    .try_fold(&mut self.rest, |v, key| v.get_mut(key))?,
                key,
            ),
            None => (&mut self.rest, path),
        };
        parent.as_object_mut()?.remove(key).filter(|v| !v.is_null())
    }

    /// Takes a field out as a type; an error that names object and field where it is of another.
    pub fn take_as<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, String> {
        let Some(value) = self.take(path) else {
            return Ok(None);
        };
        serde_json::from_value(value)
            .map(Some)
            .map_err(|e| format!("{} {path}: {e}", self.id()))
    }

    /// Reports the field, which is taken out, as not carried over.
    pub fn leave(&mut self, path: &str, reason: &str, left: &mut Vec<Left>) {
        if self.take(path).is_some() {
            left.push(Left {
                object: self.id(),
                field: Some(path.to_owned()),
                reason: reason.to_owned(),
            });
        }
    }

    /// Reports what nobody has taken.
    pub fn finish(self, left: &mut Vec<Left>) {
        let mut fields = vec![];
        leaves(&self.rest, "", &mut fields);
        left.extend(fields.into_iter().map(|field| Left {
            object: self.id(),
            field: Some(field),
            reason: "Gantry has no place for it".to_owned(),
        }));
    }
}

/// Paths of all values that are not empty objects.
fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if map.is_empty() => {}
        Value::Object(map) => each(map, path, out),
        Value::Null => {}
        _ => out.push(path.to_owned()),
    }
}

fn each(map: &Map<String, Value>, path: &str, out: &mut Vec<String>) {
    for (key, value) in map {
        let below = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        leaves(value, &below, out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_takes_is_reported() {
        let mut manifest = Manifest::new(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "uid": "x"},
            "spec": {"type": "ClusterIP", "externalIPs": ["1.2.3.4"], "empty": {}}
        }))
        .unwrap();
        assert_eq!(manifest.take("spec.type"), Some(json!("ClusterIP")));
        assert_eq!(manifest.take("spec.none.below"), None);
        let mut left = vec![];
        manifest.finish(&mut left);
        assert_eq!(left.len(), 1);
        assert_eq!(
            left[0].to_string(),
            "Service/a spec.externalIPs: Gantry has no place for it"
        );
    }

    #[test]
    fn objects_without_a_name_are_refused() {
        assert_eq!(
            Manifest::new(json!({"kind": "Service"})).unwrap_err(),
            "a Service has no metadata.name"
        );
        assert_eq!(
            Manifest::new(json!([])).unwrap_err(),
            "a document is not an object"
        );
    }
}
