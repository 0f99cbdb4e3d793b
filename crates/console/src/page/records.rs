//! Records: who did what, when, why, and what came of it. Of the tenants that one sees, and no others.

use gantry_records::{Filter, Found, Outcome, Page as Part, Record, Verb};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use maud::{Markup, html};

use super::{Block, Nav, Page, edit, widgets};
use crate::{access::Tenants, app::Cx, error::Fail, messages::M, view::Params};

/// Records of a page where nobody says otherwise.
const PER_PAGE: u32 = 50;

/// The filter that parameters spell, within what someone sees. What belongs to the fleet is for who sees
/// all tenants.
///
/// # Errors
/// Which parameter is no word that there is.
pub fn filter(sees: &Tenants, zone: &TimeZone, params: &Params) -> Result<Filter, Fail> {
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
    let day = |name: &str, end: bool| {
        text(name).map(|t| {
            instant(&t, zone, end).ok_or_else(|| {
                Fail::Bad(format!("{name}: {t:?} is neither a day as 2026-11-27 nor a time as 2026-11-27T08:00:00Z"))
            })
        })
    };
    let (since, until) = (
        day("since", false).transpose()?,
        day("until", true).transpose()?,
    );
    Ok(Filter {
        tenants,
        kind: text("kind"),
        name: text("name"),
        who: text("who"),
        verbs: verb.transpose()?.into_iter().collect(),
        outcomes: outcome.transpose()?.into_iter().collect(),
        text: text("q"),
        since,
        until,
        ..Filter::default()
    })
}

/// A day (its beginning or end, in a zone) or an instant.
fn instant(text: &str, zone: &TimeZone, end: bool) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let day: Date = text.parse().ok()?;
    let day = if end { day.tomorrow().ok()? } else { day };
    Some(day.to_zoned(zone.clone()).ok()?.timestamp())
}

/// What is found of it.
///
/// # Errors
/// If the console keeps none, or the database does not answer.
pub async fn found(cx: &Cx, params: &Params) -> Result<Found, Fail> {
    let records = cx.app.records.as_ref().ok_or(Fail::NotFound)?;
    let filter = filter(&cx.sight.groups, &cx.prefs.zone, params)?;
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
        div.title { h1 { (cx.t(M::Records)) }
            div.actions {
                a.button href={ "/export/records.csv" (params.with("after", "")) } { "CSV" }
                a.button href={ "/export/records.jsonl" (params.with("after", "")) } { "JSON" }
            }
        }
        div.bar-row {
            (widgets::choices(params, "outcome", &[
                ("", cx.t(M::All)), ("running", cx.t(M::InFlight)), ("failed", cx.t(M::Failed)), ("rolled-back", cx.t(M::PhaseRolledBack)),
            ]))
        }
        (filters(cx, params))
    };
    let rows = html! {
        @if found.records.is_empty() { (widgets::empty(cx.t(M::NoRecords), &html! { (cx.t(M::NoRecordsHint)) })) }
        @else {
            (table(cx, params, &found.records))
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

/// Every filter there is, as a form.
fn filters(cx: &Cx, params: &Params) -> Markup {
    let field = |name: &str, word: M, kind: &str| {
        html! { div.field { label for=(name) { (cx.t(word)) } input id=(name) name=(name) type=(kind) value=(params.get(name)) autocomplete="off"; } }
    };
    let verbs = Verb::ALL.iter().map(|v| v.as_str());
    html! {
        form.filters method="get" {
            div.field { label for="q" { (cx.t(M::Search)) } input #q type="search" name="q" value=(params.get("q")) autocomplete="off" data-search; }
            (field("tenant", M::Tenant, "text"))
            (field("name", M::Name, "text"))
            (field("who", M::By, "text"))
            div.field { label for="verb" { (cx.t(M::Verb)) }
                select #verb name="verb" {
                    option value="" { (cx.t(M::All)) }
                    @for verb in verbs { option value=(verb) selected[params.get("verb") == verb] { (verb) } }
                }
            }
            (field("since", M::From, "date"))
            (field("until", M::Until, "date"))
            @if !params.get("outcome").is_empty() { input type="hidden" name="outcome" value=(params.get("outcome")); }
            div.actions { button type="submit" { (cx.t(M::Filter)) } a.button.quiet href="/records" { (cx.t(M::FilterNone)) } }
        }
    }
}

/// What came of it.
pub fn outcome(outcome: Outcome) -> Markup {
    let (tone, shape) = match outcome {
        Outcome::Running => ("busy", "◐"),
        Outcome::Done | Outcome::Succeeded => ("good", "●"),
        Outcome::RolledBack => ("warn", "◀"),
        Outcome::Failed => ("bad", "■"),
        Outcome::Aborted | Outcome::Unknown => ("dim", "○"),
    };
    widgets::badge(tone, shape, outcome.as_str())
}

/// The table of records.
pub fn table(cx: &Cx, params: &Params, all: &[Record]) -> Markup {
    html! {
        div.scroll { table data-rows {
            thead { tr {
                th { (cx.t(M::When)) } th { (cx.t(M::By)) } th { (cx.t(M::Verb)) } th { (cx.t(M::Object)) }
                th { (cx.t(M::State)) } th { (cx.t(M::Why)) } th { (cx.t(M::Message)) }
            } }
            tbody { @for record in all { (line(cx, params, record)) } }
        } }
    }
}

fn line(cx: &Cx, params: &Params, record: &Record) -> Markup {
    let object = &record.object;
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
            td { @if record.who.user.is_empty() { span.none { "—" } } @else { a href=(params.with("who", &record.who.user)) { (record.who.user) } } " " small { (record.who.via.as_str()) } }
            td { (record.verb.as_str()) }
            th scope="row" { small { (object.kind) " " } @if let Some(href) = href { a href=(href) data-row { (name) } } @else { (name) } }
            td { (outcome(record.outcome)) }
            td.message { (record.why) }
            td.message {
                (widgets::local(cx, &record.message))
                @if record.before.is_some() || record.after.is_some() {
                    details {
                        summary { (cx.t(M::WhatChanges)) }
                        (edit::changes(record.before.as_ref(), record.after.as_ref()))
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
        let of = |sees: &Tenants, query: &str| {
            filter(sees, &TimeZone::UTC, &Params::parse(query)).map(|f| f.tenants)
        };
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

    #[test]
    fn days_are_those_of_the_users_zone() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let of = |query: &str| filter(&Tenants::All, &zone, &Params::parse(query));
        let found = of("since=2026-11-27&until=2026-11-27").unwrap();
        let text = |t: Option<Timestamp>| t.map(|t| t.to_string());
        assert_eq!(text(found.since).as_deref(), Some("2026-11-26T16:00:00Z"));
        assert_eq!(text(found.until).as_deref(), Some("2026-11-27T16:00:00Z"));
        let exact = of("since=2026-11-27T08:00:00Z").unwrap();
        assert_eq!(text(exact.since).as_deref(), Some("2026-11-27T08:00:00Z"));
        assert!(matches!(of("until=soon"), Err(Fail::Bad(_))));
    }
}
