//! Label selectors, by the rules of `metav1.LabelSelectorAsSelector`.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::Labels;
use crate::model::meta::nullable;

/// A label selector. Empty, it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    pub match_labels: Labels,
    #[serde(deserialize_with = "nullable")]
    pub match_expressions: Vec<Expression>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct Expression {
    pub key: Box<str>,
    pub operator: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub values: Vec<Box<str>>,
}

impl Selector {
    pub fn of_labels(labels: Labels) -> Self {
        Selector {
            match_labels: labels,
            match_expressions: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels
            .iter()
            .all(|(k, v)| labels.get(k) == Some(v))
            && self.match_expressions.iter().all(|e| e.matches(labels))
    }

    /// The same selector that also asks for `key=value`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        Selector {
            match_labels: self.match_labels.with(key, value),
            match_expressions: self.match_expressions.clone(),
        }
    }

    pub fn to_json(&self) -> Value {
        let mut out = serde_json::Map::new();
        if !self.match_labels.is_empty() {
            out.insert("matchLabels".into(), self.match_labels.to_json());
        }
        if !self.match_expressions.is_empty() {
            let expressions = self.match_expressions.iter().map(|e| {
                let mut one = json!({"key": &*e.key, "operator": &*e.operator});
                if !e.values.is_empty() {
                    one["values"] = e.values.iter().map(|v| Value::from(&**v)).collect();
                }
                one
            });
            out.insert("matchExpressions".into(), expressions.collect());
        }
        Value::Object(out)
    }
}

impl Expression {
    fn matches(&self, labels: &Labels) -> bool {
        let found = labels.get(&self.key);
        let listed = |v: &str| self.values.iter().any(|x| &**x == v);
        match &*self.operator {
            "In" => found.is_some_and(listed),
            "NotIn" => !found.is_some_and(listed),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            // The API accepts no other operator; one that came with a later version selects nothing.
            _ => false,
        }
    }
}

/// A label selector as Kubernetes' messages print it.
pub fn go_selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector.filter(|s| !s.is_null()) else {
        return "nil".into();
    };
    let labels: String = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}: {},", v.as_str().unwrap_or_default()))
        .collect();
    let expressions: String = selector
        .get("matchExpressions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|e| {
            let text = |f: &str| e.get(f).and_then(Value::as_str).unwrap_or_default();
            let values: Vec<&str> = e
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                text("key"),
                text("operator"),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(json!({}), true)]
    #[case(json!({"matchLabels": {"a": "1"}}), true)]
    #[case(json!({"matchLabels": {"a": "2"}}), false)]
    #[case(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}), true)]
    #[case(json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}), false)]
    #[case(json!({"matchExpressions": [{"key": "z", "operator": "NotIn", "values": ["1"]}]}), true)]
    #[case(json!({"matchExpressions": [{"key": "z", "operator": "Exists"}]}), false)]
    #[case(json!({"matchExpressions": [{"key": "z", "operator": "DoesNotExist"}]}), true)]
    #[case(json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}), false)]
    fn selects(#[case] selector: Value, #[case] expected: bool) {
        let parsed: Selector = serde_json::from_value(selector.clone()).unwrap();
        assert_eq!(
            parsed.matches(&[("a", "1")].into_iter().collect()),
            expected
        );
        assert_eq!(parsed.to_json(), selector);
    }

    #[test]
    fn selectors_print_as_in_go() {
        assert_eq!(go_selector(None), "nil");
        assert_eq!(
            go_selector(Some(&json!({"matchLabels": {"a": "b"},
                "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]}))),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
    }
}
