//! Why an instance is where it is, or why it waits and what would let it fit: the scheduler's words.

use gantry_scheduler::report::{Report, rule_name};
use maud::{Markup, html};

use super::widgets;
use crate::{app::Cx, error::Fail, messages::M};

/// The button that asks (pressed by the script at once), and where the answer comes.
pub fn pane(cx: &Cx, base: &str) -> Markup {
    let place = format!("{base}/placement");
    html! {
        h2 { (cx.t(M::Placement)) }
        p.hint { (cx.t(M::PlacementHint)) }
        form method="post" action=(place) {
            (widgets::csrf(cx))
            button type="submit" data-press=(place) data-into="placement-says" data-now { (cx.t(M::TrialAsk)) }
        }
        div #placement-says role="status" {}
    }
}

/// The answer.
pub fn says(cx: &Cx, found: &Result<Report, Fail>) -> Markup {
    match found {
        Ok(report) => told(cx, report),
        Err(fail) => html! { p.said { (fail.detail()) } },
    }
}

fn told(cx: &Cx, report: &Report) -> Markup {
    let figures: [&dyn std::fmt::Display; 2] = [&report.feasible, &report.nodes];
    // Names of nodes are for who sees nodes.
    let nodes = cx.sight.nodes;
    html! {
        p.big {
            @match (&report.node, &report.message) {
                (Some(node), None) => { (widgets::badge("good", "●", cx.t(M::PlacementPlaced))) " " (node) },
                (Some(node), Some(_)) => { (widgets::badge("warn", "▲", cx.t(M::PlacementNotAgain))) " " (node) },
                (None, None) => (widgets::badge("busy", "◐", cx.t(M::PlacementSoon))),
                (None, Some(_)) => (widgets::badge("bad", "■", cx.t(M::PlacementPending))),
            }
        }
        p { (cx.f(M::PlacementNodes, &figures)) }
        @if let Some(held) = &report.held { p.said { (held.reason) @if let Some(change) = &held.change { br; strong { (change) } } } }
        @if let Some(message) = &report.message { p.said { (message) } }
        @if !report.changes.is_empty() {
            h3 { (cx.t(M::PlacementChanges)) }
            ul.plain { @for advice in &report.changes { li { strong { (advice.change) } " " small { (cx.f(M::PlacementOnNodes, &[&advice.nodes])) @if nodes { " · " (advice.example) } } } } }
        }
        @if let (Some(room), true) = (&report.preemption, nodes) { p { (cx.f(M::PlacementPreempt, &[&room.victims, &room.node])) } }
        @if !report.excluded.is_empty() {
            h3 { (cx.t(M::PlacementExcluded)) }
            div.scroll { table {
                thead { tr { th.num { (cx.t(M::Nodes)) } th { (cx.t(M::Reason)) } } }
                tbody { @for row in &report.excluded { tr { td.num { (row.nodes) } td { (row.reason) } } } }
            } }
        }
        @if !report.policies.is_empty() {
            h3 { (cx.t(M::Policies)) }
            ul.plain { @for policy in &report.policies { li { strong { (policy.name) } " " small { (policy.says.join(", ")) } } } }
        }
        @if nodes && !report.best.is_empty() { (scores(cx, report)) }
    }
}

/// The best nodes, by the rules that tell them apart.
fn scores(cx: &Cx, report: &Report) -> Markup {
    let rules = report.telling();
    html! {
        h3 { (cx.t(M::PlacementScores)) }
        div.scroll { table {
            thead { tr { th { (cx.t(M::Node)) } th.num { (cx.t(M::PlacementTotal)) } @for at in &rules { th.num { (rule_name(*at)) } } } }
            tbody { @for row in &report.best {
                @let here = report.node.as_ref() == Some(&row.node);
                tr.own[here] {
                    th scope="row" { (row.node) @if here { " " (widgets::badge("good", "●", cx.t(M::PlacementHere))) } }
                    td.num { (row.total) }
                    @for at in &rules { td.num { (row.by_rule.get(*at).copied().unwrap_or_default()) } }
                }
            } }
        } }
    }
}
