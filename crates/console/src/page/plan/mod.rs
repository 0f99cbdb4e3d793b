//! Starting a release: what changes, how carefully, and beside it the plan that the hub's own planner
//! makes of it, anew with every edit.

mod form;
mod rooms;

use gantry_api::{
    Group, Release, ReleaseSpec, StrategySpec,
    release::{Method, Slice},
    strategy::StrategyChoice,
};
use gantry_hub::{
    diff,
    release::{Preview, World, cells, gate::Answers, preview},
};
use kube::ResourceExt;
use maud::{Markup, html};

use super::{Block, Nav, Page, group, revisions, widgets};
use crate::{access::Right, app::Cx, error::Fail, messages::M, view::Params};

pub use form::wish;
pub use rooms::rooms;

/// What such a release would do now.
///
/// # Errors
/// What is missing for there to be a plan at all.
pub async fn look(cx: &Cx, group: &Group, spec: ReleaseSpec) -> Result<Preview, Fail> {
    let tenant = group.namespace().unwrap_or_default();
    let revisions = revisions::kept(cx, &tenant, &group.name_any()).await?;
    let mut release = Release::new("plan", spec);
    release.metadata.namespace = Some(tenant.clone());
    let (app, strategy, lines, clusters) = {
        let state = cx.app.model.read();
        let choice = release
            .spec
            .strategy
            .as_ref()
            .or(group.spec.strategy.as_ref());
        let strategy = match choice {
            Some(StrategyChoice {
                inline: Some(inline),
                ..
            }) => Ok(inline.clone()),
            Some(StrategyChoice {
                name: Some(name), ..
            }) => {
                let found = state.strategies.get(&(tenant.clone(), name.clone()));
                found
                    .map(|s| s.spec.clone())
                    .ok_or_else(|| format!("strategy {name} does not exist"))
            }
            _ => Ok(StrategySpec::default()),
        };
        let lines: Vec<_> = state.lines.values().map(|l| (**l).clone()).collect();
        let clusters: Vec<_> = state.clusters.values().map(|c| (**c).clone()).collect();
        (
            state
                .apps
                .get(&(tenant.clone(), group.spec.app.clone()))
                .cloned(),
            strategy,
            lines,
            clusters,
        )
    };
    let mut cells = cells(group, &clusters);
    {
        let state = cx.app.model.read();
        for cell in &mut cells {
            cell.quotas = state.counted(&cell.cluster, &tenant);
        }
    }
    let world = World {
        release: &release,
        group: Some(group),
        app: app.as_deref(),
        strategy,
        revisions: &revisions,
        cells: &cells,
        lines: &lines,
        answers: &Answers::new(),
        origin: None,
        undoes: false,
    };
    preview(&world, cx.now).map_err(Fail::Bad)
}

/// The plan as a picture.
pub fn picture(cx: &Cx, group: &str, seen: &Result<Preview, Fail>) -> Markup {
    let seen = match seen {
        Ok(seen) => seen,
        Err(fail) => {
            return html! { h2 { (cx.t(M::Plan)) } p.said role="alert" { (fail.detail()) } };
        }
    };
    let plan = &seen.plan;
    let fields = diff::compare(&seen.from.spec, &seen.target.spec);
    html! {
        h2 { (cx.t(M::Plan)) " " span.mono { (seen.from.number) " → " (seen.target.number) } }
        @if fields.is_empty() { p.said { (cx.t(M::NothingChanges)) } }
        @for problem in &seen.problems { p.said role="alert" { (widgets::badge("bad", "■", cx.t(M::Impossible))) " " (widgets::local(cx, problem)) } }
        @for wait in &seen.waits { p.hint { (widgets::badge("hold", "◇", cx.t(M::WouldWait))) " " (widgets::local(cx, wait)) } }
        p { (seen.summary) @if !plan.method_reason.is_empty() { ": " (plan.method_reason) } }
        div.batches.planned {
            @for batch in plan.batches.iter().filter(|b| b.size > 0) {
                section.batch {
                    header { strong { (widgets::batch_name(cx, batch.index)) } span.num { (batch.size) } }
                    @for slice in &batch.slices {
                        div.cell-name { (slice.cell) }
                        div class=(if batch.size > 120 { "tiles dense" } else { "tiles" }) {
                            @for n in (slice.lowest..=slice.highest).rev() {
                                span class={ "tile " (tile(plan.method, slice)) } title=(slice.instance(group, n)) {}
                            }
                        }
                    }
                    footer { (cx.f(M::OutAtMost, &[&batch.out])) }
                }
            }
        }
        ul.legend {
            li { span.tile.t-busy {} (cx.t(M::InPlace)) }
            li { span.tile.t-drain {} (cx.t(M::Recreate)) }
        }
        @if !fields.is_empty() { h3 { (cx.t(M::WhatChanges)) } (revisions::differences(cx, &fields)) }
        (rooms(cx, &plan.rooms))
    }
}

fn tile(method: Method, slice: &Slice) -> &'static str {
    match slice.method.unwrap_or(method) {
        Method::InPlace => "t-busy",
        Method::Recreate => "t-drain",
    }
}

