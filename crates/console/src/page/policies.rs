//! Placement policies of members: the list, one of them with its text, a new one, and what it would change.

use gantry_api::PlacementPolicy;
use gantry_scheduler::trial::{Moved, Trial};
use maud::{Markup, html};

use super::{Block, Interest, Nav, Page, edit, widgets};
use crate::{
    access::Right,
    act::{
        self,
        edit::{Target, named},
    },
    app::Cx,
    error::Fail,
    messages::M,
    view::{
        Params,
        policies::{self, PolicyRow},
    },
};

/// What a new policy begins as.
const TEMPLATE: &str = "apiVersion: gantry.dev/v1alpha1
kind: PlacementPolicy
metadata:
  name: spread-zones
spec:
  priority: 0
  pods:
    namespaces: [shop]
  spread:
    - topologyKey: topology.kubernetes.io/zone
      maxSkew: 1
";

fn seen(cx: &Cx) -> Result<(), Fail> {
    if cx.sight.policies {
        Ok(())
    } else {
        Err(Fail::NotFound)
    }
}

async fn may_create(cx: &Cx) -> bool {
    cx.may(Right::gantry("create", "placementpolicies", ""))
        .await
}

/// The list.
///
/// # Errors
/// For who sees no policies.
pub async fn list(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    seen(cx)?;
    let listing = policies::policies(&cx.app.model.read(), params);
    let create = may_create(cx).await;
    let top = html! {
        div.title { h1 { (cx.t(M::Policies)) }
            div.actions { @if create { a.button.primary href="/create/policy" { (cx.t(M::PolicyNew)) } } } }
        div.bar-row {
            (widgets::search(cx, params, &["cluster", "state", "sort"]))
            (widgets::choices(params, "state", &[("", cx.t(M::All)), ("problem", cx.t(M::Problem))]))
        }
    };
    let rows = html! {
        @if listing.items.is_empty() { (widgets::empty(cx.t(M::NoPolicies), &html! { (cx.t(M::NoPoliciesHint)) })) }
        @else { (table(cx, params, &listing.items)) (widgets::pager(cx, &listing, params)) }
    };
    Ok(Page {
        title: cx.t(M::Policies).to_owned(),
        nav: Nav::Policies,
        body: vec![
            Block::part("top", "", top),
            Block::part("rows", "card", rows),
        ],
        interest: Interest::Policies,
        ..Page::default()
    })
}

fn state(cx: &Cx, row: &PolicyRow) -> Markup {
    match (row.problems.is_empty(), row.effective) {
        (false, _) | (_, Some(false)) => widgets::badge("warn", "▲", cx.t(M::Problem)),
        (_, Some(true)) => widgets::badge("good", "●", cx.t(M::PolicyEffective)),
        _ => widgets::badge("dim", "○", cx.t(M::PolicyUnread)),
    }
}

fn chosen(cx: &Cx, row: &PolicyRow) -> Markup {
    html! {
        @if row.pods.is_empty() { (cx.t(M::PolicyAllPods)) }
        @for part in &row.pods { div.mono { (part) } }
    }
}

/// The table of policies.
pub fn table(cx: &Cx, params: &Params, rows: &[PolicyRow]) -> Markup {
    html! {
        div.scroll { table data-rows {
            thead { tr {
                (widgets::sorter(params, "name", cx.t(M::Policy), ""))
                (widgets::sorter(params, "cluster", cx.t(M::Cluster), ""))
                (widgets::sorter(params, "priority", cx.t(M::Priority), "num"))
                th { (cx.t(M::PolicyPods)) }
                th { (cx.t(M::PolicySays)) }
                (widgets::sorter(params, "pods", cx.t(M::Instances), "num"))
                th { (cx.t(M::State)) }
                th.num { (cx.t(M::Age)) }
            } }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" { a href={ "/policies/" (row.cluster) "/" (row.name) } data-row { (row.name) } }
                        td { (row.cluster) }
                        td.num { (row.priority) }
                        td { (chosen(cx, row)) }
                        td { @for line in &row.says { div.mono { (line) } } }
                        td.num { (row.selected) }
                        td { (state(cx, row)) }
                        td.num { (widgets::ago(cx, row.created)) }
                    }
                }
            }
        } }
    }
}

