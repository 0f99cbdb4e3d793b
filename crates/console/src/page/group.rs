//! A Group: how it is, its instances by cell, its revisions, what happened.

use std::collections::BTreeMap;

use gantry_api::{Group, labels};
use gantry_hub::{diff, world::Revision};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use maud::{Markup, html};
use std::sync::Arc;

use super::{Block, Interest, Nav, Page, releases, widgets};
use crate::{
    access::Right,
    app::Cx,
    error::Fail,
    messages::M,
    model::Key,
    view::{
        Params,
        groups::{self, GroupRow, InstanceRow},
        releases as rows,
    },
};

/// The Group, if the user may see it.
///
/// # Errors
/// If they may not, or there is none.
pub async fn seen(cx: &Cx, tenant: &str, name: &str) -> Result<Arc<Group>, Fail> {
    let visible = cx.sight.groups.see(tenant)
        || cx
            .may(Right::gantry("get", "groups", tenant).named(name))
            .await;
    if !visible {
        return Err(Fail::NotFound);
    }
    let key = (tenant.to_owned(), name.to_owned());
    cx.app
        .model
        .read()
        .groups
        .get(&key)
        .cloned()
        .ok_or(Fail::NotFound)
}

/// Above every page of a Group.
pub fn crumbs(cx: &Cx, tenant: &str, app: &str) -> Vec<(String, String)> {
    vec![
        (cx.t(M::Services).to_owned(), "/services".to_owned()),
        (tenant.to_owned(), format!("/services/{tenant}")),
        (app.to_owned(), format!("/services/{tenant}/{app}")),
    ]
}

/// The page.
///
/// # Errors
/// If there is no such Group, or none that the user may see.
pub async fn page(cx: &Cx, params: &Params, tenant: &str, name: &str) -> Result<Page, Fail> {
    let group = seen(cx, tenant, name).await?;
    let key: Key = (tenant.to_owned(), name.to_owned());
    let tab = params.get("tab");
    let releases = cx.sight.releases.see(tenant);
    let row = groups::row(&cx.app.model.read(), &key, releases).ok_or(Fail::NotFound)?;
    let mut body = vec![Block::part("head", "", head(cx, &group, &row, tab).await)];
    match tab {
        "revisions" => body.push(Block::part(
            "revisions",
            "card",
            revisions(cx, params, &group).await?,
        )),
        "events" => body.push(Block::part(
            "events",
            "card",
            events(cx, tenant, "Group", name).await?,
        )),
        "logs" => body.push(Block::part("logs", "card", logs(cx, tenant, name).await?)),
        "yaml" => body.push(Block::part("yaml", "card", yaml(cx, &group)?)),
        _ => {
            let (running, recent, listing) = {
                let state = cx.app.model.read();
                let all = state.releases_of(&key).filter(|_| releases);
                let recent: Vec<_> = all.take(5).map(|r| rows::row(r)).collect();
                let open: Vec<_> = recent
                    .iter()
                    .filter(|r| r.finished.is_none() && r.phase != "Failed")
                    .cloned()
                    .collect();
                (open, recent, groups::instances(&state, &key, params))
            };
            if !running.is_empty() {
                let html =
                    html! { ul.flights { @for r in &running { (releases::flight(cx, r)) } } };
                body.push(Block::part("running", "card", html));
            }
            body.push(Block::group(
                "overview",
                "two",
                vec![
                    Block::part("cells", "card", cells(cx, &group, &row)),
                    Block::part("recent", "card", html! {
                        h2 { (cx.t(M::LastReleases)) }
                        @if recent.is_empty() { (widgets::empty(cx.t(M::NoReleases), &html! { (cx.t(M::NoReleasesHint)) })) }
                        @else {
                            (releases::table(cx, &recent, params, true))
                            p.hint { a href={ "/releases?tenant=" (tenant) "&group=" (name) } { (cx.t(M::AllReleases)) } }
                        }
                    }),
                ],
            ));
            let html = html! {
                div.title { h2 { (cx.t(M::Instances)) span.number { (listing.total) } }
                    (widgets::choices(params, "state", &[("", cx.t(M::All)), ("trouble", cx.t(M::NotReady)), ("out", cx.t(M::OutOfService))])) }
                @if listing.items.is_empty() { (widgets::empty(cx.t(M::NoInstances), &html! { (cx.t(M::NoInstancesHint)) })) }
                @else { (instances(cx, &listing.items, params)) }
                (widgets::pager(cx, &listing, params))
            };
            body.push(Block::part("instances", "card", html));
        }
    }
    Ok(Page {
        title: name.to_owned(),
        nav: Nav::Services,
        crumbs: crumbs(cx, tenant, &group.spec.app),
        body,
        interest: Interest::Group(key),
    })
}

