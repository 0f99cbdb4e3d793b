//! Creating an App and a Group: a form with its YAML beside it. Either may be edited; the hub says of
//! both, as one types, whether it would take them (server dry run).

use gantry_api::{App, Group};
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::{Block, Nav, Page, widgets};
use crate::{access::Right, act, app::Cx, error::Fail, messages::M, view::Params};

/// Ports as people write them: `8080`, or `http:8080, metrics:9090`.
///
/// # Errors
/// Which of them is none.
fn ports(text: &str) -> Result<Vec<Value>, Fail> {
    let words = text.split([' ', ',']).filter(|w| !w.is_empty());
    let read = |(index, word): (usize, &str)| {
        let (name, number) = match word.split_once(':') {
            Some((name, number)) => (name.to_owned(), number),
            None if index == 0 => ("http".to_owned(), word),
            None => (format!("port-{word}"), word),
        };
        match number.parse::<u16>() {
            Ok(port) if port > 0 && !name.is_empty() => Ok(json!({"name": name, "port": port})),
            _ => Err(Fail::Bad(format!(
                "ports: {word:?} is neither a port from 1 to 65535 nor NAME:PORT"
            ))),
        }
    };
    words.enumerate().map(read).collect()
}

/// The objects that a form asks for, as JSON; empty fields are left out.
///
/// # Errors
/// Which field is wrong.
pub fn objects(form: &Params) -> Result<Vec<Value>, Fail> {
    let get = |name: &str| form.get(name).to_owned();
    let (tenant, app) = (get("tenant"), get("app"));
    let group = if get("group").is_empty() {
        format!("{app}-prod")
    } else {
        get("group")
    };
    let number = |name: &str, or: i64| match form.get(name) {
        "" => Ok(or),
        text => text
            .parse::<i64>()
            .map_err(|_| Fail::Bad(format!("{name}: {text:?} is not a number"))),
    };
    let mut spec = Map::new();
    spec.insert(
        "level".into(),
        json!(if get("level").is_empty() {
            "L2".to_owned()
        } else {
            get("level")
        }),
    );
    let owners: Vec<&str> = form
        .get("owners")
        .split([' ', ','])
        .filter(|t| !t.is_empty())
        .collect();
    if !owners.is_empty() {
        spec.insert("owners".into(), json!(owners));
    }
    let ports = ports(form.get("ports"))?;
    let mut probes = Map::new();
    for (field, probe) in [("ready", "ready"), ("live", "live")] {
        if get(field).is_empty() {
            continue;
        }
        let Some(port) = ports.first() else {
            return Err(Fail::Bad(format!(
                "{field}: a path needs a port that answers it"
            )));
        };
        let asked = json!({"httpGet": {"path": get(field), "port": port["port"]}});
        probes.insert(probe.into(), asked);
    }
    if !ports.is_empty() {
        spec.insert("ports".into(), json!(ports));
    }
    if !probes.is_empty() {
        spec.insert("container".into(), json!({"probes": probes}));
    }
    let mut revision = Map::new();
    revision.insert("image".into(), json!(get("image")));
    let mut requests = Map::new();
    for (field, name) in [("cpu", "cpu"), ("memory", "memory")] {
        if !get(field).is_empty() {
            requests.insert(name.into(), json!(get(field)));
        }
    }
    if !requests.is_empty() {
        revision.insert("resources".into(), json!({"requests": requests}));
    }
    let cells: Vec<Value> = form
        .all("cells")
        .flat_map(|c| c.split([' ', ',']))
        .filter(|c| !c.is_empty())
        .map(|c| json!({"name": c}))
        .collect();
    let mut wanted = json!({
        "app": app, "environment": get("environment"), "replicas": number("replicas", 1)?,
        "placement": {"cells": cells}, "revision": revision,
    });
    if !get("strategy").is_empty() {
        wanted["strategy"] = json!({"ref": get("strategy")});
    }
    let head = |kind: &str, name: &str| json!({"apiVersion": "gantry.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": tenant}});
    let mut a = head("App", &app);
    a["spec"] = Value::Object(spec);
    let mut g = head("Group", &group);
    g["spec"] = wanted;
    Ok(vec![a, g])
}

/// The objects as YAML documents.
///
/// # Errors
/// If a field is wrong.
pub fn yaml(objects: &[Value]) -> Result<String, Fail> {
    let texts: Result<Vec<String>, Fail> = objects.iter().map(super::group::to_yaml).collect();
    Ok(texts?.join("---\n"))
}

