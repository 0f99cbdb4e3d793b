//! Quotas: how much of each is used and what binds; one of them, to be edited; a Tenant with its pools.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::{Block, Interest, Nav, Page, edit, widgets};
use crate::{
    access::{Right, Tenants},
    act::edit::{Kind, Target},
    app::Cx,
    error::Fail,
    messages::M,
    model::limits::{Amount, Quota},
    view::{
        Params,
        quotas::{self, QuotaRow, Sees},
    },
};

/// Whose quotas someone sees: of namespaces where the hub lets them list ResourceQuotas, and of Tenants that
/// it lets them read, with the namespaces of these.
pub async fn sees(cx: &Cx) -> Sees {
    let (names, departments) = {
        let state = cx.app.model.read();
        let names: BTreeSet<String> = state
            .tenants()
            .into_iter()
            .filter(|t| cx.sight.groups.see(t))
            .map(str::to_owned)
            .collect();
        let departments: Vec<(String, Vec<String>)> = state
            .departments
            .iter()
            .map(|(name, d)| (name.clone(), d.namespaces()))
            .filter(|(_, spaces)| spaces.iter().any(|s| cx.sight.groups.see(s)))
            .collect();
        (names, departments)
    };
    let ids: BTreeSet<String> = departments.iter().map(|(name, _)| name.clone()).collect();
    let (namespaces, tenants) = futures::join!(
        cx.session
            .which(Right::core("list", "resourcequotas", ""), &names, |n| {
                Right::core("list", "resourcequotas", n)
            }),
        cx.session
            .which(Right::gantry("list", "tenants", ""), &ids, |n| {
                Right::gantry("get", "tenants", "").named(n)
            }),
    );
    let namespaces = match namespaces {
        Tenants::All => Tenants::All,
        Tenants::Some(mut some) => {
            for (name, spaces) in departments {
                if tenants.see(&name) {
                    some.extend(spaces);
                }
            }
            Tenants::Some(some)
        }
    };
    Sees {
        namespaces,
        tenants,
    }
}

/// The list.
///
/// # Errors
/// None; the signature is that of all pages.
pub async fn list(cx: &Cx, params: &Params) -> Result<Page, Fail> {
    let sees = sees(cx).await;
    let listing = quotas::quotas(&cx.app.model.read(), &sees, params);
    let kinds = [
        ("", cx.t(M::All)),
        ("Tenant", cx.t(M::Tenant)),
        ("ResourceQuota", "ResourceQuota"),
        ("ElasticQuota", "ElasticQuota"),
    ];
    let top = html! {
        h1 { (cx.t(M::Quotas)) @if !params.get("tenant").is_empty() { " " small { (params.get("tenant")) } } }
        div.bar-row {
            (widgets::search(cx, params, &["tenant", "cluster", "kind", "state", "sort"]))
            (widgets::choices(params, "kind", &kinds))
            (widgets::choices(params, "state", &[("", cx.t(M::All)), ("tight", cx.t(M::QuotaTight))]))
        }
    };
    let rows = html! {
        @if listing.items.is_empty() {
            (widgets::empty(cx.t(M::NoQuotas), &html! { (cx.t(M::NoQuotasHint)) }))
        } @else {
            (table(cx, params, &listing.items))
            (widgets::pager(cx, &listing, params))
        }
    };
    Ok(Page {
        title: cx.t(M::Quotas).to_owned(),
        nav: Nav::Quotas,
        body: vec![
            Block::part("top", "", top),
            Block::part("rows", "card", rows),
        ],
        interest: Interest::Quotas,
        ..Page::default()
    })
}

/// An amount with its unit.
pub fn amount(resource: &str, n: i64) -> String {
    if Amount::is_cpu(resource) {
        widgets::cores(n)
    } else if Amount::is_bytes(resource) {
        widgets::bytes(n)
    } else {
        n.to_string()
    }
}

fn percent(share: i64) -> String {
    format!("{} %", share / 10)
}

fn tone(share: i64) -> &'static str {
    match share {
        1000.. => "bad",
        800.. => "warn",
        _ => "plain",
    }
}

/// Used of what may be, as a bar and in figures.
pub fn usage(cx: &Cx, of: &Amount) -> Markup {
    let show = |n: i64| amount(&of.resource, n);
    let words = match of.limit {
        Some(limit) => format!("{} / {}", show(of.used), show(limit)),
        None => show(of.used),
    };
    html! {
        div.usage {
            span.mono { (of.resource) }
            @if let (Some(limit), Some(share)) = (of.limit, of.share()) { (widgets::bar(of.used, limit, tone(share), &words)) } @else { span {} }
            span.num { (words) }
            span {
                @if of.borrows() { (widgets::badge("hold", "◇", cx.t(M::QuotaBorrows))) }
                @else if let Some(guaranteed) = of.guaranteed { small { (cx.f(M::QuotaGuaranteed, &[&show(guaranteed)])) } }
            }
        }
    }
}

