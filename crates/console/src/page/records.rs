//! Records: who did what, when, why, and what came of it. Of the tenants that one sees, and no others.

use gantry_records::{Filter, Found, Outcome, Page as Part, Record, Verb};
use maud::{Markup, html};

use super::{Block, Nav, Page, widgets};
use crate::{access::Tenants, app::Cx, error::Fail, messages::M, view::Params};

/// Records of a page where nobody says otherwise.
const PER_PAGE: u32 = 50;

/// The filter that parameters spell, within what someone sees. What belongs to the fleet is for who sees
/// all tenants.
///
/// # Errors
/// Which parameter is no word that there is.
pub fn filter(sees: &Tenants, params: &Params) -> Result<Filter, Fail> {
    let text = |name: &str| Some(params.get(name).to_owned()).filter(|t| !t.is_empty());
    let asked = text("tenant");
    let tenants = match (sees, asked) {
        (Tenants::All, asked) => asked.map(|t| vec![t]),
        (Tenants::Some(some), None) => Some(some.iter().cloned().collect()),
        (Tenants::Some(some), Some(one)) => {
            Some(some.iter().filter(|t| **t == one).cloned().collect())
        }
    };
    let verb = text("verb").map(|t| t.parse::<Verb>().map_err(Fail::Bad));
    let outcome = text("outcome").map(|t| t.parse::<Outcome>().map_err(Fail::Bad));
    Ok(Filter {
        tenants,
        kind: text("kind"),
        name: text("name"),
        who: text("who"),
        verbs: verb.transpose()?.into_iter().collect(),
        outcomes: outcome.transpose()?.into_iter().collect(),
        text: text("q"),
        ..Filter::default()
    })
}

/// What is found of it.
///
/// # Errors
/// If the console keeps none, or the database does not answer.
pub async fn found(cx: &Cx, params: &Params) -> Result<Found, Fail> {
    let records = cx.app.records.as_ref().ok_or(Fail::NotFound)?;
    let filter = filter(&cx.sight.groups, params)?;
    let limit = params.number("per").and_then(|n| u32::try_from(n).ok());
    let after = Some(params.get("after").to_owned()).filter(|t| !t.is_empty());
    let part = Part {
        limit: limit.unwrap_or(PER_PAGE).clamp(1, 500),
        after,
    };
    let found = records.query(&filter, &part).await;
    found.map_err(|e| Fail::Upstream(format!("the records: {e}")))
}

/// The page.
///
/// # Errors
/// If the console keeps none, or the database does not answer.
pub async fn page(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    let found = found(cx, params).await?;
    let top = html! {
        h1 { (cx.t(M::Records)) }
        div.bar-row {
            (widgets::search(cx, params, &["tenant", "name", "who", "verb", "outcome"]))
            (widgets::choices(params, "outcome", &[
                ("", cx.t(M::All)), ("running", cx.t(M::InFlight)), ("failed", cx.t(M::Failed)), ("rolled-back", cx.t(M::PhaseRolledBack)),
            ]))
        }
    };
    let rows = html! {
        @if found.records.is_empty() { (widgets::empty(cx.t(M::NoRecords), &html! { (cx.t(M::NoRecordsHint)) })) }
        @else {
            div.scroll { table {
                thead { tr {
                    th { (cx.t(M::When)) } th { (cx.t(M::By)) } th { (cx.t(M::Verb)) } th { (cx.t(M::Object)) }
                    th { (cx.t(M::State)) } th { (cx.t(M::Why)) } th { (cx.t(M::Message)) }
                } }
                tbody { @for record in &found.records { (line(cx, params, record)) } }
            } }
        }
        @if let Some(next) = &found.next {
            div.pager { span {} nav { a.button rel="next" href=(params.with("after", next)) { (cx.t(M::Next)) " →" } } }
        }
    };
    Ok(Page {
        title: cx.t(M::Records).to_owned(),
        nav: Nav::Records,
        body: vec![
            Block::part("top", "", top),
            Block::part("rows", "card", rows),
        ],
        ..Page::default()
    })
}

fn line(cx: &Cx, params: &Params, record: &Record) -> Markup {
    let object = &record.object;
    let (tone, shape) = match record.outcome {
        Outcome::Running => ("busy", "◐"),
        Outcome::Done | Outcome::Succeeded => ("good", "●"),
        Outcome::RolledBack => ("warn", "◀"),
        Outcome::Failed => ("bad", "■"),
        Outcome::Aborted | Outcome::Unknown => ("dim", "○"),
    };
    let href = match object.kind.as_str() {
        "Group" => Some(format!("/groups/{}/{}", object.namespace, object.name)),
        "Release" => Some(format!("/releases/{}/{}", object.namespace, object.name)),
        _ => None,
    };
    let name = if object.namespace.is_empty() {
        object.name.clone()
    } else {
        format!("{}/{}", object.namespace, object.name)
    };
    html! {
        tr {
            td { (widgets::ago(cx, Some(record.at))) }
            td { a href=(params.with("who", &record.who.user)) { (record.who.user) } " " small { (record.who.via.as_str()) } }
            td { (record.verb.as_str()) }
            th scope="row" { small { (object.kind) " " } @if let Some(href) = href { a href=(href) { (name) } } @else { (name) } }
            td { (widgets::badge(tone, shape, record.outcome.as_str())) }
            td.message { (record.why) }
            td.message {
                (record.message)
                @if record.before.is_some() || record.after.is_some() {
                    details {
                        summary { (cx.t(M::WhatChanges)) }
                        pre {
                            @if let Some(before) = &record.before { del { "- " (before) "\n" } }
                            @if let Some(after) = &record.after { ins { "+ " (after) "\n" } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reads_the_records_of_a_tenant_that_they_do_not_see() {
        let some = Tenants::Some(["shop".to_owned()].into());
        let none = Tenants::Some(Default::default());
        let of =
            |sees: &Tenants, query: &str| filter(sees, &Params::parse(query)).map(|f| f.tenants);
        let list = |names: &[&str]| Ok(Some(names.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!(of(&Tenants::All, ""), Ok(None));
        assert_eq!(of(&Tenants::All, "tenant=bank"), list(&["bank"]));
        assert_eq!(of(&some, ""), list(&["shop"]));
        assert_eq!(of(&some, "tenant=shop"), list(&["shop"]));
        // An empty list finds nothing.
        assert_eq!(of(&some, "tenant=bank"), list(&[]));
        assert_eq!(of(&none, ""), list(&[]));
        assert!(matches!(of(&some, "verb=nonsense"), Err(Fail::Bad(_))));
    }
}
