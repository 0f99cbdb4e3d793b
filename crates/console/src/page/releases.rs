//! Releases: all of them, and those in flight as lines.

use maud::{Markup, html};

use super::{Block, Interest, Nav, Page, widgets};
use crate::{
    app::Cx,
    error::Fail,
    messages::M,
    view::{
        Params,
        releases::{ReleaseRow, releases},
    },
};

/// A release in flight as a line.
pub fn flight(cx: &Cx, row: &ReleaseRow) -> Markup {
    let (done, all) = (i64::from(row.updated.0), i64::from(row.updated.1));
    let tone = if row.halted || row.failed > 0 {
        "bad"
    } else {
        "busy"
    };
    html! {
        li {
            (widgets::phase(cx, &row.phase, row.halted, row.waits))
            a href={ "/releases/" (row.tenant) "/" (row.name) } data-row { (row.tenant) "/" (row.name) }
            span.way { (widgets::bar(done, all, tone, &cx.f(M::UpdatedOf, &[&done, &all]))) span.n.num { (done) "/" (all) } }
            span.said { (widgets::local(cx, &row.message)) }
            (widgets::ago(cx, row.started.or(row.created)))
        }
    }
}

/// Revisions from and to.
pub fn revisions(row: &ReleaseRow) -> Markup {
    let shown = |n: Option<i64>| n.map_or("?".to_owned(), |n| n.to_string());
    html! { span.mono { (shown(row.from)) " → " (shown(row.to)) } }
}

/// A table of releases.
pub fn table(cx: &Cx, rows: &[ReleaseRow], params: &Params, of_group: bool) -> Markup {
    let head = |column: &str, word: M, class: &str| {
        if of_group {
            html! { th class=(class) { (cx.t(word)) } }
        } else {
            widgets::sorter(params, column, cx.t(word), class)
        }
    };
    html! {
        div.scroll { table data-rows {
            thead { tr {
                (head("name", M::Release, ""))
                (head("phase", M::State, ""))
                th { (cx.t(M::Revision)) }
                th { (cx.t(M::Image)) }
                th.num { (cx.t(M::Updated)) }
                (head("by", M::By, ""))
                (head("created", M::When, "num"))
                @if !of_group { th { (cx.t(M::Message)) } }
            } }
            tbody {
                @for row in rows {
                    tr {
                        th scope="row" {
                            @if !of_group { small { (row.tenant) "/" } }
                            a href={ "/releases/" (row.tenant) "/" (row.name) } data-row { (row.name) }
                        }
                        td { (widgets::phase(cx, &row.phase, row.halted, row.waits)) }
                        td { (revisions(row)) }
                        td { (widgets::image(&row.image)) }
                        td.num { (row.updated.0) " / " (row.updated.1) }
                        td { (row.by) }
                        td.num { (widgets::ago(cx, row.started.or(row.created))) }
                        @if !of_group { td.message { (widgets::local(cx, &row.message)) } }
                    }
                }
            }
        } }
    }
}

/// The page.
///
/// # Errors
/// None that are its own.
pub async fn page(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    let listing = releases(&cx.app.model.read(), &cx.sight, params);
    let top = html! {
        h1 { (cx.t(M::Releases)) }
        div.bar-row {
            (widgets::search(cx, params, &["phase", "tenant", "group", "sort"]))
            (widgets::choices(params, "phase", &[
                ("", cx.t(M::All)), ("open", cx.t(M::InFlight)), ("Succeeded", cx.t(M::PhaseSucceeded)),
                ("RolledBack", cx.t(M::PhaseRolledBack)), ("Failed", cx.t(M::PhaseFailed)), ("Aborted", cx.t(M::PhaseAborted)),
            ]))
        }
    };
    let rows = html! {
        @if listing.items.is_empty() {
            (widgets::empty(cx.t(M::NoReleases), &html! { (cx.t(M::NoReleasesHint)) }))
        } @else {
            (table(cx, &listing.items, params, false))
        }
        (widgets::pager(cx, &listing, params))
    };
    Ok(Page {
        title: cx.t(M::Releases).to_owned(),
        nav: Nav::Releases,
        body: vec![
            Block::part("top", "", top),
            Block::part("rows", "card", rows),
        ],
        interest: Interest::Releases,
        ..Page::default()
    })
}