fn binds(cx: &Cx, row: &QuotaRow) -> Markup {
    if row.binds.is_empty() {
        return html! { span.none { "—" } };
    }
    let word = format!("{} {}", row.binds, percent(row.share));
    match row.share {
        1000.. => widgets::badge("bad", "■", &format!("{} · {word}", cx.t(M::QuotaFull))),
        800.. => widgets::badge("warn", "▲", &word),
        _ => html! { span.mono { (row.binds) } " " (percent(row.share)) },
    }
}

/// The table of quotas.
pub fn table(cx: &Cx, params: &Params, rows: &[QuotaRow]) -> Markup {
    html! {
        div.scroll { table data-rows {
            thead { tr {
                (widgets::sorter(params, "tenant", cx.t(M::Tenant), ""))
                (widgets::sorter(params, "name", cx.t(M::Quota), ""))
                (widgets::sorter(params, "cluster", cx.t(M::Cluster), ""))
                th { (cx.t(M::QuotaUsed)) }
                (widgets::sorter(params, "share", cx.t(M::QuotaBinds), ""))
            } }
            tbody {
                @for row in rows {
                    tr {
                        td { a href=(params.with("tenant", &row.quota.namespace)) { (row.quota.namespace) } }
                        th scope="row" {
                            a href=(row.href()) data-row { (row.quota.name) } " " small { (row.quota.kind.name()) }
                            @if !row.quota.parent.is_empty() { div { small { (cx.f(M::QuotaBelow, &[&row.quota.parent])) } } }
                        }
                        td { @if row.cluster.is_empty() { (cx.t(M::WholeFleet)) } @else { (row.cluster) } }
                        td { @for one in &row.quota.amounts { (usage(cx, one)) } }
                        td { (binds(cx, row)) }
                    }
                }
            }
        } }
    }
}

/// Whether someone sees a quota or Tenant, and the row of it (of a Tenant: its pools).
pub async fn seen(cx: &Cx, target: &Target) -> Result<Vec<QuotaRow>, Fail> {
    let sees = sees(cx).await;
    let state = cx.app.model.read();
    let visible = match target.kind {
        Kind::Tenant => {
            sees.tenants.see(&target.name) && state.departments.contains_key(&target.name)
        }
        _ => sees.namespaces.see(&target.namespace),
    };
    if !visible {
        return Err(Fail::NotFound);
    }
    let tenant = if target.kind == Kind::Tenant {
        &target.name
    } else {
        &target.namespace
    };
    let wanted = Params(vec![
        ("tenant".to_owned(), tenant.clone()),
        ("per".to_owned(), "500".to_owned()),
    ]);
    let mut rows = quotas::quotas(&state, &sees, &wanted).items;
    if target.kind == Kind::Tenant {
        return Ok(rows);
    }
    rows.retain(|row| row.href() == target.place());
    if rows.is_empty() {
        return Err(Fail::NotFound);
    }
    Ok(rows)
}

/// One quota, or a Tenant with its pools and what its members have of them.
///
/// # Errors
/// If there is none, or none that the user may see.
pub async fn one(cx: &Cx, target: &Target, sent: Option<edit::Sent<'_>>) -> Result<Page, Fail> {
    let rows = seen(cx, target).await?;
    let object = target.read(cx).await?;
    let kept = rows.iter().any(|r| r.quota.kept) && target.kind != Kind::Tenant;
    let head = html! {
        h1 { (target.name) " " small { @if target.cluster.is_empty() { (cx.t(M::Tenant)) } @else { (target.cluster) "/" (target.namespace) } } }
        @if kept { p.said { (cx.t(M::QuotaKept)) " " a href={ "/quotas?kind=Tenant&tenant=" (target.namespace) } { (cx.t(M::Tenant)) } } }
    };
    let shown: Vec<&QuotaRow> = rows.iter().collect();
    let figures = html! {
        h2 { (cx.t(M::QuotaUsed)) }
        @if shown.is_empty() { (widgets::empty(cx.t(M::NoQuotas), &html! { (cx.t(M::NoQuotasHint)) })) }
        @for row in shown {
            @let Quota { name, kind, amounts, .. } = &row.quota;
            h3 { (name) " " small { (kind.name()) @if !row.cluster.is_empty() { " · " (row.cluster) } } " " (binds(cx, row)) }
            @for one in amounts { (usage(cx, one)) }
        }
    };
    let editor = edit::editor(cx, target, &object, sent).await?;
    let right = edit::pane(cx, sent.map(|s| s.fail));
    let figures = Block::part("figures", "card", figures);
    Ok(Page {
        title: target.name.clone(),
        nav: Nav::Quotas,
        crumbs: vec![(cx.t(M::Quotas).to_owned(), "/quotas".to_owned())],
        body: vec![
            Block::part("head", "", head),
            edit::beside(editor, right, vec![figures]),
        ],
        ..Page::default()
    })
}
