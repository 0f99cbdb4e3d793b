//! Field selectors (`metadata.name=x,status.phase!=Running`) and the fields that each kind
//! supports.
//!
//! Grammar and messages are those of `k8s.io/apimachinery/pkg/fields`; which fields a built-in
//! kind supports, of the API server's field label conversions; a custom resource supports its
//! definition's `selectableFields`.

use crate::path::At as _;
use std::{borrow::Cow, fmt};

use serde_json::Value;

use super::bad_request;
use crate::{resource::Resource, status::Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOperator {
    Equals,
    NotEquals,
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// `status.phase`
    pub path: String,
    pub operator: FieldOperator,
    pub value: String,
}

/// A field selector: all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    requirements: Vec<FieldRequirement>,
}

impl Fields {
    /// Selects every object.
    pub fn everything() -> Self {
        Fields::default()
    }

    /// Reads the query syntax. `\` escapes `,`, `=` and itself in values.
    ///
    /// # Errors
    /// 400 with Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            let (path, operator, value) = split_term(term).ok_or_else(|| {
                bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                ))
            })?;
            requirements.push(FieldRequirement {
                path: path.to_owned(),
                operator,
                value: unescape(value)?,
            });
        }
        Ok(Fields { requirements })
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether every object is selected: the check can be left out.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The one name that an object must have (`metadata.name=x`): a list becomes a get.
    pub fn exact_name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }

    /// The one namespace that an object must be in.
    pub fn exact_namespace(&self) -> Option<&str> {
        self.exact("metadata.namespace")
    }

    fn exact(&self, path: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|r| r.path == path && r.operator == FieldOperator::Equals)
            .map(|r| r.value.as_str())
    }

    /// Whether the resource supports every field that is asked for.
    ///
    /// # Errors
    /// 400 in the words of the resource, such as `field label not supported: spec.hostname`.
    pub fn check(&self, resource: &Resource) -> Result<(), Failure> {
        for requirement in &self.requirements {
            let path = requirement.path.as_str();
            if path == "metadata.name" || (path == "metadata.namespace" && has_namespace(resource))
            {
                continue;
            }
            if let Some(custom) = &resource.custom {
                let known = |f: &String| f.strip_prefix('.').unwrap_or(f) == path;
                if !custom.selectable_fields.iter().any(known) {
                    return Err(bad_request(format!("field label not supported: {path}")));
                }
                continue;
            }
            match labels_of(resource) {
                Some((known, _)) if known.contains(&path) => {}
                Some((_, Words::Plain)) => {
                    return Err(bad_request(format!("field label not supported: {path}")));
                }
                Some((_, Words::OfKind)) => {
                    return Err(bad_request(format!(
                        "field label {path:?} not supported for {}",
                        resource.kind
                    )));
                }
                None => {
                    return Err(bad_request(format!(
                        "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether an object satisfies all terms. A field that the object lacks is the empty text.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.requirements.iter().all(|r| {
            let equal = value(resource, &r.path, object) == r.value;
            equal == (r.operator == FieldOperator::Equals)
        })
    }
}

/// The selectable fields of an object besides name and namespace, with their values as text: what
/// a cache keeps to answer field selectors without the object.
pub fn selectable<'a>(
    resource: &'a Resource,
    object: &'a Value,
) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
    let custom = resource.custom.as_ref();
    let of_custom = custom
        .into_iter()
        .flat_map(|c| &c.selectable_fields)
        .map(|f| f.strip_prefix('.').unwrap_or(f));
    let built_in = match custom {
        Some(_) => &[],
        None => labels_of(resource).map_or(&[] as &[&str], |(known, _)| known),
    };
    built_in
        .iter()
        .copied()
        .chain(of_custom)
        .map(move |path| (path, value(resource, path, object)))
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = match r.operator {
                FieldOperator::Equals => "=",
                FieldOperator::NotEquals => "!=",
            };
            write!(f, "{comma}{}{operator}{}", r.path, escape(&r.value))?;
        }
        Ok(())
    }
}

