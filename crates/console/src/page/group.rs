//! A Group: how it is, its instances by cell, its revisions, what happened.

use std::collections::{BTreeMap, HashMap};

use gantry_api::{Group, group::InstanceNote};
use kube::ResourceExt;
use maud::{Markup, html};
use std::sync::Arc;

use super::{Block, Interest, Nav, Page, events, releases, revisions, topology, widgets, wishes};
use crate::{
    access::Right,
    act,
    app::Cx,
    error::Fail,
    messages::M,
    model::{Instance, Key, usage::Series},
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
    let find = || cx.app.model.read().groups.get(&key).cloned();
    super::soon::<Group, _>(cx, (tenant, name), find).await
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
            revisions::tab(cx, params, &group).await?,
        )),
        "events" => {
            let own = events::of(cx, tenant, "Group", name).await?;
            body.push(Block::part("events", "card", own));
            for (cluster, html) in events::of_instances(cx, &key).await {
                body.push(Block::part(format!("events-{cluster}"), "card", html));
            }
        }
        "logs" => body.push(Block::part("logs", "card", logs(cx, tenant, name).await?)),
        "yaml" => body.push(Block::part("yaml", "card", yaml(cx, &group)?)),
        _ => {
            cx.app.model.look(&key, &cx.app.stop, &cx.app.tasks);
            let wish = wishes::may(cx, tenant, name).await;
            let (running, recent, listing, whole) = {
                let state = cx.app.model.read();
                let all = state.releases_of(&key).filter(|_| releases);
                let recent: Vec<_> = all.take(5).map(|r| rows::row(r)).collect();
                let open: Vec<_> = recent
                    .iter()
                    .filter(|r| r.finished.is_none() && r.phase != "Failed")
                    .cloned()
                    .collect();
                let whole = groups::by_cell(&state, &key);
                (open, recent, groups::instances(&state, &key, params), whole)
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
                    Block::part("cells", "card", cells(cx, &group, &whole)),
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
                @else { (choosing(cx, &group, &listing.items, params, wish)) }
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
    let key = (tenant.to_owned(), name.to_owned());
    let logs = cx
        .may_on_any(&key, Right::core("get", "pods", tenant).sub("log"))
        .await;
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
                (star(cx, tenant, name))
                @if release { a.button.primary href={ "/groups/" (tenant) "/" (name) "/release" } { (cx.t(M::StartRelease)) } }
                @if scale { a.button href={ "/groups/" (tenant) "/" (name) "/scale" } { (cx.t(M::Scale)) } }
            }
        }
        @if !row.message.is_empty() { p.said { (widgets::local(cx, &row.message)) } }
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

/// The button that makes a Group a favourite, or no longer.
fn star(cx: &Cx, tenant: &str, name: &str) -> Markup {
    let is = cx
        .prefs
        .favourites
        .contains(&(tenant.to_owned(), name.to_owned()));
    let word = cx.t(if is {
        M::FavouriteNot
    } else {
        M::FavouriteMake
    });
    html! {
        form method="post" action="/favourites" {
            input type="hidden" name="tenant" value=(tenant);
            input type="hidden" name="group" value=(name);
            input type="hidden" name="on" value=(if is { "0" } else { "1" });
            input type="hidden" name="next" value={ "/groups/" (tenant) "/" (name) };
            button.star type="submit" title=(word) aria-label=(word) aria-pressed=(is) { (if is { "★" } else { "☆" }) }
        }
    }
}

/// The logs of all instances, merged by time.
async fn logs(cx: &Cx, tenant: &str, name: &str) -> Result<Markup, Fail> {
    let key = (tenant.to_owned(), name.to_owned());
    if !cx
        .may_on_any(&key, Right::core("get", "pods", tenant).sub("log"))
        .await
    {
        return Err(Fail::NotFound);
    }
    let all = cx.app.model.read().instances(&key).count();
    let most = act::logs::MERGED;
    let note = html! { @if all > most { span.hint { (cx.f(M::LogSome, &[&most, &all])) } } };
    Ok(widgets::logs(
        cx,
        &format!("/logs/{tenant}/{name}?tail=100"),
        &note,
    ))
}

