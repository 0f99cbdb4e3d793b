//! A release's run: batches as columns, instances as tiles. The page to have on the wall.

use gantry_api::{Release, gate::GateState};
use kube::Api;
use maud::{Markup, html};
use std::sync::Arc;

use super::{Block, Interest, Nav, Page, widgets};
use crate::{
    access::Right,
    app::Cx,
    error::Fail,
    messages::M,
    model::Key,
    view::{
        Params,
        releases::{self, ReleaseRow},
        run::{self, Column, Moment, MomentKind, Press, Tile},
    },
};

/// The release, if the user may see it; whole, where it has ended.
///
/// # Errors
/// If they may not, or there is none.
pub async fn seen(cx: &Cx, tenant: &str, name: &str) -> Result<Arc<Release>, Fail> {
    let visible = cx.sight.releases.see(tenant)
        || cx
            .may(Right::gantry("get", "releases", tenant).named(name))
            .await;
    if !visible {
        return Err(Fail::NotFound);
    }
    let key = (tenant.to_owned(), name.to_owned());
    let find = || cx.app.model.read().releases.get(&key).cloned();
    let kept = super::soon::<Release, _>(cx, (tenant, name), find).await?;
    if kept.status.as_ref().is_some_and(|s| s.phase.is_final()) {
        // The model leaves the plan of what has ended out.
        let api: Api<Release> = Api::namespaced(cx.session.client.clone(), tenant);
        if let Ok(whole) = api.get(name).await {
            return Ok(Arc::new(whole));
        }
    }
    Ok(kept)
}

/// The columns of a release, with what is known of its instances.
pub fn columns(cx: &Cx, release: &Release, tenant: &str) -> Vec<Column> {
    let state = cx.app.model.read();
    let group = state
        .groups
        .get(&(tenant.to_owned(), release.spec.group.clone()));
    let homes: std::collections::HashMap<&str, &str> = group
        .and_then(|g| g.status.as_ref())
        .map(|s| {
            s.cells
                .iter()
                .map(|c| (c.name.as_str(), c.cluster.as_str()))
                .collect()
        })
        .unwrap_or_default();
    run::columns(release, |cell, name| {
        let member = state.members.get(*homes.get(cell)?)?;
        member
            .instances
            .get(&(tenant.to_owned(), name.to_owned()))
            .map(AsRef::as_ref)
    })
}

/// The page.
///
/// # Errors
/// If there is no such release, or none that the user may see.
pub async fn page(cx: &Cx, params: &Params, tenant: &str, name: &str) -> Result<Page, Fail> {
    let release = seen(cx, tenant, name).await?;
    let key: Key = (tenant.to_owned(), name.to_owned());
    let group: Key = (tenant.to_owned(), release.spec.group.clone());
    let row = releases::row(&release);
    let columns = columns(cx, &release, tenant);
    let may = cx
        .may(Right::gantry("patch", "releases", tenant).named(name))
        .await;
    let mut body = vec![
        Block::part("head", "", head(cx, &release, &row, &columns)),
        Block::part("buttons", "buttons", buttons(cx, &release, &row, may)),
    ];
    if !columns.is_empty() {
        let homes = home(cx, &group);
        let mut parts = Vec::new();
        for column in &columns {
            let class = match column.state {
                gantry_api::release::BatchState::Running
                | gantry_api::release::BatchState::Ready => "batch now",
                gantry_api::release::BatchState::Failed => "batch failed",
                gantry_api::release::BatchState::Done => "batch done",
                _ => "batch",
            };
            parts.push(Block::part(
                format!("batch-{}", column.index),
                class,
                batch(cx, column, tenant, &homes),
            ));
        }
        body.push(Block::group("batches", "batches", parts));
        body.push(Block::part("legend", "", legend(cx, &columns)));
    }
    let mut below = Vec::new();
    let gates = gates(cx, &release);
    if let Some(gates) = gates {
        below.push(Block::part("gates", "card", gates));
    }
    below.push(Block::part("log", "card", log(cx, &run::moments(&release))));
    let plan = release.status.as_ref().and_then(|s| s.plan.as_ref());
    let rooms = plan.map_or(&[][..], |p| &p.rooms);
    if rooms
        .iter()
        .any(|r| gantry_hub::thousandths(&r.more) != Some(0))
    {
        below.push(Block::part("rooms", "card", super::plan::rooms(cx, rooms)));
    }
    if let Some(working) = working(cx, &columns, tenant, &home(cx, &group)) {
        below.push(Block::part("working", "card", working));
    }
    body.push(Block::group("below", "two", below));
    if params.get("wall") == "1" {
        body.truncate(4);
    }
    Ok(Page {
        title: format!("{name} · {}", row.phase),
        nav: Nav::Releases,
        crumbs: vec![
            (cx.t(M::Releases).to_owned(), "/releases".to_owned()),
            (
                format!("{tenant}/{}", release.spec.group),
                format!("/groups/{tenant}/{}", release.spec.group),
            ),
        ],
        body,
        interest: Interest::Release(key, group),
    })
}