/// One policy: what it says, its text to be edited, and what an edit would change. `sent` is a text that was
/// sent and refused.
///
/// # Errors
/// If there is no such policy, or none that the user may see.
pub async fn one(
    cx: &Cx,
    cluster: &str,
    name: &str,
    sent: Option<edit::Sent<'_>>,
) -> Result<Page, Fail> {
    seen(cx)?;
    // Read, and not taken from the model: it may just have been made.
    let target = Target::policy(cluster, name);
    let object = target.read(cx).await?;
    let policy: PlacementPolicy =
        serde_json::from_value(object.clone()).map_err(|e| Fail::Upstream(e.to_string()))?;
    let row = policies::row(cluster, &policy);
    let delete = cx.may(target.right("delete")).await;
    let change = cx.may(target.right("patch")).await;
    let head = html! {
        div.title { h1 { (name) " " (state(cx, &row)) }
            div.actions { @if delete { a.button.danger href={ (target.place()) "/delete" } { (cx.t(M::Delete)) } } } }
        dl.facts.row {
            (widgets::fact(cx.t(M::Cluster), &html! { (cluster) }))
            (widgets::fact(cx.t(M::Priority), &html! { (row.priority) }))
            (widgets::fact(cx.t(M::PolicyPods), &chosen(cx, &row)))
            (widgets::fact(cx.t(M::Instances), &html! { (row.selected) }))
            (widgets::fact(cx.t(M::Age), &widgets::ago(cx, row.created)))
        }
        @for problem in &row.problems { p.said { (problem) } }
    };
    let editor = edit::editor(cx, &target, &object, sent).await?;
    let right = html! {
        (edit::pane(cx, sent.map(|s| s.fail)))
        (asking(cx, &[cluster.to_owned()], change))
    };
    Ok(Page {
        title: name.to_owned(),
        nav: Nav::Policies,
        crumbs: vec![(cx.t(M::Policies).to_owned(), "/policies".to_owned())],
        body: vec![
            Block::part("head", "", head),
            edit::beside(editor, right, vec![]),
        ],
        ..Page::default()
    })
}

/// The button that asks the scheduler, and where its answer comes.
fn asking(cx: &Cx, clusters: &[String], change: bool) -> Markup {
    html! {
        h2 { (cx.t(M::TrialTitle)) }
        p.hint { (cx.t(M::TrialHint)) }
        @if change {
            div.actions {
                @for cluster in clusters { input type="hidden" name="trial" value=(cluster) form="edit-form"; }
                button type="submit" form="edit-form" formaction="/policies/trial" data-press="/policies/trial" data-into="trial" { (cx.t(M::TrialAsk)) }
            }
        }
        div #trial role="status" {}
    }
}

/// A new policy; `wrong` says why what was sent could not be made.
///
/// # Errors
/// For who may make none.
pub async fn create(cx: &Cx, form: &Params, wrong: Option<&Fail>) -> Result<Page, Fail> {
    seen(cx)?;
    if !may_create(cx).await {
        return Err(Fail::NotFound);
    }
    let all: Vec<String> = cx.app.model.read().members.keys().cloned().collect();
    let asked: Vec<&str> = form.all("cluster").collect();
    let text = if form.get("yaml").is_empty() {
        TEMPLATE.to_owned()
    } else {
        form.text("yaml")
    };
    let clusters = html! {
        @if let Some(fail) = wrong { p.said role="alert" { (fail.detail()) } }
        fieldset { legend { (cx.t(M::Clusters)) }
            @for cluster in &all {
                label.radio { input type="checkbox" name="cluster" value=(cluster) checked[asked.is_empty() || asked.contains(&cluster.as_str())]; (cluster) }
            }
        }
    };
    let to = ("/create/policy", "/policies");
    let left = edit::making(cx, M::PolicyNew, &text, to, &clusters);
    let right = html! { (edit::pane(cx, None)) (asking(cx, &[], true)) };
    Ok(Page {
        title: cx.t(M::PolicyNew).to_owned(),
        nav: Nav::Policies,
        crumbs: vec![(cx.t(M::Policies).to_owned(), "/policies".to_owned())],
        body: vec![edit::beside(left, right, vec![])],
        ..Page::default()
    })
}

/// What each chosen member says of a new policy.
pub async fn judged(cx: &Cx, form: &Params) -> Markup {
    let text = form.text("yaml");
    let mut lines = Vec::new();
    for cluster in form.all("cluster") {
        let end = match named(&text) {
            Ok((_, name)) => Target::policy(cluster, &name).create(cx, &text, true).await,
            Err(fail) => Err(fail),
        };
        lines.push((cluster, end));
    }
    html! {
        h2 { (cx.t(M::WhatChanges)) }
        @if lines.is_empty() { p.hint { (cx.t(M::PolicyNowhere)) } }
        ul.plain role="status" {
            @for (cluster, end) in &lines {
                li { @match end {
                    Ok(()) => { (widgets::badge("good", "●", cx.t(M::WouldBeMade))) " " (cluster) },
                    Err(fail) => { (widgets::badge("bad", "■", cx.t(M::Refused))) " " (cluster) div.said { (fail.detail()) } },
                } }
            }
        }
    }
}

/// Makes a new policy on each chosen member; where to go then.
///
/// # Errors
/// The first refusal; those before it are made.
pub async fn make(cx: &Cx, form: &Params) -> Result<String, Fail> {
    seen(cx)?;
    let text = form.text("yaml");
    let (_, name) = named(&text)?;
    let mut last = None;
    for cluster in form.all("cluster") {
        Target::policy(cluster, &name)
            .create(cx, &text, false)
            .await?;
        last = Some(cluster);
    }
    let cluster = last.ok_or_else(|| Fail::Bad(cx.t(M::PolicyNowhere).to_owned()))?;
    Ok(Target::policy(cluster, &name).place())
}

