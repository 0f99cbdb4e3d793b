//! Starting a release: what changes, how carefully, and beside it the plan that the hub's own planner
//! makes of it, anew with every edit.

use std::str::FromStr;

use gantry_api::{
    CountOrPercent, Group, Release, ReleaseSpec, Span, StrategySpec,
    release::{Method, Slice},
    revision::{ConfigFile, RevisionChange},
    strategy::{Accept, OnFailure, Pause, StrategyChoice, WithinBatch},
};
use gantry_hub::{
    diff,
    release::{Preview, World, cells, gate::Answers, preview},
};
use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;
use maud::{Markup, html};

use super::{Block, Nav, Page, group, widgets};
use crate::{access::Right, app::Cx, error::Fail, messages::M, view::Params};

/// The release that a form asks for.
///
/// # Errors
/// Which field is wrong, and how to write it.
pub fn wish(group: &Group, form: &Params, by: &str) -> Result<ReleaseSpec, Fail> {
    let mut revision = RevisionChange::default();
    let to = form.get("to");
    if !to.is_empty() {
        revision.to = Some(read(form, "to", "a revision's number")?);
    } else {
        let current = group
            .status
            .as_ref()
            .and_then(|s| s.current.as_ref())
            .map(|c| c.image.as_str());
        let image = form.get("image");
        revision.image =
            Some(image.to_owned()).filter(|i| !i.is_empty() && Some(i.as_str()) != current);
        for line in form
            .text("env")
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
        {
            let Some((name, value)) = line.split_once('=') else {
                return Err(Fail::Bad(format!(
                    "environment: {line:?} is not NAME=VALUE"
                )));
            };
            revision.env.push(EnvVar {
                name: name.trim().to_owned(),
                value: Some(value.to_owned()),
                ..EnvVar::default()
            });
        }
        revision.unset_env = form
            .get("unset")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let path = form.get("path");
        if !path.is_empty() {
            if !path.starts_with('/') {
                return Err(Fail::Bad("file: its path begins with /".to_owned()));
            }
            revision.config.push(ConfigFile {
                path: path.to_owned(),
                text: form.text("file"),
            });
        }
    }
    Ok(ReleaseSpec {
        group: group.name_any(),
        revision,
        strategy: strategy(group, form)?,
        note: form.get("note").to_owned(),
        requested_by: by.to_owned(),
        ..ReleaseSpec::default()
    })
}

fn read<T: FromStr>(form: &Params, field: &str, what: &str) -> Result<T, Fail> {
    let text = form.get(field);
    text.parse()
        .map_err(|_| Fail::Bad(format!("{field}: {text:?} is not {what}")))
}

/// A field that may be empty.
fn maybe<T: FromStr>(form: &Params, field: &str, what: &str) -> Result<Option<T>, Fail> {
    if form.get(field).is_empty() {
        Ok(None)
    } else {
        read(form, field, what).map(Some)
    }
}

fn strategy(group: &Group, form: &Params) -> Result<Option<StrategyChoice>, Fail> {
    match form.get("strategy") {
        "" | "group" => return Ok(None),
        "inline" => {}
        name => {
            return Ok(Some(StrategyChoice {
                name: Some(name.to_owned()),
                inline: None,
            }));
        }
    }
    let count = "a count or percentage, such as 3 or 10%";
    let span = "a length of time, such as 90s or 5m";
    let mut spec = group
        .spec
        .strategy
        .as_ref()
        .and_then(|s| s.inline.clone())
        .unwrap_or_default();
    if let Some(n) = maybe(form, "bastion", "a number")? {
        spec.bastion.instances = n;
    }
    spec.bastion.accept = if form.get("accept") == "Auto" {
        Accept::Auto
    } else {
        Accept::Manual
    };
    let sizes: Result<Vec<CountOrPercent>, _> = form
        .get("sizes")
        .split([' ', ','])
        .filter(|t| !t.is_empty())
        .map(str::parse)
        .collect();
    spec.batches.sizes = sizes.map_err(|e| Fail::Bad(format!("sizes: {e}")))?;
    spec.pause = match form.get("pause") {
        "Never" => Pause::Never,
        "AfterBastion" => Pause::AfterBastion,
        _ => Pause::EachBatch,
    };
    spec.max_unavailable = maybe(form, "max", count)?;
    spec.failure_tolerance = maybe(form, "tolerance", count)?.unwrap_or(CountOrPercent::Count(0));
    spec.interval = maybe(form, "interval", span)?.unwrap_or_default();
    spec.min_ready = maybe(form, "warm", span)?.unwrap_or_default();
    if let Some(deadline) = maybe::<Span>(form, "deadline", span)? {
        spec.deadlines.instance = deadline;
    }
    spec.cells_at_once = maybe(form, "atonce", "a number")?;
    spec.cell_order = form
        .get("order")
        .split([' ', ','])
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect();
    spec.on_failure = if form.get("failure") == "Rollback" {
        OnFailure::Rollback
    } else {
        OnFailure::Pause
    };
    spec.within_batch = if form.get("within") == "LockStep" {
        WithinBatch::LockStep
    } else {
        WithinBatch::SlidingWindow
    };
    Ok(Some(StrategyChoice {
        name: None,
        inline: Some(spec),
    }))
}