/// The page; `form` is what was sent and could not be done, and why.
///
/// # Errors
/// If there is no such Group, or the user may not release it.
pub async fn page(
    cx: &Cx,
    params: &Params,
    tenant: &str,
    name: &str,
    wrong: Option<(&Params, &Fail)>,
) -> Result<Page, Fail> {
    let group = group::seen(cx, tenant, name).await?;
    if !cx.may(Right::gantry("create", "releases", tenant)).await {
        return Err(Fail::NotFound);
    }
    let form = match wrong {
        Some((form, _)) => form.clone(),
        None => form::defaults(&group, params),
    };
    let seen = match wish(&group, &form, cx.session.name()) {
        Ok(spec) => look(cx, &group, spec).await,
        Err(fail) => Err(fail),
    };
    let strategies: Vec<String> = {
        let state = cx.app.model.read();
        let of_tenant = state.strategies.keys().filter(|k| k.0 == tenant);
        of_tenant.map(|k| k.1.clone()).collect()
    };
    let revisions = revisions::kept(cx, tenant, name).await?;
    let current = group
        .status
        .as_ref()
        .and_then(|s| s.current.as_ref())
        .map(|c| c.revision);
    let field = |field: &str, word: M, hint: &str| {
        html! {
            div.field { label for=(field) { (cx.t(word)) }
            input id=(field) name=(field) value=(form.get(field)) placeholder=(hint) autocomplete="off" spellcheck="false"; }
        }
    };
    let choose = |field: &str, word: M, options: &[(&str, M)]| {
        html! {
            div.field { label for=(field) { (cx.t(word)) }
            select id=(field) name=(field) { @for (value, word) in options { option value=(value) selected[form.get(field) == *value] { (cx.t(*word)) } } } }
        }
    };
    let inline = form.get("strategy") == "inline";
    let html = html! {
        h1 { (cx.t(M::StartRelease)) " · " (name) }
        @if let Some((_, fail)) = wrong { p.said role="alert" { (fail.detail()) } }
        form #release-form.stack method="post" action={ "/groups/" (tenant) "/" (name) "/release" } data-preview={ "/groups/" (tenant) "/" (name) "/plan" } data-into="plan" {
            (widgets::csrf(cx))
            fieldset {
                legend { (cx.t(M::WhatChanges)) }
                div.field { label for="to" { (cx.t(M::Revision)) }
                    select #to name="to" {
                        option value="" { (cx.t(M::NewRevision)) }
                        @for (n, revision) in revisions.iter().rev().filter(|(n, _)| Some(**n) != current) {
                            option value=(n) selected[form.get("to") == n.to_string()] { (n) " · " (revision.spec.image) }
                        }
                    } }
                (field("image", M::Image, "registry.example.com/shop/cart:1.5.0"))
                details open[!form.get("env").is_empty() || !form.get("unset").is_empty()] {
                    summary { (cx.t(M::EnvAndFiles)) }
                    label for="env" { (cx.t(M::EnvSet)) }
                    textarea #env name="env" rows="3" spellcheck="false" placeholder="NAME=VALUE" { (form.text("env")) }
                    (field("unset", M::EnvUnset, "NAME"))
                    (field("path", M::FilePath, "/etc/cart/cart.yaml"))
                    label for="file" { (cx.t(M::FileText)) }
                    textarea #file name="file" rows="3" spellcheck="false" { (form.text("file")) }
                }
            }
            fieldset {
                legend { (cx.t(M::HowCarefully)) }
                div.field { label for="strategy" { (cx.t(M::Strategy)) }
                    select #strategy name="strategy" {
                        option value="group" selected[!inline] { (cx.t(M::StrategyOfGroup)) }
                        option value="inline" selected[inline] { (cx.t(M::StrategyInline)) }
                        @for s in &strategies { option value=(s) selected[form.get("strategy") == s] { (s) } }
                    } }
                div.grid data-shown-by="strategy" data-shown-for="inline" {
                    (field("bastion", M::BastionInstances, "1"))
                    (choose("accept", M::BastionAccept, &[("Manual", M::AcceptManual), ("Auto", M::AcceptAuto)]))
                    (field("sizes", M::BatchSizes, "10%, 30%, 60%"))
                    (choose("pause", M::PauseWhere, &[("Never", M::PauseNever), ("AfterBastion", M::PauseAfterBastion), ("EachBatch", M::PauseEachBatch)]))
                    (field("max", M::MaxUnavailable, "10%"))
                    (field("tolerance", M::FailureTolerance, "0"))
                    (field("interval", M::Interval, "60s"))
                    (field("warm", M::WarmUp, "10s"))
                    (field("deadline", M::InstanceDeadline, "5m"))
                    (choose("failure", M::WhenFailed, &[("Pause", M::FailPause), ("Rollback", M::FailRollback)]))
                    (choose("within", M::WithinBatch, &[("SlidingWindow", M::SlidingWindow), ("LockStep", M::LockStep)]))
                    (field("atonce", M::CellsAtOnce, "1"))
                    (field("order", M::CellOrder, "sh-a, bj-a"))
                }
            }
            (field("note", M::Note, ""))
            div.actions {
                button.primary type="submit" { (cx.t(M::StartRelease)) }
                button type="submit" formaction={ "/groups/" (tenant) "/" (name) "/plan" } name="whole" value="1" data-script-hides { (cx.t(M::PreviewPlan)) }
                a.button href={ "/groups/" (tenant) "/" (name) } { (cx.t(M::Back)) }
            }
        }
    };
    let mut crumbs = group::crumbs(cx, tenant, &group.spec.app);
    crumbs.push((name.to_owned(), format!("/groups/{tenant}/{name}")));
    Ok(Page {
        title: format!("{} · {name}", cx.t(M::StartRelease)),
        nav: Nav::Services,
        crumbs,
        body: vec![Block::group(
            "start",
            "two wide",
            vec![
                Block::part("form", "card", html),
                Block::part("plan", "card sticky", picture(cx, name, &seen)),
            ],
        )],
        ..Page::default()
    })
}