fn home(cx: &Cx, group: &Key) -> std::collections::HashMap<String, String> {
    let state = cx.app.model.read();
    let status = state.groups.get(group).and_then(|g| g.status.as_ref());
    status
        .map(|s| {
            s.cells
                .iter()
                .map(|c| (c.name.clone(), c.cluster.clone()))
                .collect()
        })
        .unwrap_or_default()
}

fn head(cx: &Cx, release: &Release, row: &ReleaseRow, columns: &[Column]) -> Markup {
    let status = release.status.clone().unwrap_or_default();
    let (done, all) = (i64::from(row.updated.0), i64::from(row.updated.1));
    let tone = if row.halted {
        "bad"
    } else if row.finished.is_some() {
        "good"
    } else {
        "busy"
    };
    let from = status.from.map(|r| r.image).unwrap_or_default();
    let elapsed = row.started.map(|at| {
        let end = row.finished.unwrap_or(cx.now);
        let text = widgets::span(end.duration_since(at).as_secs());
        match row.finished {
            Some(_) => html! { (text) },
            None => html! { time datetime=(at.to_string()) title=(widgets::absolute(cx, at)) { (text) } },
        }
    });
    let _ = columns;
    html! {
        div.title {
            h1 { (row.name) " " (widgets::phase(cx, &row.phase, row.halted, row.waits)) }
            span.revision { (cx.t(M::Revision)) " " (super::releases::revisions(row)) " · " @if !from.is_empty() && from != row.image { (widgets::image(&from)) " → " } (widgets::image(&row.image)) }
        }
        @if !row.message.is_empty() { p.said.big { (widgets::local(cx, &row.message)) } }
        div.progress-line { (widgets::bar(done, all, tone, &cx.f(M::UpdatedOf, &[&done, &all]))) }
        dl.facts.row {
            (widgets::fact(cx.t(M::Updated), &html! { strong { (done) } " / " (all) }))
            (widgets::fact(cx.t(M::BatchesDone), &html! { (if row.batch.is_empty() { "—" } else { &row.batch }) }))
            (widgets::fact(cx.t(M::OutOfService), &html! { (row.out) " " small { (cx.f(M::AtMost, &[&status.max_out])) } }))
            (widgets::fact(cx.t(M::Failed), &html! { @if row.failed > 0 { strong.bad { (row.failed) } } @else { "0" } }))
            @if let Some(in_place) = run::in_place(release) { (widgets::fact(cx.t(M::Method), &html! { (cx.t(if in_place { M::InPlace } else { M::Recreate })) })) }
            @if let Some(elapsed) = elapsed { (widgets::fact(cx.t(M::Elapsed), &elapsed)) }
            (widgets::fact(cx.t(M::By), &html! { (row.by) }))
            @if !release.spec.note.is_empty() { (widgets::fact(cx.t(M::Note), &html! { (release.spec.note) })) }
        }
    }
}

fn press_word(press: Press) -> M {
    match press {
        Press::Continue => M::Continue,
        Press::Pause => M::Pause,
        Press::Retry => M::Retry,
        Press::Skip => M::Skip,
        Press::Approve => M::Approve,
        Press::Emergency => M::Emergency,
        Press::Rollback => M::Rollback,
        Press::Abort => M::Abort,
    }
}

