//! Revisions of a Group, and how they differ.

use std::collections::BTreeMap;

use gantry_api::{Group, labels};
use gantry_hub::{diff, world::Revision};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{Api, ResourceExt, api::ListParams};
use maud::{Markup, html};

use super::widgets;
use crate::{access::Right, app::Cx, error::Fail, messages::M, view::Params};

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

/// The tab: all that are kept, and how two of them differ.
///
/// # Errors
/// If they may not read them.
pub async fn tab(cx: &Cx, params: &Params, group: &Group) -> Result<Markup, Fail> {
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