/// The Group's cells, as a picture and in figures.
fn cells(cx: &Cx, group: &Group, all: &BTreeMap<String, Vec<(String, Arc<Instance>)>>) -> Markup {
    let status = group.status.clone().unwrap_or_default();
    html! {
        h2 { (cx.t(M::Cells)) span.number { (status.cells.len()) } }
        (topology::picture(cx, group, all))
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

/// Instances of a Group, to be chosen where something may be wished for them, with what they use.
fn choosing(cx: &Cx, group: &Group, all: &[InstanceRow], params: &Params, wish: bool) -> Markup {
    let (tenant, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let key = (tenant.clone(), name.clone());
    let names = all.iter().map(|row| row.instance.name.as_str());
    let more = More {
        choose: wish,
        used: cx.app.model.usage.of(&key, names),
        notes: group
            .status
            .iter()
            .flat_map(|s| &s.instances)
            .map(|n| (n.name.as_str(), n))
            .collect(),
    };
    let table = table(cx, all, params, &more);
    if !wish {
        return table;
    }
    html! {
        form method="get" action={ "/groups/" (tenant) "/" (name) "/instances" } {
            div.actions.chosen {
                span.hint { (cx.t(M::Chosen)) }
                @for wish in wishes::all(group) { button type="submit" name="verb" value=(wish.name()) { (cx.t(wishes::word(&wish))) } }
            }
            (table)
        }
    }
}

/// What a table of instances shows beside them.
#[derive(Default)]
struct More<'a> {
    /// Boxes to choose by.
    choose: bool,
    /// What they use.
    used: HashMap<String, Series>,
    /// How wishes for them stand.
    notes: HashMap<&'a str, &'a InstanceNote>,
}

/// A table of instances.
pub fn instances(cx: &Cx, all: &[InstanceRow], params: &Params) -> Markup {
    table(cx, all, params, &More::default())
}

fn table(cx: &Cx, all: &[InstanceRow], params: &Params, more: &More<'_>) -> Markup {
    let used = !more.used.is_empty();
    html! {
        div.scroll { table data-rows {
            thead { tr {
                @if more.choose { th { span.sr { (cx.t(M::Choose)) } } }
                (widgets::sorter(params, "name", cx.t(M::Instance), ""))
                (widgets::sorter(params, "state", cx.t(M::State), ""))
                th { (cx.t(M::Cell)) }
                (widgets::sorter(params, "node", cx.t(M::Node), ""))
                th { (cx.t(M::Address)) }
                (widgets::sorter(params, "revision", cx.t(M::Revision), "num"))
                (widgets::sorter(params, "restarts", cx.t(M::Restarts), "num"))
                (widgets::sorter(params, "age", cx.t(M::Age), "num"))
                @if used { th { "CPU" } th { (cx.t(M::Memory)) } }
                th { (cx.t(M::Message)) }
            } }
            tbody {
                @for row in all {
                    @let i = &row.instance;
                    tr {
                        @if more.choose { td.choose { input type="checkbox" name="instance" value=(i.name) aria-label=(i.name) data-keep; } }
                        th scope="row" { a href={ "/instances/" (row.cluster) "/" (i.tenant) "/" (i.name) } data-row { (i.name) } }
                        td { (state(cx, row)) }
                        td { (i.cell) }
                        td { @if cx.sight.nodes && !i.node.is_empty() { a href={ "/nodes/" (row.cluster) "/" (i.node) } { (i.node) } } @else { (i.node) } }
                        td.mono { (i.address) }
                        td.num { (i.revision.map_or("—".to_owned(), |n| n.to_string())) }
                        td.num { @if i.restarts > 0 { strong { (i.restarts) } } @else { "0" } }
                        td.num { (widgets::ago(cx, i.created)) }
                        @if used {
                            @let series = more.used.get(&i.name);
                            td { @if let Some(s) = series { (widgets::spark(&s.cpu, i.cpu, widgets::cores)) } }
                            td { @if let Some(s) = series { (widgets::spark(&s.memory, i.memory, widgets::bytes)) } }
                        }
                        td.message {
                            (widgets::local(cx, &i.trouble))
                            @if let Some(note) = more.notes.get(i.name.as_str()) { span.note { (note.state) @if !note.message.is_empty() { ": " (widgets::local(cx, &note.message)) } } }
                            @else if !i.held.is_empty() { span.note { (i.held) } }
                        }
                    }
                }
            }
        } }
    }
}

/// How an instance is: tone, shape and word.
pub fn state_word(i: &Instance) -> (&'static str, &'static str, M) {
    match (i.terminating, i.ready, i.in_service) {
        (true, ..) => ("dim", "○", M::Terminating),
        (_, true, true) => ("good", "●", M::InService),
        (_, true, false) => ("hold", "◇", M::OutOfService),
        _ => ("bad", "▲", M::NotReady),
    }
}

/// The same as a badge.
pub fn state(cx: &Cx, row: &InstanceRow) -> Markup {
    let (tone, shape, word) = state_word(&row.instance);
    widgets::badge(tone, shape, cx.t(word))
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