fn buttons(cx: &Cx, release: &Release, row: &ReleaseRow, may: bool) -> Markup {
    let base = format!("/releases/{}/{}", row.tenant, row.name);
    html! {
        @if may {
            @for press in Press::ALL.into_iter().filter(|p| p.useful(release)) {
                @let word = cx.t(press_word(press));
                @if press.asks() {
                    a.button.danger[matches!(press, Press::Rollback | Press::Abort)] href={ (base) "/" (press.name()) } { (word) }
                } @else {
                    form method="post" action={ (base) "/" (press.name()) } {
                        (widgets::csrf(cx))
                        input type="hidden" name="version" value=(release.metadata.resource_version.as_deref().unwrap_or(""));
                        button type="submit" class=(if press == Press::Continue { "primary" } else { "" }) { (word) }
                    }
                }
            }
        }
        @if cx.sight.lines && row.finished.is_none() { a.button href={ "/lines?tenant=" (row.tenant) } { (cx.t(M::StopTheLine)) } }
    }
}

fn batch(
    cx: &Cx,
    column: &Column,
    tenant: &str,
    homes: &std::collections::HashMap<String, String>,
) -> Markup {
    let done = column
        .pieces
        .iter()
        .filter(|p| p.state == Tile::Done)
        .count();
    let size = column.pieces.len();
    let dense = if size > 120 { "tiles dense" } else { "tiles" };
    let mut cells: Vec<(&str, Vec<&run::Piece>)> = Vec::new();
    for piece in &column.pieces {
        match cells.iter_mut().find(|(cell, _)| *cell == piece.cell) {
            Some((_, pieces)) => pieces.push(piece),
            None => cells.push((&piece.cell, vec![piece])),
        }
    }
    html! {
        header {
            strong { (widgets::batch_name(cx, column.index)) }
            (widgets::batch_state(cx, column.state))
            span.num { (done) "/" (size) }
        }
        @for (cell, pieces) in cells {
            div.cell-name { (cell) }
            div class=(dense) {
                @for piece in pieces {
                    @let word = widgets::tile_word(cx, piece.state);
                    @let title = if piece.note.is_empty() { format!("{} · {word}", piece.name) } else { format!("{} · {word} · {}", piece.name, widgets::local(cx, &piece.note)) };
                    @match homes.get(&piece.cell) {
                        Some(cluster) => a class={ "tile " (piece.state.class()) } href={ "/instances/" (cluster) "/" (tenant) "/" (piece.name) } title=(title) aria-label=(title) {},
                        None => span class={ "tile " (piece.state.class()) } title=(title) {},
                    }
                }
            }
        }
        @for gate in &column.gates {
            div.gate title=(widgets::local(cx, &gate.message)) {
                (widgets::gate_state(cx, gate.state)) " " (gate.name)
                @if !gate.value.is_empty() { " " span.mono { (gate.value) } }
            }
        }
        footer {
            @if let (Some(from), Some(to)) = (column.started, column.finished) { (cx.f(M::Took, &[&widgets::span(to.duration_since(from).as_secs())])) }
            @else if column.started.is_some() { (widgets::ago(cx, column.started)) }
            @else { (cx.f(M::OutAtMost, &[&column.out])) }
        }
    }
}

fn legend(cx: &Cx, columns: &[Column]) -> Markup {
    html! {
        ul.legend aria-label=(cx.t(M::Legend)) {
            @for (tile, count) in run::counts(columns) {
                li { span class={ "tile " (tile.class()) } aria-hidden="true" {} (widgets::tile_word(cx, tile)) " " strong { (count) } }
            }
        }
    }
}