/// YAML documents as objects.
///
/// # Errors
/// Where it is no YAML, or no App or Group.
pub fn parse(text: &str) -> Result<Vec<Value>, Fail> {
    let mut all = Vec::new();
    for part in text.split("\n---").map(|p| p.trim_start_matches("---")) {
        if part.trim().is_empty() {
            continue;
        }
        let object: Value =
            serde_saphyr::from_str(part).map_err(|e| Fail::Bad(format!("YAML: {e}")))?;
        match object["kind"].as_str() {
            Some("App" | "Group") if object["apiVersion"] == "gantry.dev/v1alpha1" => {
                all.push(object)
            }
            other => {
                return Err(Fail::Bad(format!(
                    "{} is neither an App nor a Group of gantry.dev/v1alpha1",
                    other.unwrap_or("an object without kind")
                )));
            }
        }
    }
    if all.is_empty() {
        return Err(Fail::Bad("there is nothing to create".to_owned()));
    }
    Ok(all)
}

/// What the hub says of the objects: nothing is written.
pub async fn judged(cx: &Cx, objects: &Result<Vec<Value>, Fail>) -> Markup {
    let objects = match objects {
        Ok(objects) => objects,
        Err(fail) => return html! { p.said role="alert" { (fail.detail()) } },
    };
    let mut lines = Vec::new();
    for object in objects {
        let what = format!(
            "{} {}",
            object["kind"].as_str().unwrap_or(""),
            object["metadata"]["name"].as_str().unwrap_or("")
        );
        let end = match object["kind"].as_str() {
            Some("App") => act::create::one::<App>(cx, object, true).await,
            _ => act::create::one::<Group>(cx, object, true).await,
        };
        lines.push((what, end));
    }
    html! {
        ul.plain role="status" {
            @for (what, end) in &lines {
                li {
                    @match end {
                        Ok(act::create::End::Made) => { (widgets::badge("good", "●", cx.t(M::WouldBeMade))) " " (what) },
                        Ok(act::create::End::There) => { (widgets::badge("dim", "○", cx.t(M::IsThere))) " " (what) },
                        Err(fail) => { (widgets::badge("bad", "■", cx.t(M::Refused))) " " (what) div.said { (fail.detail()) } },
                    }
                }
            }
        }
    }
}

/// The YAML of a form, and what the hub says of it: what the script puts beside the form.
pub async fn sync(cx: &Cx, form: &Params) -> Markup {
    let (text, found) = if form.get("edited") == "yaml" {
        let text = form.text("yaml");
        let found = parse(&text);
        (text, found)
    } else {
        match objects(form) {
            Ok(found) => (yaml(&found).unwrap_or_default(), Ok(found)),
            Err(fail) => (form.text("yaml"), Err(fail)),
        }
    };
    html! {
        label for="yaml" { "YAML" }
        textarea #yaml name="yaml" rows="28" spellcheck="false" form="create-form" data-edits="yaml" { (text) }
        (judged(cx, &found).await)
    }
}