/// The namespace of a cluster-scoped custom resource or of the kinds that convert labels on their
/// own is no label; all others let it through, and it is empty.
fn has_namespace(resource: &Resource) -> bool {
    resource.namespaced() || (resource.custom.is_none() && labels_of(resource).is_none())
}

/// How a kind words its refusal.
#[derive(Clone, Copy)]
enum Words {
    Plain,
    OfKind,
}

/// Fields of a built-in kind besides name and namespace; `None` for kinds that have no others.
fn labels_of(resource: &Resource) -> Option<(&'static [&'static str], Words)> {
    Some(match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => (
            &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            Words::Plain,
        ),
        ("", "Node") => (&["spec.unschedulable"], Words::Plain),
        ("", "ReplicationController") => (&["status.replicas"], Words::Plain),
        ("", "Event") => (
            &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            Words::Plain,
        ),
        ("events.k8s.io", "Event") => (
            &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ],
            Words::Plain,
        ),
        ("", "Namespace") => (&["status.phase"], Words::Plain),
        ("", "Secret") => (&["type"], Words::Plain),
        ("", "Service") => (&["spec.clusterIP", "spec.type"], Words::Plain),
        ("batch", "Job") => (&["status.successful"], Words::OfKind),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            (&["spec.signerName"], Words::Plain)
        }
        ("resource.k8s.io", "ResourceSlice") => (&["spec.nodeName", "spec.driver"], Words::Plain),
        _ => return None,
    })
}

/// The field's value as text.
fn value<'a>(resource: &Resource, path: &str, object: &'a Value) -> Cow<'a, str> {
    let built_in = resource.custom.is_none();
    match (resource.kind.as_str(), path) {
        // Fields whose label is not where the object keeps them.
        ("Pod", "status.podIP") if built_in => {
            let first = object.at("/status/podIPs/0/ip");
            text(first.or_else(|| object.at("/status/podIP")))
        }
        ("Event", "source") if built_in => {
            let component = ["/source/component", "/deprecatedSource/component"]
                .into_iter()
                .find_map(|p| object.at(p).filter(|v| v.as_str() != Some("")));
            text(component.or_else(|| object.get("reportingComponent")))
        }
        ("Job", "status.successful") if built_in => or(text(object.at("/status/succeeded")), "0"),
        ("Node", "spec.unschedulable") | ("Pod", "spec.hostNetwork") if built_in => {
            or(text(at(object, path)), "false")
        }
        ("ReplicationController", "status.replicas") if built_in => or(text(at(object, path)), "0"),
        _ => text(at(object, path)),
    }
}

fn or<'a>(value: Cow<'a, str>, default: &'static str) -> Cow<'a, str> {
    if value.is_empty() {
        Cow::Borrowed(default)
    } else {
        value
    }
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |v, part| v.get(part))
}