fn gates(cx: &Cx, release: &Release) -> Option<Markup> {
    let status = release.status.as_ref()?;
    let planned = status.plan.as_ref().map_or(&[][..], |p| &p.strategy.gates);
    if planned.is_empty() && status.gates.is_empty() {
        return None;
    }
    let waiting: Vec<_> = planned
        .iter()
        .filter(|g| !status.gates.iter().any(|s| s.name == g.name))
        .collect();
    Some(html! {
        h2 { (cx.t(M::Gates)) }
        div.scroll { table {
            thead { tr { th { (cx.t(M::Gate)) } th { (cx.t(M::AfterBatch)) } th { (cx.t(M::State)) } th.num { (cx.t(M::Value)) } th.num { (cx.t(M::Baseline)) } th.num { (cx.t(M::Measured)) } th { (cx.t(M::Message)) } } }
            tbody {
                @for g in &status.gates {
                    tr {
                        th scope="row" { (g.name) }
                        td { (widgets::batch_name(cx, g.batch)) }
                        td { (widgets::gate_state(cx, g.state)) @if g.state == GateState::Running { " " (widgets::ago(cx, g.started.as_ref().map(|t| t.0))) } }
                        td.num.mono { (g.value) }
                        td.num.mono { (g.baseline) }
                        td.num { (g.passes) " / " (g.measured) }
                        td.message { (widgets::local(cx, &g.message)) }
                    }
                }
                @for g in waiting { tr.sub { th scope="row" { (g.name) } td {} td { (widgets::badge("dim", "○", cx.t(M::GateWaiting))) } td {} td {} td {} td {} } }
            }
        } }
        @if !release.spec.approvals.is_empty() {
            h3 { (cx.t(M::Approvals)) }
            ul.plain {
                @for v in &release.spec.approvals {
                    li { (if v.reject { widgets::badge("bad", "■", cx.t(M::Rejected)) } else { widgets::badge("good", "●", cx.t(M::Approved)) }) " " strong { (v.by) } " · " (v.gate) @if !v.note.is_empty() { " · " (v.note) } }
                }
            }
        }
    })
}

fn moment(cx: &Cx, m: &Moment) -> String {
    let batch = |text: &str| {
        text.parse()
            .map_or(text.to_owned(), |n| widgets::batch_name(cx, n))
    };
    match m.kind {
        MomentKind::Asked => cx.f(M::MomentAsked, &[&m.subject]),
        MomentKind::Started => cx.f(M::MomentStarted, &[&m.detail]),
        MomentKind::BatchStarted => cx.f(M::MomentBatchStarted, &[&batch(&m.subject)]),
        MomentKind::BatchDone => cx.f(M::MomentBatchDone, &[&batch(&m.subject)]),
        MomentKind::GateAsked => cx.f(M::MomentGateAsked, &[&m.subject, &batch(&m.detail)]),
        MomentKind::GatePassed => cx.f(M::MomentGatePassed, &[&m.subject]),
        MomentKind::GateFailed => cx.f(M::MomentGateFailed, &[&m.subject]),
        MomentKind::Overridden => cx.f(M::MomentOverridden, &[&m.subject]),
        MomentKind::InstanceFailed => cx.f(M::MomentInstanceFailed, &[&m.subject]),
        MomentKind::CellSkipped => cx.f(M::MomentCellSkipped, &[&m.subject]),
        MomentKind::Halted => cx.t(M::MomentHalted).to_owned(),
        MomentKind::Retried => cx.t(M::MomentRetried).to_owned(),
        MomentKind::TurnedBack => cx.t(M::MomentTurnedBack).to_owned(),
        MomentKind::Ended => cx.f(M::MomentEnded, &[&m.subject]),
    }
}

fn log(cx: &Cx, moments: &[Moment]) -> Markup {
    let detail = |m: &Moment| {
        !matches!(
            m.kind,
            MomentKind::Started | MomentKind::GateAsked | MomentKind::BatchDone
        ) && !m.detail.is_empty()
    };
    let tone = |kind: MomentKind| match kind {
        MomentKind::InstanceFailed | MomentKind::GateFailed | MomentKind::Halted => "bad",
        MomentKind::TurnedBack | MomentKind::Overridden | MomentKind::CellSkipped => "warn",
        MomentKind::GatePassed | MomentKind::BatchDone => "good",
        _ => "",
    };
    html! {
        h2 { (cx.t(M::WhatHappened)) }
        ol.log {
            @for m in moments.iter().take(60) {
                li.(tone(m.kind)) {
                    span.at title=(widgets::absolute(cx, m.at)) { (widgets::clock(cx, m.at)) }
                    span { (moment(cx, m)) @if detail(m) { small { (widgets::local(cx, &m.detail)) } } }
                }
            }
        }
    }
}

