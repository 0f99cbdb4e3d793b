//! Scaling a Group: how many instances there are to be, how they come, giving it up, and who scaled before.

use gantry_hub::group::wishes::given_up;
use gantry_records::{Filter, Page as Part, Record, Verb};
use maud::{Markup, html};
use serde_json::Value;

use super::{Block, Interest, Nav, Page, group, records, widgets};
use crate::{app::Cx, error::Fail, messages::M, model::Key, view::groups};

/// Scalings that are listed.
const LISTED: u32 = 20;

/// The page.
///
/// # Errors
/// If there is no such Group, or none that the user may see.
pub async fn page(cx: &Cx, tenant: &str, name: &str) -> Result<Page, Fail> {
    let group = group::seen(cx, tenant, name).await?;
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
    let there = given_up(row.desired, &status).filter(|_| group.status.is_some());
    let progress = html! {
        h2 { (cx.t(M::Progress)) }
        p.big { (status.in_service) "/" (row.desired) " " (if settled { widgets::badge("good", "●", cx.t(M::HealthHealthy)) } else { widgets::badge("busy", "↕", cx.t(M::HealthScaling)) }) }
        (widgets::bar(i64::from(status.in_service), i64::from(row.desired), if settled { "good" } else { "busy" }, &cx.f(M::InServiceOf, &[&status.in_service, &row.desired])))
        dl.facts {
            @for cell in &status.cells { (widgets::fact(&cell.name, &html! { (cell.in_service) " / " (cell.desired) })) }
        }
        @if !row.message.is_empty() { p.said { (widgets::local(cx, &row.message)) } }
        @if let Some(there) = there {
            form.stack method="post" action={ "/groups/" (tenant) "/" (name) "/scale/cancel" } {
                (widgets::csrf(cx))
                p.hint { (cx.f(M::ScaleCancelSays, &[&there])) }
                div.actions { button.danger type="submit" { (cx.t(M::ScaleCancel)) } }
            }
        }
    };
    let mut blocks = vec![
        Block::part("form", "card", form),
        Block::part("progress", "card", progress),
    ];
    if let Some(history) = history(cx, tenant, name).await {
        blocks.push(Block::part("history", "card", history));
    }
    let mut crumbs = group::crumbs(cx, tenant, &group.spec.app);
    crumbs.push((name.to_owned(), format!("/groups/{tenant}/{name}")));
    Ok(Page {
        title: format!("{} · {name}", cx.t(M::Scale)),
        nav: Nav::Services,
        crumbs,
        body: vec![Block::group("scale", "two", blocks)],
        interest: Interest::Group(key),
    })
}

/// Who scaled it when, where records are kept.
async fn history(cx: &Cx, tenant: &str, name: &str) -> Option<Markup> {
    let records = cx.app.records.as_ref()?;
    let filter = Filter {
        tenants: Some(vec![tenant.to_owned()]),
        kind: Some("Group".to_owned()),
        name: Some(name.to_owned()),
        verbs: vec![Verb::Scale],
        ..Filter::default()
    };
    let found = records.query(&filter, &Part::first(LISTED)).await;
    Some(match found {
        Ok(found) => table(cx, &found.records),
        Err(error) => html! { h2 { (cx.t(M::ScaleHistory)) } p.said { (error) } },
    })
}

fn replicas(value: Option<&Value>) -> String {
    let n = value.and_then(|v| v["replicas"].as_i64());
    n.map_or("—".to_owned(), |n| n.to_string())
}

/// The scalings of a Group, newest first.
pub fn table(cx: &Cx, all: &[Record]) -> Markup {
    html! {
        h2 { (cx.t(M::ScaleHistory)) }
        @if all.is_empty() { p.hint { (cx.t(M::ScaleNever)) } }
        @else {
            div.scroll { table {
                thead { tr { th { (cx.t(M::When)) } th { (cx.t(M::By)) } th { (cx.t(M::Instances)) } th { (cx.t(M::State)) } th { (cx.t(M::Message)) } } }
                tbody { @for record in all { tr {
                    td { (widgets::ago(cx, Some(record.at))) }
                    td { (record.who.user) " " small { (record.who.via.as_str()) } }
                    td.num { (replicas(record.before.as_ref())) " → " (replicas(record.after.as_ref())) }
                    td { (records::outcome(record.outcome)) }
                    td.message { (record.message) }
                } } }
            } }
        }
    }
}
