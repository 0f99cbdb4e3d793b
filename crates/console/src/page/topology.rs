//! From Service to instances: who would be reached, by cell, as a picture.

use std::{collections::BTreeMap, sync::Arc};

use gantry_api::{Group, group::ServiceType};
use kube::ResourceExt;
use maud::{Markup, html};

use super::{group, widgets};
use crate::{app::Cx, messages::M, model::Instance, view::run::Tile};

/// Marks of a cell, at most.
const MARKS: usize = 60;

/// A Service as the picture has it: name, how it is reached, and where.
fn services(group: &Group) -> Vec<(String, &'static str, String)> {
    if group.spec.services.is_empty() {
        return vec![(group.name_any(), "", String::new())];
    }
    let kind = |kind, headless| match (kind, headless) {
        (ServiceType::NodePort, _) => "NodePort",
        (ServiceType::LoadBalancer, _) => "LoadBalancer",
        (_, true) => "headless",
        _ => "ClusterIP",
    };
    let one = |s: &gantry_api::group::GroupService| {
        let ports: Vec<String> = s.ports.iter().map(|p| format!(":{}", p.port)).collect();
        (s.name.clone(), kind(s.kind, s.headless), ports.join(" "))
    };
    group.spec.services.iter().map(one).collect()
}

/// How an instance stands there, as releases mark it.
fn tile(i: &Instance) -> Tile {
    match (i.terminating, i.ready, i.in_service) {
        (true, ..) => Tile::Missing,
        (_, true, true) => Tile::Done,
        (_, true, false) => Tile::Held,
        _ => Tile::Unready,
    }
}

/// The picture. `all` are the Group's instances by cell, each with its member.
pub fn picture(
    cx: &Cx,
    group: &Group,
    all: &BTreeMap<String, Vec<(String, Arc<Instance>)>>,
) -> Markup {
    let cells = group.status.iter().flat_map(|s| &s.cells);
    html! {
        div.topology role="group" aria-label=(cx.t(M::Topology)) {
            ul.sources {
                @for (name, kind, ports) in services(group) {
                    li.node-box { small { (cx.t(M::Service)) " " (kind) } b { (name) } @if !ports.is_empty() { span.mono { (ports) } } }
                }
            }
            ul.targets {
                @for cell in cells {
                    @let here = all.get(&cell.name).map_or(&[][..], Vec::as_slice);
                    li {
                        div.node-box {
                            small { (cell.cluster) } b { (cell.name) }
                            span.num.(if cell.in_service < cell.desired { "warn" } else { "good" }) { (cell.in_service) "/" (cell.desired) }
                        }
                        div.tiles {
                            @for (cluster, instance) in here.iter().take(MARKS) { (mark(cx, cluster, instance)) }
                            @if here.len() > MARKS { a.hint href={ "?cell=" (cell.name) } { "+" (here.len() - MARKS) } }
                        }
                    }
                }
            }
        }
    }
}

fn mark(cx: &Cx, cluster: &str, i: &Instance) -> Markup {
    let mut title = format!("{} · {}", i.name, cx.t(group::state_word(i).2));
    for more in [&i.node, &i.address, &i.trouble] {
        if !more.is_empty() {
            title.push_str(&format!(" · {}", widgets::local(cx, more)));
        }
    }
    let place = format!("/instances/{cluster}/{}/{}", i.tenant, i.name);
    html! { a class={ "tile " (tile(i).class()) } href=(place) title=(title) aria-label=(title) {} }
}
