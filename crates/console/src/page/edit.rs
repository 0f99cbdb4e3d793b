//! An object as YAML, to be edited: the server says as one types whether it would take it, and what changes.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::{Block, group::to_yaml, widgets};
use crate::{
    act::edit::{Target, plain},
    app::Cx,
    error::Fail,
    messages::M,
};

/// A text that was sent and refused.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    /// As it was edited.
    pub text: &'a str,
    /// Before it was edited.
    pub seen: &'a str,
    /// Why it was refused.
    pub fail: &'a Fail,
}

/// The editor of an object that is there, or its text alone for who may not change it.
pub async fn editor(
    cx: &Cx,
    target: &Target,
    object: &Value,
    sent: Option<Sent<'_>>,
) -> Result<Markup, Fail> {
    let now = to_yaml(&plain(object.clone()))?;
    let (text, seen) = sent.map_or((now.as_str(), now.as_str()), |s| (s.text, s.seen));
    if !cx.may(target.right("patch")).await {
        return Ok(html! { h2 { (cx.t(M::Yaml)) } pre.yaml { (text) } });
    }
    let place = target.place();
    Ok(html! {
        h2 { (cx.t(M::Yaml)) }
        form #edit-form.stack method="post" action=(place) data-preview={ (place) "/check" } data-into="verdict" {
            (widgets::csrf(cx))
            input type="hidden" name="seen" value=(seen);
            label.sr for="yaml" { (cx.t(M::Yaml)) }
            textarea #yaml name="yaml" rows=(rows(text)) spellcheck="false" { (text) }
            div.actions { button.primary type="submit" { (cx.t(M::Save)) } }
        }
    })
}

/// Where what the server says of a text comes; of one that was sent and refused it stands there already.
pub fn pane(cx: &Cx, refused: Option<&Fail>) -> Markup {
    html! {
        div #verdict { @match refused {
            Some(fail) => (verdict(cx, &Err(fail.clone()))),
            None => { h2 { (cx.t(M::WhatChanges)) } p.hint { (cx.t(M::EditHint)) } },
        } }
    }
}

/// A text with what is said of it beside it, and more below that.
pub fn beside(text: Markup, said: Markup, more: Vec<Block>) -> Block {
    let said = Block::part("beside", "card", said);
    let right = if more.is_empty() {
        said
    } else {
        let all = [said].into_iter().chain(more).collect();
        Block::group("side", "stacked", all)
    };
    Block::group(
        "edit",
        "two wide",
        vec![Block::part("text", "card", text), right],
    )
}

/// The form of a new object, as text. `more` stands between title and text.
pub fn making(cx: &Cx, title: M, text: &str, to: (&str, &str), more: &Markup) -> Markup {
    let (place, back) = to;
    html! {
        h1 { (cx.t(title)) }
        form #edit-form.stack method="post" action=(place) data-preview={ (place) "/check" } data-into="verdict" {
            (widgets::csrf(cx))
            (more)
            label for="yaml" { (cx.t(M::Yaml)) }
            textarea #yaml name="yaml" rows=(rows(text)) spellcheck="false" { (text) }
            div.actions { button.primary type="submit" { (cx.t(M::Create)) } a.button href=(back) { (cx.t(M::Back)) } }
        }
    }
}

/// As many rows as the text has lines, within reason.
pub fn rows(text: &str) -> usize {
    (text.lines().count() + 2).clamp(10, 40)
}

/// What the server says of an edited text.
pub fn verdict(cx: &Cx, end: &Result<(Value, Value), Fail>) -> Markup {
    html! {
        h2 { (cx.t(M::WhatChanges)) }
        div role="status" {
            @match end {
                Ok((before, after)) if before == after => p.hint { (cx.t(M::EditNothing)) },
                Ok((before, after)) => {
                    p { (widgets::badge("good", "●", cx.t(M::EditTaken))) }
                    (changes(Some(before), Some(after)))
                },
                Err(fail) => { p { (widgets::badge("bad", "■", cx.t(M::Refused))) } p.said { (fail.detail()) } },
            }
        }
    }
}

/// Fields that every write changes.
const NOISE: [&str; 3] = [
    "metadata.resourceVersion",
    "metadata.generation",
    "metadata.managedFields",
];

/// Leaves of a value by their paths.
fn leaves(value: &Value, path: &str, into: &mut BTreeMap<String, String>) {
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                leaves(value, &below(key), into);
            }
        }
        Value::Array(items) if items.iter().any(|i| i.is_object() || i.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                // By name where there is one: what stands before it may have gone.
                let name = item["name"].as_str().map(str::to_owned);
                let name = name.unwrap_or_else(|| index.to_string());
                leaves(item, &format!("{path}[{name}]"), into);
            }
        }
        Value::String(text) => {
            into.insert(path.to_owned(), text.clone());
        }
        other => {
            into.insert(path.to_owned(), other.to_string());
        }
    }
}

/// What differs between two values, field by field.
pub fn differing(
    before: Option<&Value>,
    after: Option<&Value>,
) -> Vec<(String, Option<String>, Option<String>)> {
    let read = |value: Option<&Value>| {
        let mut all = BTreeMap::new();
        if let Some(value) = value.filter(|v| !v.is_null()) {
            leaves(value, "", &mut all);
        }
        all
    };
    let (was, is) = (read(before), read(after));
    let mut paths: Vec<&String> = was.keys().chain(is.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
        .into_iter()
        .filter(|p| !NOISE.iter().any(|n| p.starts_with(n)) && was.get(*p) != is.get(*p))
        .map(|p| (p.clone(), was.get(p).cloned(), is.get(p).cloned()))
        .collect()
}

/// The same as text that shows what went and what came.
pub fn changes(before: Option<&Value>, after: Option<&Value>) -> Markup {
    html! {
        div.diff { pre {
            @for (path, was, is) in differing(before, after) {
                @let colon = if path.is_empty() { "" } else { ": " };
                @if let Some(was) = was { del { "- " (path) (colon) (was) "\n" } }
                @if let Some(is) = is { ins { "+ " (path) (colon) (is) "\n" } }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_names_fields() {
        let before = json!({"metadata": {"resourceVersion": "1"}, "replicas": 3, "env": [{"name": "A", "value": "1"}], "same": 1, "gone": "x"});
        let after = json!({"metadata": {"resourceVersion": "2"}, "replicas": 5, "env": [{"name": "A", "value": "2"}], "same": 1, "list": [1, 2]});
        let text = |t: &str| Some(t.to_owned());
        assert_eq!(
            differing(Some(&before), Some(&after)),
            [
                ("env[A].value".to_owned(), text("1"), text("2")),
                ("gone".to_owned(), text("x"), None),
                ("list".to_owned(), None, text("[1,2]")),
                ("replicas".to_owned(), text("3"), text("5")),
            ]
        );
        assert_eq!(
            differing(None, Some(&json!("whole"))),
            [(String::new(), None, text("whole"))]
        );
        let html = changes(Some(&before), Some(&after)).into_string();
        assert!(
            html.contains("<del>- replicas: 3\n</del><ins>+ replicas: 5\n</ins>"),
            "{html}"
        );
    }
}