/// The page; `wrong` says why what was sent could not be done.
///
/// # Errors
/// For who may create nothing.
pub async fn form(cx: &Cx, form: &Params, wrong: Option<&Fail>) -> Result<Page, Fail> {
    let cells: Vec<String> = {
        let state = cx.app.model.read();
        let all = state.clusters.values().flat_map(|c| &c.spec.cells);
        if cx.sight.clusters {
            all.map(|c| c.name.clone()).collect()
        } else {
            Vec::new()
        }
    };
    // Where nobody has said anything yet: everywhere, in production.
    let mut filled = form.clone();
    if wrong.is_none() && form.all("cells").next().is_none() {
        filled
            .0
            .extend(cells.iter().map(|c| ("cells".to_owned(), c.clone())));
    }
    if wrong.is_none() && form.get("environment").is_empty() {
        filled.0.retain(|(k, _)| k != "environment");
        filled.0.push(("environment".to_owned(), "prod".to_owned()));
    }
    let form = &filled;
    let field = |name: &str, word: M, hint: &str, required: bool| {
        html! { div.field.long[name == "image"] { label for=(name) { (cx.t(word)) } input id=(name) name=(name) value=(form.get(name)) placeholder=(hint) required[required] autocomplete="off" spellcheck="false"; } }
    };
    let chosen: Vec<&str> = form.all("cells").collect();
    let left = html! {
        h1 { (cx.t(M::CreateTitle)) }
        @if let Some(fail) = wrong { p.said role="alert" { (fail.detail()) } }
        form #create-form.stack method="post" action="/create" data-preview="/create/sync" data-into="beside" {
            (widgets::csrf(cx))
            input type="hidden" name="edited" value=(form.get("edited")) data-edited;
            div.grid {
                (field("tenant", M::Tenant, "shop", true))
                (field("app", M::App, "cart", true))
                (field("group", M::Group, "cart-prod", false))
                (field("environment", M::Environment, "prod", false))
                (field("image", M::Image, "registry.example.com/shop/cart:1.4.2", true))
                (field("replicas", M::Instances, "3", false))
                (field("cpu", M::CpuRequested, "250m", false))
                (field("memory", M::MemoryRequested, "256Mi", false))
                (field("ports", M::Ports, "http:8080, metrics:9090", false))
                (field("ready", M::ReadyPath, "/healthz", false))
                (field("live", M::LivePath, "/livez", false))
                (field("owners", M::Owners, "alice@example.com", false))
                div.field { label for="level" { (cx.t(M::Level)) }
                    select #level name="level" { @for l in ["L0", "L1", "L2", "L3"] { option value=(l) selected[form.get("level") == l || form.get("level").is_empty() && l == "L2"] { (l) } } } }
                (field("strategy", M::Strategy, "careful", false))
            }
            fieldset {
                legend { (cx.t(M::Cells)) }
                @if cells.is_empty() { input name="cells" value=(chosen.join(" ")) aria-label=(cx.t(M::Cells)) placeholder="sh-a bj-a"; }
                @for cell in &cells { label.radio { input type="checkbox" name="cells" value=(cell) checked[chosen.contains(&cell.as_str())]; (cell) } }
            }
            div.actions { button.primary type="submit" { (cx.t(M::Create)) } a.button href="/services" { (cx.t(M::Back)) } }
        }
    };
    Ok(Page {
        title: cx.t(M::CreateTitle).to_owned(),
        nav: Nav::Services,
        crumbs: vec![(cx.t(M::Services).to_owned(), "/services".to_owned())],
        body: vec![Block::group(
            "create",
            "two wide",
            vec![
                Block::part("form", "card", left),
                Block::part(
                    "beside",
                    "card",
                    if form.get("app").is_empty() && form.get("edited").is_empty() {
                        html! { label for="yaml" { "YAML" } textarea #yaml name="yaml" rows="28" spellcheck="false" form="create-form" data-edits="yaml" {} p.hint { (cx.t(M::YamlHint)) } }
                    } else {
                        sync(cx, form).await
                    },
                ),
            ],
        )],
        ..Page::default()
    })
}

/// The page before anybody has touched it.
///
/// # Errors
/// For who may create nothing.
pub async fn page(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    let tenant = params.get("tenant");
    if !cx.may(Right::gantry("create", "groups", tenant)).await
        && tenant.is_empty()
        && matches!(&cx.sight.groups, crate::access::Tenants::Some(s) if s.is_empty())
    {
        return Err(Fail::NotFound);
    }
    form(cx, params, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_and_its_yaml_say_the_same() {
        let form = Params::parse(
            "tenant=shop&app=cart&image=cart%3A1&replicas=3&cells=sh-a&cells=bj-a&ports=8080,metrics%3A9090&live=%2Flivez&ready=%2Fhealthz&cpu=250m&level=L1&owners=a,b",
        );
        let made = objects(&form).unwrap();
        assert_eq!(made[1]["metadata"]["name"], "cart-prod");
        assert_eq!(
            made[1]["spec"]["placement"]["cells"],
            json!([{"name": "sh-a"}, {"name": "bj-a"}])
        );
        assert_eq!(
            made[0]["spec"]["container"]["probes"]["ready"]["httpGet"]["path"],
            "/healthz"
        );
        assert_eq!(
            made[0]["spec"]["container"]["probes"]["live"]["httpGet"]["port"],
            8080
        );
        assert_eq!(
            made[0]["spec"]["ports"],
            json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}])
        );
        assert_eq!(parse(&yaml(&made).unwrap()).unwrap(), made);
        serde_json::from_value::<Group>(made[1].clone()).unwrap();
        serde_json::from_value::<App>(made[0].clone()).unwrap();
    }

    #[test]
    fn only_apps_and_groups_are_created_here() {
        for text in [
            "",
            "kind: Pod\napiVersion: v1",
            "a: [",
            "kind: Group\napiVersion: v1",
        ] {
            assert!(matches!(parse(text), Err(Fail::Bad(_))), "{text:?}");
        }
        for (form, field) in [
            ("replicas=many", "replicas"),
            ("ports=http%3A0", "ports"),
            ("ports=80%2070000", "ports"),
            ("ports=%3A80", "ports"),
            ("ready=%2Fhealthz", "ready"),
        ] {
            let Err(Fail::Bad(why)) = objects(&Params::parse(form)) else {
                panic!("{form} was taken");
            };
            assert!(why.starts_with(field), "{why}");
        }
    }
}