async fn head(cx: &Cx, group: &Group, row: &GroupRow, tab: &str) -> Markup {
    let (tenant, name) = (row.tenant.as_str(), row.name.as_str());
    let release = cx.may(Right::gantry("create", "releases", tenant)).await;
    let scale = cx
        .may(
            Right::gantry("patch", "groups", tenant)
                .named(name)
                .sub("scale"),
        )
        .await;
    let logs = cx.may(Right::core("get", "pods", tenant).sub("log")).await;
    let mut tabs = vec![("", M::Overview), ("revisions", M::Revisions)];
    tabs.extend(logs.then_some(("logs", M::Logs)));
    tabs.extend([("events", M::Events), ("yaml", M::Yaml)]);
    let tone = if row.in_service < row.desired {
        "warn"
    } else {
        "good"
    };
    html! {
        div.title {
            h1 { (name) " " (widgets::health(cx, row.health)) }
            div.actions {
                @if release { a.button.primary href={ "/groups/" (tenant) "/" (name) "/release" } { (cx.t(M::StartRelease)) } }
                @if scale { a.button href={ "/groups/" (tenant) "/" (name) "/scale" } { (cx.t(M::Scale)) } }
            }
        }
        @if !row.message.is_empty() { p.said { (row.message) } }
        dl.facts.row {
            (widgets::fact(cx.t(M::InService), &html! { strong { (row.in_service) } " / " (row.desired) (widgets::bar(i64::from(row.in_service), i64::from(row.desired), tone, &cx.f(M::InServiceOf, &[&row.in_service, &row.desired]))) }))
            (widgets::fact(cx.t(M::ReadyWord), &html! { (row.ready) }))
            (widgets::fact(cx.t(M::Revision), &html! { span.mono { (row.revision.map_or("—".to_owned(), |n| n.to_string())) } }))
            (widgets::fact(cx.t(M::Image), &widgets::image(&row.image)))
            (widgets::fact(cx.t(M::Environment), &html! { (if row.environment.is_empty() { "—" } else { &row.environment }) }))
            (widgets::fact(cx.t(M::Changed), &html! { (widgets::ago(cx, row.changed)) " " small { (row.by) } }))
            (widgets::fact(cx.t(M::MaxUnavailable), &html! { (group.spec.availability.max_unavailable) }))
        }
        nav.tabs aria-label=(name) {
            @for (value, word) in &tabs {
                a href={ "/groups/" (tenant) "/" (name) (if value.is_empty() { String::new() } else { format!("?tab={value}") }) }
                    aria-current=[(tab == *value).then_some("page")] { (cx.t(*word)) }
            }
        }
    }
}

/// The logs of all instances, merged by time.
async fn logs(cx: &Cx, tenant: &str, name: &str) -> Result<Markup, Fail> {
    if !cx.may(Right::core("get", "pods", tenant).sub("log")).await {
        return Err(Fail::NotFound);
    }
    Ok(widgets::logs(
        cx,
        &format!("/logs/{tenant}/{name}?tail=100"),
    ))
}

