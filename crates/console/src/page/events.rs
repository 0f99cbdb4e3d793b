//! What happened to a Group and its instances: Kubernetes' events.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};
use maud::{Markup, html};

use super::widgets;
use crate::{access::Right, app::Cx, error::Fail, messages::M, model::Key};

/// Events about an object of the hub, read as the user.
///
/// # Errors
/// If the hub does not answer.
pub async fn of(cx: &Cx, tenant: &str, kind: &str, name: &str) -> Result<Markup, Fail> {
    let api: Api<Event> = Api::namespaced(cx.session.client.clone(), tenant);
    let wanted = ListParams::default().fields(&format!(
        "involvedObject.kind={kind},involvedObject.name={name}"
    ));
    let mut list = match api.list(&wanted).await.map_err(Fail::from) {
        Ok(list) => list.items,
        Err(Fail::Forbidden(why)) => return Ok(html! { p.said { (why) } }),
        Err(fail) => return Err(fail),
    };
    Ok(table(cx, &mut list))
}

/// Events of instances that are kept of one member.
const EVENTS: u32 = 500;

/// What happened to a Group's instances, by member.
pub async fn of_instances(cx: &Cx, key: &Key) -> Vec<(String, Markup)> {
    let members: Vec<(String, HashSet<String>)> = {
        let state = cx.app.model.read();
        let all = state.members.iter();
        all.map(|(name, m)| {
            let names = m.of_group(key).map(|i| i.name.clone());
            (name.clone(), names.collect::<HashSet<_>>())
        })
        .filter(|(_, names)| !names.is_empty())
        .collect()
    };
    let mut told = Vec::new();
    for (cluster, names) in members {
        let right = Right::core("list", "events", &key.0);
        if !cx.may_on(&cluster, right).await {
            continue;
        }
        let found = async {
            let api: Api<Event> = Api::namespaced(super::reader(cx, &cluster)?, &key.0);
            let wanted = ListParams::default()
                .fields("involvedObject.kind=Pod")
                .limit(EVENTS);
            Ok::<_, Fail>(api.list(&wanted).await?.items)
        };
        let html = match found.await {
            Ok(mut list) => {
                let named = |e: &Event| e.involved_object.name.clone().unwrap_or_default();
                list.retain(|e| names.contains(&named(e)));
                html! { h2 { (cluster) " · " (cx.t(M::Instances)) } (table(cx, &mut list)) }
            }
            Err(fail) => html! { h2 { (cluster) } p.said { (fail.detail()) } },
        };
        told.push((cluster, html));
    }
    told
}

/// A table of events, newest first.
pub fn table(cx: &Cx, list: &mut [Event]) -> Markup {
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
