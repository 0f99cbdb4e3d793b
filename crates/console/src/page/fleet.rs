//! The fleet at a glance: what is wrong, what is released, the map of nodes, clusters and cells.

use maud::{Markup, PreEscaped, html};

use super::{Block, Interest, Nav, Page, releases, widgets};
use crate::{
    app::Cx,
    error::Fail,
    messages::M,
    view::{
        Params,
        fleet::{self, Counts, PlaceRow, Problem, Wrong},
        nodes::{self, By, CellMap, Mark},
        pools::{self, PoolRow},
        releases::{ReleaseRow, running},
    },
};

/// The page.
///
/// # Errors
/// None that are its own.
pub async fn page(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    let by = By::named(params.get("by"));
    if by == By::Load && cx.sight.nodes {
        cx.app.model.look_at_nodes(&cx.app.stop, &cx.app.tasks);
    }
    let loads = cx.app.model.machines.loads();
    let (counts, problems, releases, clusters, map, pools) = {
        let state = cx.app.model.read();
        (
            fleet::counts(&state, &cx.sight),
            fleet::problems(&state, &cx.sight, cx.now, 12),
            running(&state, &cx.sight, 8),
            if cx.sight.clusters {
                fleet::clusters(&state)
            } else {
                Vec::new()
            },
            if cx.sight.nodes {
                nodes::map(&state, by, &loads)
            } else {
                Vec::new()
            },
            if cx.sight.nodes && cx.sight.policies {
                pools::pools(&state)
            } else {
                Vec::new()
            },
        )
    };
    let mut body = vec![
        Block::part("counts", "counts", tally(cx, &counts)),
        Block::group(
            "now",
            "two",
            vec![
                Block::part("wrong", "card", wrong(cx, &problems.0, problems.1)),
                Block::part("flight", "card", flight(cx, &releases.0, releases.1)),
            ],
        ),
    ];
    if !map.is_empty() {
        let unread = by == By::Load && loads.is_empty();
        let html = map_of_nodes(cx, &map, params, (by, unread));
        body.push(Block::part("map", "card", html));
    }
    if !clusters.is_empty() {
        body.push(Block::part("clusters", "card", places(cx, &clusters)));
    }
    if !pools.is_empty() {
        body.push(Block::part("pools", "card", of_pools(cx, &pools)));
    }
    Ok(Page {
        title: cx.t(M::Fleet).to_owned(),
        nav: Nav::Fleet,
        body,
        interest: Interest::Fleet,
        ..Page::default()
    })
}

fn tally(cx: &Cx, counts: &Counts) -> Markup {
    let missing = counts.desired - counts.in_service;
    let one = |href: &str, number: String, word: &str, tone: &str| {
        html! { a.count.(tone) href=(href) { strong { (number) } span { (word) } } }
    };
    html! {
        h1.sr { (cx.t(M::Fleet)) }
        (one("/services", counts.tenants.to_string(), cx.t(M::Tenants), ""))
        (one("/services", counts.groups.to_string(), cx.t(M::Groups), ""))
        (one("/services?health=Troubled", counts.troubled.to_string(), cx.t(M::GroupsInTrouble), if counts.troubled > 0 { "bad" } else { "good" }))
        (one("/services?sort=-desired", format!("{} / {}", counts.in_service, counts.desired), cx.t(M::InstancesInService), if missing > 0 { "warn" } else { "good" }))
        (one("/releases?phase=open", counts.releases.to_string(), cx.t(M::ReleasesInFlight), ""))
        @if let Some((good, all)) = counts.nodes {
            (one("/nodes", format!("{good} / {all}"), cx.t(M::NodesReady), if good < all { "warn" } else { "good" }))
        }
    }
}

fn wrong(cx: &Cx, problems: &[Problem], total: usize) -> Markup {
    html! {
        h2 { (cx.t(M::WrongNow)) @if total > 0 { span.number { (total) } } }
        @if problems.is_empty() {
            (widgets::empty(cx.t(M::NothingWrong), &html! { (cx.t(M::NothingWrongHint)) }))
        }
        ul.problems data-rows {
            @for p in problems {
                li {
                    @match (p.kind, p.health) {
                        (_, Some(health)) => (widgets::health(cx, health)),
                        (Wrong::Cluster, _) => (widgets::badge("bad", "■", cx.t(M::Unreachable))),
                        (Wrong::Release, _) => (widgets::badge("bad", "◆", cx.t(M::PhaseHalted))),
                        (Wrong::Line, _) => (widgets::badge("warn", "‖", cx.t(M::LineStopped))),
                        (Wrong::Nodes, _) => (widgets::badge("warn", "▲", cx.t(M::NotReady))),
                        _ => (widgets::badge("hold", "◇", cx.t(M::PhaseWaits))),
                    }
                    @if p.href.is_empty() { strong { (p.title) } } @else { a href=(p.href) data-row { (p.title) } }
                    span.said { (widgets::local(cx, &p.message)) }
                    (widgets::ago(cx, p.since))
                }
            }
        }
        @if total > problems.len() { p.hint { a href="/services?health=Troubled" { (cx.f(M::AndMore, &[&(total - problems.len())])) } } }
    }
}