/// From Service to instances, cell by cell: a picture that is a table.
fn cells(cx: &Cx, group: &Group, row: &GroupRow) -> Markup {
    let status = group.status.clone().unwrap_or_default();
    let services: Vec<String> = if group.spec.services.is_empty() {
        vec![row.name.clone()]
    } else {
        group.spec.services.iter().map(|s| s.name.clone()).collect()
    };
    html! {
        h2 { (cx.t(M::Cells)) span.number { (status.cells.len()) } }
        p.topology {
            span.node-box { (cx.t(M::Service)) " " b { (services.join(", ")) } } span aria-hidden="true" { " → " }
            span.node-box { (cx.t(M::Group)) " " b { (row.name) } } span aria-hidden="true" { " → " }
            span.node-box { b { (status.cells.len()) } " " (cx.t(M::Cells)) } span aria-hidden="true" { " → " }
            span.node-box { b { (status.replicas) } " " (cx.t(M::Instances)) }
        }
        div.scroll { table {
            thead { tr { th { (cx.t(M::Cell)) } th { (cx.t(M::Cluster)) } th.num { (cx.t(M::InService)) } th.num { (cx.t(M::ReadyWord)) } th.num { (cx.t(M::Updated)) } th { (cx.t(M::State)) } } }
            tbody {
                @for cell in &status.cells {
                    tr {
                        th scope="row" { a href={ "?cell=" (cell.name) } { (cell.name) } }
                        td { (cell.cluster) }
                        td.num {
                            (widgets::bar(i64::from(cell.in_service), i64::from(cell.desired), if cell.in_service < cell.desired { "warn" } else { "good" }, &cx.f(M::InServiceOf, &[&cell.in_service, &cell.desired])))
                            span.n { (cell.in_service) " / " (cell.desired) }
                        }
                        td.num { (cell.ready) }
                        td.num { (cell.updated) }
                        td {
                            @if let Some(since) = &cell.unreachable_since { (widgets::badge("bad", "■", cx.t(M::Unreachable))) " " (widgets::ago(cx, Some(since.0))) }
                            @else if cell.in_service < cell.desired { (widgets::badge("warn", "▲", cx.t(M::HealthDegraded))) }
                            @else { (widgets::badge("good", "●", cx.t(M::HealthHealthy))) }
                        }
                    }
                }
            }
        } }
    }
}

/// A table of instances.
pub fn instances(cx: &Cx, all: &[InstanceRow], params: &Params) -> Markup {
    html! {
        div.scroll { table data-rows {
            thead { tr {
                (widgets::sorter(params, "name", cx.t(M::Instance), ""))
                (widgets::sorter(params, "state", cx.t(M::State), ""))
                th { (cx.t(M::Cell)) }
                (widgets::sorter(params, "node", cx.t(M::Node), ""))
                th { (cx.t(M::Address)) }
                (widgets::sorter(params, "revision", cx.t(M::Revision), "num"))
                (widgets::sorter(params, "restarts", cx.t(M::Restarts), "num"))
                (widgets::sorter(params, "age", cx.t(M::Age), "num"))
                th { (cx.t(M::Message)) }
            } }
            tbody {
                @for row in all {
                    @let i = &row.instance;
                    tr {
                        th scope="row" { a href={ "/instances/" (row.cluster) "/" (i.tenant) "/" (i.name) } data-row { (i.name) } }
                        td { (state(cx, row)) }
                        td { (i.cell) }
                        td { @if cx.sight.nodes && !i.node.is_empty() { a href={ "/nodes/" (row.cluster) "/" (i.node) } { (i.node) } } @else { (i.node) } }
                        td.mono { (i.address) }
                        td.num { (i.revision.map_or("—".to_owned(), |n| n.to_string())) }
                        td.num { @if i.restarts > 0 { strong { (i.restarts) } } @else { "0" } }
                        td.num { (widgets::ago(cx, i.created)) }
                        td.message { (i.trouble) }
                    }
                }
            }
        } }
    }
}

/// How an instance is.
pub fn state(cx: &Cx, row: &InstanceRow) -> Markup {
    let i = &row.instance;
    let (tone, shape, word) = match (i.terminating, i.ready, i.in_service) {
        (true, ..) => ("dim", "○", M::Terminating),
        (_, true, true) => ("good", "●", M::InService),
        (_, true, false) => ("hold", "◇", M::OutOfService),
        _ => ("bad", "▲", M::NotReady),
    };
    widgets::badge(tone, shape, cx.t(word))
}

/// The revisions of a Group that are kept, read as the user.
///
/// # Errors
/// If they may not read them.
pub async fn kept(cx: &Cx, tenant: &str, group: &str) -> Result<BTreeMap<i64, Revision>, Fail> {
    let api: Api<ControllerRevision> = Api::namespaced(cx.session.client.clone(), tenant);
    let selector = ListParams::default().labels(&format!("{}={group}", labels::GROUP));
    let list = api.list(&selector).await?;
    let read = list.items.iter().filter_map(gantry_hub::read_revision);
    Ok(read.map(|r| (r.number, r)).collect())
}

