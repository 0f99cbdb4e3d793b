//! Nodes: the list, one of them, and closing or draining it.

use maud::{Markup, html};

use super::{Block, Interest, Nav, Page, group, widgets};
use crate::{
    access::Right,
    app::Cx,
    error::Fail,
    messages::M,
    view::{
        Params,
        groups::InstanceRow,
        nodes::{self, NodeRow},
    },
};

/// How a node is.
pub fn state(cx: &Cx, row: &NodeRow) -> Markup {
    let node = &row.node;
    match (node.ready, node.problems.is_empty(), node.cordoned) {
        (false, ..) => widgets::badge("bad", "▲", cx.t(M::NotReady)),
        (_, false, _) => widgets::badge("warn", "▲", cx.t(M::Problem)),
        (.., true) => widgets::badge("hold", "▢", cx.t(M::Cordoned)),
        _ => widgets::badge("good", "●", cx.t(M::ReadyWord)),
    }
}

fn share(used: i64, has: i64, words: &str) -> Markup {
    let tone = if has > 0 && used * 10 > has * 9 {
        "warn"
    } else {
        "plain"
    };
    html! { (widgets::bar(used, has, tone, words)) small { (words) } }
}

/// The list.
///
/// # Errors
/// For who sees no nodes.
pub async fn list(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    if !cx.sight.nodes {
        return Err(Fail::NotFound);
    }
    let listing = nodes::nodes(&cx.app.model.read(), params);
    let place = [params.get("cluster"), params.get("cell")].join("/");
    let top = html! {
        h1 { (cx.t(M::Nodes)) @if place != "/" { " " small { (place.trim_matches('/')) } } }
        div.bar-row {
            (widgets::search(cx, params, &["cluster", "cell", "state", "sort"]))
            (widgets::choices(params, "state", &[("", cx.t(M::All)), ("notready", cx.t(M::NotReady)), ("problem", cx.t(M::Problem)), ("cordoned", cx.t(M::Cordoned))]))
        }
    };
    let rows = html! {
        @if listing.items.is_empty() { (widgets::empty(cx.t(M::NothingFound), &html! { (cx.t(M::NothingFoundHint)) })) }
        @else {
            div.scroll { table data-rows {
                thead { tr {
                    (widgets::sorter(params, "name", cx.t(M::Node), ""))
                    (widgets::sorter(params, "state", cx.t(M::State), ""))
                    th { (cx.t(M::Cluster)) }
                    (widgets::sorter(params, "cell", cx.t(M::Cell), ""))
                    (widgets::sorter(params, "instances", cx.t(M::Instances), "num"))
                    (widgets::sorter(params, "cpu", cx.t(M::CpuRequested), ""))
                    (widgets::sorter(params, "memory", cx.t(M::MemoryRequested), ""))
                    (widgets::sorter(params, "age", cx.t(M::Age), "num"))
                    th { (cx.t(M::Message)) }
                } }
                tbody {
                    @for row in &listing.items {
                        tr {
                            th scope="row" { a href={ "/nodes/" (row.cluster) "/" (row.node.name) } data-row { (row.node.name) } }
                            td { (state(cx, row)) }
                            td { (row.cluster) }
                            td { (row.node.cell) }
                            td.num { (row.load.instances) }
                            td { (share(row.load.cpu, row.node.cpu, &format!("{} / {}", widgets::cores(row.load.cpu), widgets::cores(row.node.cpu)))) }
                            td { (share(row.load.memory, row.node.memory, &format!("{} / {}", widgets::bytes(row.load.memory), widgets::bytes(row.node.memory)))) }
                            td.num { (widgets::ago(cx, row.node.created)) }
                            td.message { (row.node.problems.join(", ")) }
                        }
                    }
                }
            } }
        }
        (widgets::pager(cx, &listing, params))
    };
    Ok(Page {
        title: cx.t(M::Nodes).to_owned(),
        nav: Nav::Nodes,
        body: vec![
            Block::part("top", "", top),
            Block::part("rows", "card", rows),
        ],
        interest: Interest::Nodes,
        ..Page::default()
    })
}