fn flight(cx: &Cx, rows: &[ReleaseRow], total: usize) -> Markup {
    html! {
        h2 { (cx.t(M::ReleasesInFlight)) @if total > 0 { span.number { (total) } } }
        @if rows.is_empty() {
            (widgets::empty(cx.t(M::NoReleases), &html! { (cx.t(M::NoReleasesHint)) }))
        }
        ul.flights data-rows { @for row in rows { (releases::flight(cx, row)) } }
        @if total > rows.len() { p.hint { a href="/releases?phase=open" { (cx.f(M::AndMore, &[&(total - rows.len())])) } } }
    }
}

/// Side of a mark by how many there are, so that all of them are on one screen.
fn side(total: usize) -> usize {
    match total {
        0..=400 => 16,
        401..=1500 => 12,
        1501..=4000 => 9,
        _ => 6,
    }
}

/// Marks of one cell: one path a state, so that ten thousand nodes are a few dozen elements.
fn cell_map(map: &CellMap, side: usize) -> Markup {
    let count = map.marks.len();
    let columns = ((count as f64 * 2.2).sqrt().ceil() as usize).clamp(1, 640 / side);
    let rows = count.div_ceil(columns);
    let mut paths: std::collections::BTreeMap<&str, String> = std::collections::BTreeMap::new();
    for (index, mark) in map.marks.iter().enumerate() {
        use std::fmt::Write as _;
        let (x, y) = (index % columns * 10, index / columns * 10);
        let path = paths.entry(mark.class()).or_default();
        // Shape as well as colour: a triangle warns, a hollow square is shut.
        let _ = match mark {
            Mark::NotReady | Mark::Problem => write!(path, "M{} {}l4 8h-8z", x + 5, y),
            Mark::Cordoned => write!(path, "M{} {}h8v8h-8zm2 2v4h4v-4z", x + 1, y + 1),
            Mark::Load(_) => write!(path, "M{} {}h8v8h-8z", x + 1, y + 1),
        };
    }
    html! {
        svg.nodes width=(columns * side) height=(rows * side) viewBox={ "0 0 " (columns * 10) " " (rows * 10) } role="img"
            aria-label={ (map.cluster) "/" (map.cell) ": " (count) }
            data-map data-cluster=(map.cluster) data-cell=(map.cell) data-columns=(columns) data-count=(count) {
            @for (class, path) in &paths { path.(class) d=(PreEscaped(path)) fill-rule="evenodd" {} }
        }
    }
}

/// The marks of the legend, with their words.
fn legend(by: By) -> Vec<(&'static str, M)> {
    let wrong = [
        ("k-shut", M::Cordoned),
        ("k-warn", M::Problem),
        ("k-bad", M::NotReady),
    ];
    let none = if by == By::Problems {
        M::LoadFine
    } else {
        M::LoadNone
    };
    let mut all = vec![("k-0", none)];
    if by != By::Problems {
        let fifths = [
            M::LoadFifth,
            M::LoadLow,
            M::LoadHalf,
            M::LoadHigh,
            M::LoadFull,
        ];
        let classes = ["k-1", "k-2", "k-3", "k-4", "k-5"];
        all.extend(classes.into_iter().zip(fifths));
    }
    all.extend(wrong);
    all
}

fn map_of_nodes(cx: &Cx, map: &[CellMap], params: &Params, (by, unread): (By, bool)) -> Markup {
    let total: usize = map.iter().map(|c| c.marks.len()).sum();
    let side = side(total);
    let words = [M::MapByRequests, M::MapByLoad, M::MapByProblems].map(|m| cx.t(m));
    let choices: Vec<(&str, &str)> = By::ALL.map(By::name).into_iter().zip(words).collect();
    html! {
        div.title { h2 { (cx.t(M::Nodes)) span.number { (total) } }
            div.actions { span.hint { (cx.t(M::MapBy)) } (widgets::choices(params, "by", &choices)) } }
        @if unread { p.hint { (cx.t(M::MapNoLoad)) } }
        div.maps {
            @for cell in map {
                figure {
                    figcaption {
                        a href={ "/nodes?cluster=" (cell.cluster) "&cell=" (cell.cell) } {
                            (cell.cluster) "/" @if cell.cell.is_empty() { (cx.t(M::NoCell)) } @else { (cell.cell) }
                        }
                        span.number { (cell.marks.len()) }
                    }
                    (cell_map(cell, side))
                }
            }
        }
        ul.legend aria-label=(cx.t(M::Legend)) {
            @for (class, word) in legend(by) {
                li {
                    svg width="12" height="12" viewBox="0 0 10 10" aria-hidden="true" {
                        @match class {
                            "k-bad" | "k-warn" => path.(class) d="M5 0l4 8h-8z" {},
                            "k-shut" => path.(class) d="M1 1h8v8h-8zm2 2v4h4v-4z" fill-rule="evenodd" {},
                            _ => path.(class) d="M1 1h8v8h-8z" {},
                        }
                    }
                    (cx.t(word))
                }
            }
        }
    }
}