/// What such a release would do now.
///
/// # Errors
/// What is missing for there to be a plan at all.
pub async fn look(cx: &Cx, group: &Group, spec: ReleaseSpec) -> Result<Preview, Fail> {
    let tenant = group.namespace().unwrap_or_default();
    let revisions = group::kept(cx, &tenant, &group.name_any()).await?;
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
    let cells = cells(group, &clusters);
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
        @for problem in &seen.problems { p.said role="alert" { (widgets::badge("bad", "■", cx.t(M::Impossible))) " " (problem) } }
        @for wait in &seen.waits { p.hint { (widgets::badge("hold", "◇", cx.t(M::WouldWait))) " " (wait) } }
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
        @if !fields.is_empty() { h3 { (cx.t(M::WhatChanges)) } (group::differences(cx, &fields)) }
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
        None => defaults(&group, params),
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
    let revisions = group::kept(cx, tenant, name).await?;
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

/// The form before anybody has touched it: as the Group's own strategy says.
fn defaults(group: &Group, params: &Params) -> Params {
    let mut all = params.0.clone();
    let mut put = |name: &str, value: String| {
        if !all.iter().any(|(k, _)| k == name) {
            all.push((name.to_owned(), value));
        }
    };
    let current = group.status.as_ref().and_then(|s| s.current.as_ref());
    put(
        "image",
        current.map_or(group.spec.revision.image.clone(), |c| c.image.clone()),
    );
    let choice = group.spec.strategy.as_ref();
    let spec = choice.and_then(|s| s.inline.clone()).unwrap_or_default();
    put("strategy", "group".to_owned());
    put("bastion", spec.bastion.instances.to_string());
    put(
        "accept",
        if spec.bastion.accept == Accept::Auto {
            "Auto"
        } else {
            "Manual"
        }
        .to_owned(),
    );
    let sizes: Vec<String> = spec.batches.sizes.iter().map(ToString::to_string).collect();
    put("sizes", sizes.join(", "));
    let pause = match spec.pause {
        Pause::Never => "Never",
        Pause::AfterBastion => "AfterBastion",
        Pause::EachBatch => "EachBatch",
    };
    put("pause", pause.to_owned());
    put(
        "max",
        spec.max_unavailable
            .map(|m| m.to_string())
            .unwrap_or_default(),
    );
    put("tolerance", spec.failure_tolerance.to_string());
    let long = |span: Span| {
        if span == Span::default() {
            String::new()
        } else {
            span.to_string()
        }
    };
    put("interval", long(spec.interval));
    put("warm", long(spec.min_ready));
    put("deadline", spec.deadlines.instance.to_string());
    put(
        "failure",
        if spec.on_failure == OnFailure::Rollback {
            "Rollback"
        } else {
            "Pause"
        }
        .to_owned(),
    );
    put(
        "within",
        if spec.within_batch == WithinBatch::LockStep {
            "LockStep"
        } else {
            "SlidingWindow"
        }
        .to_owned(),
    );
    put("order", spec.cell_order.join(", "));
    Params(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group() -> Group {
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"app": "cart", "placement": {"cells": []}, "revision": {"image": "cart:1"}},
            "status": {"current": {"revision": 1, "image": "cart:1"}},
        }))
        .unwrap()
    }

    #[test]
    fn a_form_becomes_a_release() {
        let form = Params::parse(
            "image=cart%3A2&env=A%3D1%0D%0AB%3Dx%3Dy&unset=C+D&strategy=inline&bastion=2&accept=Auto&sizes=1%2C+50%25&pause=Never\
             &max=3&tolerance=10%25&interval=30s&failure=Rollback&within=LockStep&atonce=1&order=b+a&note=why",
        );
        let spec = wish(&group(), &form, "ann").unwrap();
        assert_eq!(spec.revision.image.as_deref(), Some("cart:2"));
        assert_eq!(spec.revision.env[1].value.as_deref(), Some("x=y"));
        assert_eq!(spec.revision.unset_env, ["C", "D"]);
        let strategy = spec.strategy.unwrap().inline.unwrap();
        assert_eq!(
            strategy.batches.sizes,
            [CountOrPercent::Count(1), CountOrPercent::Percent(50)]
        );
        assert_eq!(
            (strategy.bastion.instances, strategy.cells_at_once),
            (2, Some(1))
        );
        assert_eq!(
            (spec.requested_by.as_str(), spec.note.as_str()),
            ("ann", "why")
        );
        // The image that runs already is no change; a revision to go back to is all there is.
        assert_eq!(
            wish(&group(), &Params::parse("image=cart%3A1"), "")
                .unwrap()
                .revision
                .image,
            None
        );
        let back = wish(&group(), &Params::parse("to=3&image=x&env=A%3D1"), "").unwrap();
        assert!(back.revision.to == Some(3) && !back.revision.has_changes());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (form, field) in [
            ("to=x", "to:"),
            ("env=A", "environment:"),
            ("path=etc&file=x", "file:"),
            ("strategy=inline&sizes=ten", "sizes:"),
            ("strategy=inline&interval=5", "interval:"),
            ("strategy=inline&max=-1", "max:"),
        ] {
            let fail = wish(&group(), &Params::parse(form), "").unwrap_err();
            assert!(
                fail.detail().starts_with(field),
                "{form}: {}",
                fail.detail()
            );
        }
    }
}