/// Instances under way and failed ones, one by one.
fn working(
    cx: &Cx,
    columns: &[Column],
    tenant: &str,
    homes: &std::collections::HashMap<String, String>,
) -> Option<Markup> {
    let moving =
        |p: &&run::Piece| p.state.moves() || matches!(p.state, Tile::Failed | Tile::Unready);
    let pieces: Vec<_> = columns
        .iter()
        .flat_map(|c| &c.pieces)
        .filter(moving)
        .take(50)
        .collect();
    if pieces.is_empty() {
        return None;
    }
    Some(html! {
        h2 { (cx.t(M::UnderWay)) span.number { (pieces.len()) } }
        ul.plain data-rows {
            @for p in pieces {
                li {
                    span class={ "tile " (p.state.class()) } aria-hidden="true" {}
                    @match homes.get(&p.cell) {
                        Some(cluster) => a href={ "/instances/" (cluster) "/" (tenant) "/" (p.name) } data-row { (p.name) },
                        None => (p.name),
                    }
                    " " (widgets::tile_word(cx, p.state)) " " (widgets::ago(cx, p.since))
                    @if !p.note.is_empty() { div.said { (widgets::local(cx, &p.note)) } }
                }
            }
        }
    })
}

/// The page that says in numbers what a button does, and asks.
///
/// # Errors
/// If there is no such release or button, or the user may not press it.
pub async fn confirm(cx: &Cx, tenant: &str, name: &str, action: &str) -> Result<Page, Fail> {
    let release = seen(cx, tenant, name).await?;
    let press = Press::named(action)
        .filter(|p| p.asks())
        .ok_or(Fail::NotFound)?;
    if !cx
        .may(Right::gantry("patch", "releases", tenant).named(name))
        .await
    {
        return Err(Fail::NotFound);
    }
    let columns = columns(cx, &release, tenant);
    let pieces = || columns.iter().flat_map(|c| &c.pieces);
    let untouched = [Tile::Waiting, Tile::Unready, Tile::Missing, Tile::Untouched];
    let touched: Vec<_> = pieces().filter(|p| !untouched.contains(&p.state)).collect();
    let left = pieces().count() - touched.len();
    let cells: std::collections::BTreeSet<&str> = touched.iter().map(|p| p.cell.as_str()).collect();
    let says = match press {
        Press::Rollback => cx.f(M::RollbackSays, &[&touched.len(), &cells.len()]),
        Press::Abort => cx.f(M::AbortSays, &[&touched.len(), &left]),
        Press::Skip => cx.t(M::SkipSays).to_owned(),
        Press::Emergency => cx.t(M::EmergencySays).to_owned(),
        Press::Approve => cx.t(M::ApproveSays).to_owned(),
        _ => String::new(),
    };
    let named = matches!(press, Press::Rollback | Press::Abort);
    let html = html! {
        h1 { (cx.t(press_word(press))) " · " (name) }
        @if !press.useful(&release) { p.said { (cx.t(M::ButtonUseless)) } }
        p.big { (says) }
        form.stack method="post" action={ "/releases/" (tenant) "/" (name) "/" (action) } {
            (widgets::csrf(cx))
            @match press {
                Press::Approve => {
                    label for="note" { (cx.t(M::Comment)) }
                    input #note name="note" maxlength="1024" autocomplete="off";
                }
                Press::Emergency => {
                    label for="reason" { (cx.t(M::Why)) }
                    input #reason name="reason" maxlength="1024" required autocomplete="off";
                    label.radio { input type="checkbox" name="gates" value="*"; (cx.t(M::OverrideGates)) }
                }
                _ => {}
            }
            @if named {
                (widgets::typed(cx, name))
            }
            div.actions {
                @if press == Press::Approve {
                    button.primary type="submit" name="verdict" value="yes" { (cx.t(M::Approve)) }
                    button.danger type="submit" name="verdict" value="no" { (cx.t(M::Reject)) }
                } @else {
                    button type="submit" class=(if named { "danger" } else { "primary" }) { (cx.t(press_word(press))) }
                }
                a.button href={ "/releases/" (tenant) "/" (name) } { (cx.t(M::Back)) }
            }
        }
    };
    Ok(Page {
        title: format!("{} · {name}", cx.t(press_word(press))),
        nav: Nav::Releases,
        crumbs: vec![(
            format!("{tenant}/{name}"),
            format!("/releases/{tenant}/{name}"),
        )],
        body: vec![Block::part("confirm", "card narrow", html)],
        ..Page::default()
    })
}