async fn revisions(cx: &Cx, params: &Params, group: &Group) -> Result<Markup, Fail> {
    let (tenant, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let all = kept(cx, &tenant, &name).await?;
    let current = group
        .status
        .as_ref()
        .and_then(|s| s.current.as_ref())
        .map(|c| c.revision);
    let number = |key: &str| params.get(key).parse::<i64>().ok();
    let newest = all.keys().next_back().copied();
    let from = number("from")
        .or_else(|| all.keys().rev().nth(1).copied())
        .or(current);
    let to = number("to").or(newest);
    let pair = from
        .zip(to)
        .and_then(|(a, b)| Some((all.get(&a)?, all.get(&b)?)));
    let release = cx.may(Right::gantry("create", "releases", &tenant)).await;
    Ok(html! {
        h2 { (cx.t(M::Revisions)) span.number { (all.len()) } }
        div.scroll { table data-rows {
            thead { tr { th { (cx.t(M::Revision)) } th { (cx.t(M::Image)) } th { (cx.t(M::ChangedFields)) } th {} } }
            tbody {
                @for (n, revision) in all.iter().rev() {
                    @let before = all.range(..n).next_back().map(|(_, r)| r);
                    tr {
                        th scope="row" { span.mono { (n) } @if current == Some(*n) { " " (widgets::badge("good", "●", cx.t(M::Current))) } }
                        td { (widgets::image(&revision.spec.image)) }
                        td { @if let Some(before) = before { (diff::changed(&before.spec, &revision.spec).join(", ")) } }
                        td.num {
                            @if let Some(before) = before { a href={ "?tab=revisions&from=" (before.number) "&to=" (n) } data-row { (cx.t(M::Compare)) } }
                            @if release && current != Some(*n) { " " a href={ "/groups/" (tenant) "/" (name) "/release?to=" (n) } { (cx.t(M::GoBackTo)) } }
                        }
                    }
                }
            }
        } }
        @if let Some((a, b)) = pair {
            h2 { (cx.f(M::DiffOf, &[&a.number, &b.number])) }
            (differences(cx, &diff::compare(&a.spec, &b.spec)))
        }
    })
}

/// How two revisions differ.
pub fn differences(cx: &Cx, fields: &[diff::Field]) -> Markup {
    html! {
        @if fields.is_empty() { p.hint { (cx.t(M::SameRevision)) } }
        @for field in fields {
            div.diff {
                div.field { (field.name) }
                pre {
                    @for (mark, line) in &field.lines {
                        @match mark {
                            '-' => del { "- " (line) "\n" },
                            '+' => ins { "+ " (line) "\n" },
                            _ => span { "  " (line) "\n" },
                        }
                    }
                }
            }
        }
    }
}

/// Events about an object of the hub, read as the user.
///
/// # Errors
/// If the hub does not answer.
pub async fn events(cx: &Cx, tenant: &str, kind: &str, name: &str) -> Result<Markup, Fail> {
    let api: Api<Event> = Api::namespaced(cx.session.client.clone(), tenant);
    let wanted = ListParams::default().fields(&format!(
        "involvedObject.kind={kind},involvedObject.name={name}"
    ));
    let mut list = match api.list(&wanted).await.map_err(Fail::from) {
        Ok(list) => list.items,
        Err(Fail::Forbidden(why)) => return Ok(html! { p.said { (why) } }),
        Err(fail) => return Err(fail),
    };
    Ok(event_table(cx, &mut list))
}

/// A table of events, newest first.
pub fn event_table(cx: &Cx, list: &mut [Event]) -> Markup {
    let last = |e: &Event| {
        let series = e
            .series
            .as_ref()
            .and_then(|s| s.last_observed_time.as_ref())
            .map(|t| t.0);
        let at = e
            .last_timestamp
            .as_ref()
            .map(|t| t.0)
            .or(e.event_time.as_ref().map(|t| t.0));
        series
            .or(at)
            .or(e.metadata.creation_timestamp.as_ref().map(|t| t.0))
    };
    list.sort_by_key(|e| std::cmp::Reverse(last(e)));
    html! {
        h2 { (cx.t(M::Events)) span.number { (list.len()) } }
        @if list.is_empty() { (widgets::empty(cx.t(M::NoEvents), &html! { (cx.t(M::NoEventsHint)) })) }
        @else {
            div.scroll { table {
                thead { tr { th { (cx.t(M::When)) } th { (cx.t(M::Kind)) } th { (cx.t(M::Reason)) } th { (cx.t(M::Message)) } th.num { (cx.t(M::Count)) } } }
                tbody {
                    @for e in list.iter().take(200) {
                        tr {
                            td { (widgets::ago(cx, last(e))) }
                            td { @if e.type_.as_deref() == Some("Warning") { (widgets::badge("warn", "▲", cx.t(M::Warning))) } @else { (widgets::badge("dim", "○", cx.t(M::Normal))) } }
                            td { (e.reason.as_deref().unwrap_or("")) }
                            td.message { (e.message.as_deref().unwrap_or("")) }
                            td.num { (e.count.or(e.series.as_ref().and_then(|s| s.count)).unwrap_or(1)) }
                        }
                    }
                }
            } }
        }
    }
}

fn yaml(cx: &Cx, group: &Group) -> Result<Markup, Fail> {
    Ok(html! { h2 { (cx.t(M::Yaml)) } pre.yaml { (to_yaml(group)?) } })
}

/// An object as YAML.
///
/// # Errors
/// If it is none, which objects are not.
pub fn to_yaml(object: &impl serde::Serialize) -> Result<String, Fail> {
    serde_saphyr::to_string(object).map_err(|e| Fail::Upstream(e.to_string()))
}

/// The page that asks how many instances there are to be, and shows them come.
///
/// # Errors
/// If there is no such Group, or none that the user may see.
pub async fn scale(cx: &Cx, tenant: &str, name: &str) -> Result<Page, Fail> {
    let group = seen(cx, tenant, name).await?;
    let key: Key = (tenant.to_owned(), name.to_owned());
    let row = groups::row(&cx.app.model.read(), &key, false).ok_or(Fail::NotFound)?;
    let status = group.status.clone().unwrap_or_default();
    let settled = status.replicas == row.desired && status.in_service == row.desired;
    let form = html! {
        h1 { (cx.t(M::Scale)) " " (name) }
        form.stack method="post" action={ "/groups/" (tenant) "/" (name) "/scale" } {
            (widgets::csrf(cx))
            label for="replicas" { (cx.t(M::HowManyInstances)) }
            input #replicas name="replicas" type="number" min="0" max="100000" required value=(row.desired);
            p.hint { (cx.f(M::ScaleHint, &[&row.desired, &row.cells.len(), &row.cells.join(", ")])) }
            @if row.desired > 0 {
                label for="confirm" { (cx.f(M::ScaleZeroHint, &[&name])) }
                input #confirm name="confirm" autocomplete="off" placeholder=(name);
            }
            div.actions {
                button.primary type="submit" { (cx.t(M::Scale)) }
                a.button href={ "/groups/" (tenant) "/" (name) } { (cx.t(M::Back)) }
            }
        }
    };
    let progress = html! {
        h2 { (cx.t(M::Progress)) }
        p.big { (status.in_service) "/" (row.desired) " " (if settled { widgets::badge("good", "●", cx.t(M::HealthHealthy)) } else { widgets::badge("busy", "↕", cx.t(M::HealthScaling)) }) }
        (widgets::bar(i64::from(status.in_service), i64::from(row.desired), if settled { "good" } else { "busy" }, &cx.f(M::InServiceOf, &[&status.in_service, &row.desired])))
        dl.facts {
            @for cell in &status.cells { (widgets::fact(&cell.name, &html! { (cell.in_service) " / " (cell.desired) })) }
        }
        @if !row.message.is_empty() { p.said { (row.message) } }
    };
    let mut crumbs = crumbs(cx, tenant, &group.spec.app);
    crumbs.push((name.to_owned(), format!("/groups/{tenant}/{name}")));
    Ok(Page {
        title: format!("{} · {name}", cx.t(M::Scale)),
        nav: Nav::Services,
        crumbs,
        body: vec![Block::group(
            "scale",
            "two",
            vec![
                Block::part("form", "card", form),
                Block::part("progress", "card", progress),
            ],
        )],
        interest: Interest::Group(key),
    })
}