/// A node, and those of its instances that the user sees; how many it holds in all.
///
/// # Errors
/// If there is none, or none that the user may see.
pub fn seen(
    cx: &Cx,
    cluster: &str,
    name: &str,
) -> Result<(NodeRow, Vec<InstanceRow>, usize), Fail> {
    if !cx.sight.nodes {
        return Err(Fail::NotFound);
    }
    let state = cx.app.model.read();
    let row = nodes::one(&state, cluster, name).ok_or(Fail::NotFound)?;
    let member = state.members.get(cluster).ok_or(Fail::NotFound)?;
    let mut all = 0;
    let mut rows: Vec<InstanceRow> = Vec::new();
    for instance in member.on_node(name) {
        all += 1;
        if cx.sight.groups.see(&instance.tenant) {
            rows.push(InstanceRow {
                cluster: cluster.to_owned(),
                instance: (**instance).clone(),
            });
        }
    }
    rows.sort_by(|a, b| {
        (&a.instance.tenant, &a.instance.name).cmp(&(&b.instance.tenant, &b.instance.name))
    });
    Ok((row, rows, all))
}

/// One node.
///
/// # Errors
/// If there is none, or none that the user may see.
pub async fn one(cx: &Cx, params: &Params, cluster: &str, name: &str) -> Result<Page, Fail> {
    let (row, rows, all) = seen(cx, cluster, name)?;
    let may = cx.may(Right::core("patch", "nodes", "").named(name)).await;
    let node = &row.node;
    let base = format!("/nodes/{cluster}/{name}");
    let head = html! {
        div.title {
            h1 { (name) " " (state(cx, &row)) @if node.simulated { " " (widgets::badge("dim", "◌", cx.t(M::Simulated))) } }
            div.actions {
                @if may {
                    @if node.cordoned { a.button href={ (base) "/uncordon" } { (cx.t(M::Uncordon)) } }
                    @else { a.button href={ (base) "/cordon" } { (cx.t(M::Cordon)) } }
                    a.button.danger href={ (base) "/drain" } { (cx.t(M::Drain)) }
                }
            }
        }
        @for problem in &node.problems { p.said { (problem) } }
        dl.facts.row {
            (widgets::fact(cx.t(M::Cell), &html! { a href={ "/nodes?cluster=" (cluster) "&cell=" (node.cell) } { (cluster) "/" (node.cell) } }))
            (widgets::fact(cx.t(M::Instances), &html! { (row.load.instances) }))
            (widgets::fact(cx.t(M::CpuRequested), &share(row.load.cpu, node.cpu, &format!("{} / {}", widgets::cores(row.load.cpu), widgets::cores(node.cpu)))))
            (widgets::fact(cx.t(M::MemoryRequested), &share(row.load.memory, node.memory, &format!("{} / {}", widgets::bytes(row.load.memory), widgets::bytes(node.memory)))))
            (widgets::fact(cx.t(M::Age), &widgets::ago(cx, node.created)))
        }
    };
    let instances = html! {
        h2 { (cx.t(M::Instances)) span.number { (all) } }
        @if rows.is_empty() { (widgets::empty(cx.t(M::NoInstances), &html! { (cx.t(M::NoInstancesHint)) })) }
        @else { (group::instances(cx, &rows, params)) }
        @if all > rows.len() { p.hint { (cx.f(M::AndOthers, &[&(all - rows.len())])) } }
    };
    let labels = html! {
        h2 { (cx.t(M::Labels)) }
        ul.labels { @for (k, v) in &node.labels { li.mono { (k) "=" (v) } } }
    };
    Ok(Page {
        title: name.to_owned(),
        nav: Nav::Nodes,
        crumbs: vec![
            (cx.t(M::Nodes).to_owned(), "/nodes".to_owned()),
            (
                format!("{cluster}/{}", node.cell),
                format!("/nodes?cluster={cluster}&cell={}", node.cell),
            ),
        ],
        body: vec![
            Block::part("head", "", head),
            Block::part("instances", "card", instances),
            Block::part("labels", "card", labels),
        ],
        interest: Interest::Nodes,
    })
}

