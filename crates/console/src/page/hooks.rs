//! Notification hooks: the list, one with what came of its deliveries, a new one, and a test.

use gantry_api::{Notification, labels};
use kube::ResourceExt;
use maud::{Markup, html};

use super::{Block, Interest, Nav, Page, edit, widgets};
use crate::{
    access::{Right, Tenants},
    act::edit::{Target, named},
    app::Cx,
    error::Fail,
    messages::M,
    view::{Params, matches, words},
};

/// What a new one begins as.
fn template(namespace: &str) -> String {
    format!(
        "apiVersion: gantry.dev/v1alpha1
kind: Notification
metadata:
  name: releases
  namespace: {namespace}
spec:
  url: https://hooks.example.com/gantry
  format: CloudEvents
  events:
    - kinds: [Release]
      outcomes: [succeeded, failed, rolled-back]
"
    )
}

/// In which namespaces someone sees hooks.
async fn sees(cx: &Cx) -> Tenants {
    let names = {
        let state = cx.app.model.read();
        let all = state.tenants().into_iter().map(str::to_owned);
        all.chain([labels::SYSTEM_NAMESPACE.to_owned()]).collect()
    };
    let all = Right::gantry("list", "notifications", "");
    let of_one = |n: &str| Right::gantry("list", "notifications", n);
    cx.session.which(all, &names, of_one).await
}

fn state(cx: &Cx, hook: &Notification) -> Markup {
    let status = hook.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    match ready.map(|c| c.status.as_str()) {
        _ if hook.spec.paused => widgets::badge("hold", "‖", cx.t(M::PhasePaused)),
        Some("True") => widgets::badge("good", "●", cx.t(M::HookTaken)),
        Some(_) => widgets::badge("bad", "■", cx.t(M::HookRefused)),
        None => widgets::badge("dim", "○", cx.t(M::HookUntried)),
    }
}

/// The list.
///
/// # Errors
/// For who sees none anywhere.
pub async fn list(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    let sees = sees(cx).await;
    if sees == Tenants::Some(Default::default()) {
        return Err(Fail::NotFound);
    }
    let q = words(params.get("q"));
    let hooks: Vec<std::sync::Arc<Notification>> = {
        let state = cx.app.model.read();
        let all = state.hooks.iter();
        all.filter(|(key, _)| sees.see(&key.0) && matches(&q, &[&key.0, &key.1]))
            .map(|(_, hook)| hook.clone())
            .collect()
    };
    let listing = crate::view::Listing::cut(hooks, params, |hook| hook);
    let create = cx
        .may(Right::gantry("create", "notifications", first(&sees)))
        .await;
    let top = html! {
        div.title { h1 { (cx.t(M::Hooks)) }
            div.actions { @if create { a.button.primary href="/create/notification" { (cx.t(M::HookNew)) } } } }
        div.bar-row { (widgets::search(cx, params, &[])) }
    };
    let rows = html! {
        @if listing.items.is_empty() { (widgets::empty(cx.t(M::NoHooks), &html! { (cx.t(M::HooksHint)) })) }
        @else { (table(cx, &listing.items)) (widgets::pager(cx, &listing, params)) }
    };
    Ok(Page {
        title: cx.t(M::Hooks).to_owned(),
        nav: Nav::Settings,
        crumbs: vec![(cx.t(M::Settings).to_owned(), "/settings".to_owned())],
        body: vec![
            Block::part("top", "", top),
            Block::part("rows", "card", rows),
        ],
        interest: Interest::Hooks,
    })
}

/// A namespace of those that someone sees; of all: every one.
fn first(sees: &Tenants) -> &str {
    match sees {
        Tenants::All => "",
        Tenants::Some(some) => some.iter().next().map_or("", String::as_str),
    }
}

/// The table of hooks.
pub fn table(cx: &Cx, hooks: &[std::sync::Arc<Notification>]) -> Markup {
    html! {
        div.scroll { table data-rows {
            thead { tr { th { (cx.t(M::Name)) } th { (cx.t(M::Tenant)) } th { (cx.t(M::HookFormat)) } th { (cx.t(M::State)) } th.num { (cx.t(M::HookDelivered)) } th.num { (cx.t(M::HookDead)) } th { (cx.t(M::HookLast)) } th { (cx.t(M::Message)) } } }
            tbody { @for hook in hooks {
                @let status = hook.status.clone().unwrap_or_default();
                @let namespace = hook.namespace().unwrap_or_default();
                tr {
                    th scope="row" { a href={ "/notifications/" (namespace) "/" (hook.name_any()) } data-row { (hook.name_any()) } }
                    td { @if namespace == labels::SYSTEM_NAMESPACE { (cx.t(M::WholeFleet)) } @else { (namespace) } }
                    td { (format!("{:?}", hook.spec.format)) }
                    td { (state(cx, hook)) }
                    td.num { (status.delivered) }
                    td.num { @if status.dead > 0 { strong { (status.dead) } } @else { "0" } }
                    td { (widgets::ago(cx, status.last_delivered.as_ref().map(|t| t.0))) }
                    td.message { (status.message) }
                }
            } }
        } }
    }
}

/// Whether someone sees a hook; the hook.
///
/// # Errors
/// If they do not, or there is none.
pub async fn seen(
    cx: &Cx,
    namespace: &str,
    name: &str,
) -> Result<std::sync::Arc<Notification>, Fail> {
    let right = Right::gantry("list", "notifications", namespace);
    if !cx.may(right).await {
        return Err(Fail::NotFound);
    }
    let key = (namespace.to_owned(), name.to_owned());
    let found = cx.app.model.read().hooks.get(&key).cloned();
    if let Some(found) = found {
        return Ok(found);
    }
    // It may just have been made.
    let object = Target::notification(namespace, name).read(cx).await?;
    let hook = serde_json::from_value(object).map_err(|e| Fail::Upstream(e.to_string()))?;
    Ok(std::sync::Arc::new(hook))
}