/// What is asked for of what there is, as a bar and in figures.
fn share(cx: &Cx, word: M, (used, has): (i64, i64), show: fn(i64) -> String) -> Markup {
    let tone = if has > 0 && used * 10 > has * 9 {
        "warn"
    } else {
        "plain"
    };
    let words = format!("{} / {}", show(used), show(has));
    let label = format!("{}: {words}", cx.t(word));
    html! { (widgets::bar(used, has, tone, &label)) small { (words) } }
}

fn of_pools(cx: &Cx, pools: &[PoolRow]) -> Markup {
    html! {
        h2 { (cx.t(M::Pools)) span.number { (pools.len()) } }
        div.scroll { table {
            thead { tr { th { (cx.t(M::Pool)) } th { (cx.t(M::Cluster)) } th.num { (cx.t(M::NodesReady)) } th.num { (cx.t(M::Instances)) } th { (cx.t(M::CpuRequested)) } th { (cx.t(M::MemoryRequested)) } th { (cx.t(M::Policies)) } } }
            tbody { @for pool in pools { tr {
                th scope="row" { (pool.name) }
                td { (pool.cluster) }
                td.num { (pool.nodes.0) " / " (pool.nodes.1) }
                td.num { (pool.instances) }
                td { (share(cx, M::CpuRequested, pool.cpu, widgets::cores)) }
                td { (share(cx, M::MemoryRequested, pool.memory, widgets::bytes)) }
                td { @for (index, policy) in pool.policies.iter().enumerate() { @if index > 0 { ", " } a href={ "/policies/" (pool.cluster) "/" (policy) } { (policy) } } }
            } } }
        } }
    }
}

fn places(cx: &Cx, clusters: &[PlaceRow]) -> Markup {
    let row = |place: &PlaceRow, cluster: Option<&str>| {
        let nodes = match cluster {
            None => format!("/nodes?cluster={}", place.name),
            Some(cluster) => format!("/nodes?cluster={cluster}&cell={}", place.name),
        };
        html! {
            tr class=[cluster.map(|_| "sub")] {
                th scope="row" { a href=(nodes) { (place.name) } @if !place.region.is_empty() { " " small { (place.region) } } }
                td {
                    @if cluster.is_some() {}
                    @else if place.connecting { (widgets::badge("busy", "◐", cx.t(M::ClusterConnecting))) span.said { (cx.t(M::ClusterConnectingHint)) } }
                    @else if !place.trouble.is_empty() { (widgets::badge("bad", "■", cx.t(M::Unreachable))) span.said { (widgets::local(cx, &place.trouble)) } }
                    @else if !place.stopped.is_empty() { (widgets::badge("warn", "‖", cx.t(M::LineStopped))) span.said { (place.stopped) } }
                    @else { (widgets::badge("good", "●", cx.t(M::Reachable))) }
                }
                td.num { (place.nodes.0) " / " (place.nodes.1) }
                td.num { (place.instances) }
                td { (share(cx, M::CpuRequested, place.cpu, widgets::cores)) }
                td { (share(cx, M::MemoryRequested, place.memory, widgets::bytes)) }
                td { (place.version) }
            }
        }
    };
    html! {
        h2 { (cx.t(M::Clusters)) span.number { (clusters.len()) } }
        div.scroll { table {
            thead { tr { th { (cx.t(M::Cluster)) } th { (cx.t(M::State)) } th.num { (cx.t(M::NodesReady)) } th.num { (cx.t(M::Instances)) } th { (cx.t(M::CpuRequested)) } th { (cx.t(M::MemoryRequested)) } th { (cx.t(M::Version)) } } }
            tbody {
                @for cluster in clusters {
                    (row(cluster, None))
                    @for cell in &cluster.cells { (row(cell, Some(&cluster.name))) }
                }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_marks_are_few_elements() {
        let marks = (0..10_000)
            .map(|n| {
                if n % 97 == 0 {
                    Mark::NotReady
                } else {
                    Mark::Load((n % 6) as u8)
                }
            })
            .collect();
        let map = CellMap {
            cluster: "sh".into(),
            cell: "sh-a".into(),
            marks,
        };
        let html = cell_map(&map, side(10_000)).into_string();
        assert!(html.matches("<path").count() <= 8);
        assert_eq!(html.matches("l4 8h-8z").count(), 10_000usize.div_ceil(97));
        assert!(html.len() < 250_000, "{}", html.len());
    }
}