fn text(value: Option<&Value>) -> Cow<'_, str> {
    match value {
        None | Some(Value::Null) => Cow::Borrowed(""),
        Some(Value::String(s)) => Cow::Borrowed(s),
        Some(other) => Cow::Owned(other.to_string()),
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, FieldOperator, &str)> {
    let at = term.find(['=', '!'].as_slice())?;
    for (i, _) in term.char_indices().filter(|(i, _)| *i >= at) {
        for (sign, operator) in [
            ("!=", FieldOperator::NotEquals),
            ("==", FieldOperator::Equals),
            ("=", FieldOperator::Equals),
        ] {
            if let Some(value) = term[i..].strip_prefix(sign) {
                return Some((&term[..i], operator, value));
            }
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, Failure> {
    if !text.contains(['\\', ',', '=']) {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        match c {
            '\\' | ',' | '=' if escaped => {
                out.push(c);
                escaped = false;
            }
            _ if escaped => {
                return Err(bad_request(format!(
                    "invalid field selector: invalid escape sequence: \\{c}"
                )));
            }
            '\\' => escaped = true,
            ',' | '=' => {
                return Err(bad_request(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            _ => out.push(c),
        }
    }
    if escaped {
        return Err(bad_request(
            "invalid field selector: invalid escape sequence: \\",
        ));
    }
    Ok(out)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::resource::{Custom, builtin_resources};

    fn resource(group: &str, plural: &str) -> &'static Resource {
        builtin_resources()
            .iter()
            .find(|r| r.group == group && r.plural == plural)
            .unwrap()
    }

    #[test]
    fn unsupported_fields_have_each_kinds_words() {
        for (group, plural, selector, message) in [
            (
                "",
                "pods",
                "spec.hostname=x",
                Some("field label not supported: spec.hostname"),
            ),
            ("", "pods", "spec.nodeName=x,metadata.namespace=y", None),
            ("", "nodes", "spec.unschedulable=true,metadata.name=x", None),
            (
                "",
                "configmaps",
                "data.a=1",
                Some(
                    "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                ),
            ),
            ("", "configmaps", "metadata.name=a", None),
            (
                "batch",
                "jobs",
                "spec.x=1",
                Some("field label \"spec.x\" not supported for Job"),
            ),
        ] {
            let failure = Fields::parse(selector)
                .unwrap()
                .check(resource(group, plural))
                .err();
            assert_eq!(failure.map(|f| f.message).as_deref(), message, "{selector}");
        }
        let mut custom = resource("", "configmaps").clone();
        custom.custom = Some(Custom {
            selectable_fields: vec![".spec.host".to_owned()],
            ..Custom::default()
        });
        assert!(Fields::parse("spec.host=a").unwrap().check(&custom).is_ok());
        let failure = Fields::parse("spec.size=1")
            .unwrap()
            .check(&custom)
            .unwrap_err();
        assert_eq!(failure.message, "field label not supported: spec.size");
    }

    #[test]
    fn selects() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        for (selector, expected) in [
            ("", true),
            ("metadata.name=p", true),
            ("metadata.name!=p", false),
            ("spec.nodeName=n1,status.phase=Running", true),
            ("spec.nodeName=", false),
            ("spec.schedulerName=", true),
            ("status.podIP=10.0.0.1", true),
            ("spec.hostNetwork=false", true),
            ("metadata.name=p,metadata.name=q", false),
        ] {
            let fields = Fields::parse(selector).unwrap();
            assert_eq!(
                fields.matches(resource("", "pods"), &pod),
                expected,
                "{selector}"
            );
        }
        let node = json!({"spec": {"unschedulable": true}});
        let fields = Fields::parse("spec.unschedulable=true").unwrap();
        assert!(fields.matches(resource("", "nodes"), &node));
        assert!(!fields.matches(resource("", "nodes"), &json!({"spec": {}})));
    }

    #[test]
    fn syntax() {
        for (text, message) in [
            (
                "metadata.name",
                "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
            ),
            (
                "a=b\\c",
                "invalid field selector: invalid escape sequence: \\c",
            ),
            (
                "a=b=c",
                "invalid field selector: unescaped character in value: =",
            ),
        ] {
            assert_eq!(Fields::parse(text).unwrap_err().message, message);
        }
        let fields = Fields::parse("metadata.name=a,metadata.namespace==b").unwrap();
        assert_eq!(
            (fields.exact_name(), fields.exact_namespace()),
            (Some("a"), Some("b"))
        );
        assert_eq!(
            Fields::parse("metadata.name!=a").unwrap().exact_name(),
            None
        );
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(terms in prop::collection::vec(("[a-z.]{1,6}", any::<bool>(), "[a-z,=\\\\!]{0,6}"), 0..4)) {
            let fields = Fields {
                requirements: terms.into_iter().map(|(path, equals, value)| FieldRequirement {
                    path,
                    operator: if equals { FieldOperator::Equals } else { FieldOperator::NotEquals },
                    value,
                }).collect(),
            };
            // `a=` before a value that starts with `=` is `a==`: escaping keeps the two apart.
            prop_assert_eq!(Fields::parse(&fields.to_string()).unwrap(), fields);
        }
    }
}