/// One hook: what came of its deliveries, its text to be edited, and a test.
///
/// # Errors
/// If there is none, or none that the user may see.
pub async fn one(
    cx: &Cx,
    namespace: &str,
    name: &str,
    sent: Option<edit::Sent<'_>>,
) -> Result<Page, Fail> {
    let hook = seen(cx, namespace, name).await?;
    let target = Target::notification(namespace, name);
    let object = target.read(cx).await?;
    let change = cx.may(target.right("patch")).await;
    let status = hook.status.clone().unwrap_or_default();
    let head = html! {
        div.title { h1 { (name) " " (state(cx, &hook)) }
            div.actions { @if change {
                form method="post" action={ (target.place()) "/test" } { (widgets::csrf(cx)) button type="submit" { (cx.t(M::HookTest)) } }
            } }
        }
        dl.facts.row {
            (widgets::fact(cx.t(M::Tenant), &html! { (namespace) }))
            (widgets::fact(cx.t(M::HookFormat), &html! { (format!("{:?}", hook.spec.format)) }))
            (widgets::fact(cx.t(M::HookDelivered), &html! { (status.delivered) }))
            (widgets::fact(cx.t(M::HookWaiting), &html! { (status.waiting) }))
            (widgets::fact(cx.t(M::HookDead), &html! { (status.dead) }))
            (widgets::fact(cx.t(M::HookLast), &widgets::ago(cx, status.last_delivered.as_ref().map(|t| t.0))))
        }
        @if !status.message.is_empty() { p.said { (status.message) } }
    };
    let dead = html! {
        h2 { (cx.t(M::HookDead)) }
        @if status.dead_letters.is_empty() { p.hint { (cx.t(M::HookNoneDead)) } }
        @else { div.scroll { table {
            thead { tr { th { (cx.t(M::When)) } th { (cx.t(M::Object)) } th.num { (cx.t(M::HookTries)) } th { (cx.t(M::Message)) } } }
            tbody { @for letter in &status.dead_letters { tr {
                td { (widgets::ago(cx, Some(letter.at.0))) } td { (letter.about) } td.num { (letter.tries) } td.message { (letter.message) }
            } } }
        } } }
    };
    let editor = edit::editor(cx, &target, &object, sent).await?;
    let right = edit::pane(cx, sent.map(|s| s.fail));
    let dead = Block::part("dead", "card", dead);
    Ok(Page {
        title: name.to_owned(),
        nav: Nav::Settings,
        crumbs: vec![
            (cx.t(M::Settings).to_owned(), "/settings".to_owned()),
            (cx.t(M::Hooks).to_owned(), "/notifications".to_owned()),
        ],
        body: vec![
            Block::part("head", "", head),
            edit::beside(editor, right, vec![dead]),
        ],
        interest: Interest::Hooks,
    })
}

/// A new hook; `wrong` says why what was sent could not be made.
///
/// # Errors
/// For who may make none.
pub async fn create(cx: &Cx, form: &Params, wrong: Option<&Fail>) -> Result<Page, Fail> {
    let sees = sees(cx).await;
    let namespace = match form.get("namespace") {
        "" => first(&sees).to_owned(),
        given => given.to_owned(),
    };
    if !cx
        .may(Right::gantry("create", "notifications", &namespace))
        .await
    {
        return Err(Fail::NotFound);
    }
    let text = match form.get("yaml") {
        "" if namespace.is_empty() => template(labels::SYSTEM_NAMESPACE),
        "" => template(&namespace),
        _ => form.text("yaml"),
    };
    let more = html! {
        @if let Some(fail) = wrong { p.said role="alert" { (fail.detail()) } }
        p.hint { (cx.t(M::HookUrlHint)) }
    };
    let to = ("/create/notification", "/notifications");
    let left = edit::making(cx, M::HookNew, &text, to, &more);
    let right = edit::pane(cx, None);
    Ok(Page {
        title: cx.t(M::HookNew).to_owned(),
        nav: Nav::Settings,
        crumbs: vec![(cx.t(M::Hooks).to_owned(), "/notifications".to_owned())],
        body: vec![edit::beside(left, right, vec![])],
        ..Page::default()
    })
}

/// Makes a new hook, or asks whether it would be made; its page.
///
/// # Errors
/// What is wrong with it, or that the hub refuses it.
pub async fn make(cx: &Cx, form: &Params, dry_run: bool) -> Result<String, Fail> {
    let text = form.text("yaml");
    let (namespace, name) = named(&text)?;
    if namespace.is_empty() {
        return Err(Fail::Bad(
            "metadata.namespace: the tenant's, or gantry-system for the whole fleet".to_owned(),
        ));
    }
    let target = Target::notification(&namespace, &name);
    target.create(cx, &text, dry_run).await?;
    Ok(target.place())
}

/// What the hub says of a new hook.
pub async fn judged(cx: &Cx, form: &Params) -> Markup {
    let end = make(cx, form, true).await;
    html! {
        h2 { (cx.t(M::WhatChanges)) }
        div role="status" { @match end {
            Ok(_) => (widgets::badge("good", "●", cx.t(M::WouldBeMade))),
            Err(fail) => { (widgets::badge("bad", "■", cx.t(M::Refused))) p.said { (fail.detail()) } },
        } }
    }
}