/// What the scheduler says of a text on each member that is asked about.
pub async fn trials(cx: &Cx, form: &Params) -> Vec<(String, Result<Trial, Fail>)> {
    let read = |text: &str| -> Result<PlacementPolicy, Fail> {
        let (_, name) = named(text)?;
        let value = Target::policy("", &name).parse(text)?;
        serde_json::from_value(value).map_err(|e| Fail::Bad(e.to_string()))
    };
    let policy = read(&form.text("yaml"));
    let mut clusters: Vec<&str> = form.all("trial").chain(form.all("cluster")).collect();
    clusters.dedup();
    let mut all = Vec::new();
    for cluster in clusters {
        let end = match &policy {
            Ok(policy) => act::trial::policy(cx, cluster, policy.clone()).await,
            Err(fail) => Err(fail.clone()),
        };
        all.push((cluster.to_owned(), end));
    }
    all
}

/// Pods of a dry run that are listed.
const LISTED: usize = 50;

/// The same as a picture.
pub fn trial(cx: &Cx, all: &[(String, Result<Trial, Fail>)]) -> Markup {
    html! {
        @if all.is_empty() { p.hint { (cx.t(M::PolicyNowhere)) } }
        @for (cluster, end) in all {
            h3 { (cluster) }
            @match end {
                Err(fail) => p.said { (fail.detail()) },
                Ok(trial) => (one_trial(cx, trial)),
            }
        }
    }
}

fn one_trial(cx: &Cx, trial: &Trial) -> Markup {
    // A pod that would come back to its node is no move: it is where it is by a draw between equals.
    let still = |m: &&Moved| m.to.as_deref() == Some(m.from.as_str());
    let stays = trial.list.iter().filter(still).count();
    let differ = trial.would_differ.saturating_sub(stays);
    let all = trial.must_move + differ;
    let list: Vec<&Moved> = trial
        .list
        .iter()
        .filter(|m| !still(m))
        .take(LISTED)
        .collect();
    html! {
        @for policy in &trial.policies {
            p { (cx.f(M::TrialSelects, &[&policy.pods])) }
            @for problem in &policy.problems { p.said { (widgets::badge("warn", "▲", cx.t(M::Problem))) " " (problem) } }
        }
        @if all == 0 { p { (widgets::badge("good", "●", cx.t(M::TrialNone))) } }
        @else {
            p { (cx.f(M::TrialSays, &[&trial.pods, &trial.must_move, &trial.nowhere, &differ])) }
            div.scroll { table {
                thead { tr { th { (cx.t(M::Instance)) } th { (cx.t(M::From)) } th { (cx.t(M::TrialTo)) } th { (cx.t(M::Why)) } } }
                tbody { @for moved in &list { tr {
                    th scope="row" { (moved.pod) }
                    td { (moved.from) }
                    td { @match &moved.to { Some(to) => (to), None => (widgets::badge("bad", "■", cx.t(M::TrialNowhere))) } }
                    td.message { (moved.why) }
                } } }
            } }
            @if all > list.len() { p.hint { (cx.f(M::AndMore, &[&(all - list.len())])) } }
        }
    }
}

/// The page that asks whether a policy is to go.
///
/// # Errors
/// If there is no such policy, or the user may not.
pub async fn confirm(cx: &Cx, cluster: &str, name: &str) -> Result<Page, Fail> {
    seen(cx)?;
    let target = Target::policy(cluster, name);
    if !cx.may(target.right("delete")).await {
        return Err(Fail::NotFound);
    }
    let selected = {
        let state = cx.app.model.read();
        let member = state.members.get(cluster).ok_or(Fail::NotFound)?;
        let policy = member.policies.get(name).ok_or(Fail::NotFound)?;
        policy.status.as_ref().map_or(0, |s| s.pods)
    };
    let html = html! {
        h1 { (cx.t(M::Delete)) " · " (name) }
        p.big { (cx.f(M::PolicyDeleteSays, &[&selected])) }
        form.stack method="post" action={ (target.place()) "/delete" } {
            (widgets::csrf(cx))
            (widgets::typed(cx, name))
            div.actions {
                button.danger type="submit" { (cx.t(M::Delete)) }
                a.button href=(target.place()) { (cx.t(M::Back)) }
            }
        }
    };
    Ok(Page {
        title: format!("{} · {name}", cx.t(M::Delete)),
        nav: Nav::Policies,
        crumbs: vec![
            (cx.t(M::Policies).to_owned(), "/policies".to_owned()),
            (name.to_owned(), target.place()),
        ],
        body: vec![Block::part("confirm", "card narrow", html)],
        ..Page::default()
    })
}
