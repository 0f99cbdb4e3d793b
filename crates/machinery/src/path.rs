//! A field's place in an object, built on the stack while walking and written only when needed.

use std::fmt;

use serde_json::Value;

/// `spec.containers[0].image`; segments link to their parents, so that a walk allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself; it prints as nothing.
    pub const ROOT: Path<'static> = Path {
        parent: None,
        segment: Segment::Root,
    };

    /// A path that starts with this field.
    pub fn new(name: &'a str) -> Path<'a> {
        Path {
            parent: None,
            segment: Segment::Field(name),
        }
    }

    /// A named field below this one. The name may itself hold dots.
    pub fn child<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path {
            parent: Some(self),
            segment: Segment::Field(name),
        }
    }

    /// The same place under another name.
    pub fn sibling<'b>(&self, name: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path {
            parent: self.parent,
            segment: Segment::Field(name),
        }
    }

    pub fn index(&self, index: usize) -> Path<'_> {
        Path {
            parent: Some(self),
            segment: Segment::Index(index),
        }
    }

    /// An entry of a map: `data[key]`.
    pub fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path {
            parent: Some(self),
            segment: Segment::Key(key),
        }
    }

    /// Field names alone, as Go's JSON decoder names a place: list positions and map keys are left
    /// out.
    pub fn fields(&self) -> String {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(path) = at {
            if let Segment::Field(name) = path.segment {
                names.push(name);
            }
            at = path.parent;
        }
        names.reverse();
        names.join(".")
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chain = Vec::new();
        let mut at = Some(self);
        while let Some(path) = at {
            chain.push(path.segment);
            at = path.parent;
        }
        let mut first = true;
        for segment in chain.iter().rev() {
            match segment {
                Segment::Root => continue,
                Segment::Field(name) if first => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(i) => write!(f, "[{i}]")?,
                Segment::Key(key) => write!(f, "[{key}]")?,
            }
            first = false;
        }
        Ok(())
    }
}

/// The parts of a JSON value by place.
pub trait At {
    /// What is at `place`: names and indexes, each behind a `/`. As `Value::pointer`, but that no
    /// name may be escaped, which spares two texts for each step.
    fn at(&self, place: &str) -> Option<&Value>;
}

impl At for Value {
    fn at(&self, place: &str) -> Option<&Value> {
        let mut steps = place.split('/').skip(1);
        steps.try_fold(self, |value, step| match value {
            Value::Object(members) => members.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_kubernetes_prints_them() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(first.child("image").to_string(), "spec.containers[0].image");
        assert_eq!(first.child("image").fields(), "spec.containers.image");
        let data = Path::ROOT.child("data");
        assert_eq!(data.key("a b").to_string(), "data[a b]");
    }

    #[test]
    fn parts_are_where_a_json_pointer_finds_them() {
        let value = serde_json::json!({"a": {"b": [1, {"c": null}]}, "": 2});
        for place in [
            "", "/", "/a", "/a/b/0", "/a/b/1/c", "/a/b/2", "/a/b/x", "/x/y", "/a/b/0/c",
        ] {
            assert_eq!(value.at(place), value.pointer(place), "{place}");
        }
    }
}