/// The page that says in numbers what closing or draining a node does, and asks.
///
/// # Errors
/// If there is no such node or action, or the user may not.
pub async fn confirm(cx: &Cx, cluster: &str, name: &str, action: &str) -> Result<Page, Fail> {
    let (row, rows, all) = seen(cx, cluster, name)?;
    let (word, danger) = match action {
        "cordon" => (M::Cordon, false),
        "uncordon" => (M::Uncordon, false),
        "drain" => (M::Drain, true),
        _ => return Err(Fail::NotFound),
    };
    if !cx.may(Right::core("patch", "nodes", "").named(name)).await {
        return Err(Fail::NotFound);
    }
    let groups: std::collections::BTreeMap<(String, String), usize> =
        rows.iter().fold(Default::default(), |mut all, r| {
            *all.entry((r.instance.tenant.clone(), r.instance.group.clone()))
                .or_insert(0) += 1;
            all
        });
    let says = match action {
        "cordon" => cx.f(M::CordonSays, &[&all]),
        "uncordon" => cx.t(M::UncordonSays).to_owned(),
        _ => cx.f(M::DrainSays, &[&all, &groups.len()]),
    };
    let html = html! {
        h1 { (cx.t(word)) " · " (name) " " (state(cx, &row)) }
        p.big { (says) }
        @if danger && !groups.is_empty() {
            div.scroll { table {
                thead { tr { th { (cx.t(M::Group)) } th.num { (cx.t(M::OnThisNode)) } th.num { (cx.t(M::InService)) } th.num { (cx.t(M::MaxUnavailable)) } th { (cx.t(M::Preview)) } } }
                tbody {
                    @for ((tenant, group), count) in &groups {
                        @let found = cx.app.model.read().groups.get(&(tenant.clone(), group.clone())).cloned();
                        @let desired = found.as_ref().map_or(0, |g| g.spec.replicas);
                        @let serving = found.as_ref().and_then(|g| g.status.as_ref()).map_or(0, |s| s.in_service);
                        @let out = found.as_ref().map_or(0, |g| g.spec.availability.max_unavailable.max_out(u32::try_from(desired).unwrap_or(0)) as i32);
                        @let at_once = (out - (desired - serving)).max(0);
                        tr {
                            th scope="row" { a href={ "/groups/" (tenant) "/" (group) } { (tenant) "/" (group) } }
                            td.num { (count) }
                            td.num { (serving) " / " (desired) }
                            td.num { (out) }
                            td {
                                @if at_once == 0 { (widgets::badge("bad", "■", cx.t(M::DrainBlocked))) }
                                @else if (at_once as usize) < *count { (widgets::badge("hold", "◇", &cx.f(M::DrainSteps, &[&at_once]))) }
                                @else { (widgets::badge("good", "●", cx.t(M::DrainAtOnce))) }
                            }
                        }
                    }
                }
            } }
        }
        form.stack method="post" action={ "/nodes/" (cluster) "/" (name) "/" (action) } {
            (widgets::csrf(cx))
            @if danger {
                (widgets::typed(cx, name))
            }
            div.actions {
                button type="submit" class=(if danger { "danger" } else { "primary" }) { (cx.t(word)) }
                a.button href={ "/nodes/" (cluster) "/" (name) } { (cx.t(M::Back)) }
            }
        }
    };
    Ok(Page {
        title: format!("{} · {name}", cx.t(word)),
        nav: Nav::Nodes,
        crumbs: vec![(name.to_owned(), format!("/nodes/{cluster}/{name}"))],
        body: vec![Block::part("confirm", "card narrow", html)],
        ..Page::default()
    })
}
