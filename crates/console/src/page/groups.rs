//! The service tree: tenants, their Apps, their Groups.

use kube::ResourceExt;
use maud::{Markup, html};

use super::{Block, Interest, Nav, Page, widgets};
use crate::{
    access::Right,
    app::Cx,
    error::Fail,
    messages::M,
    view::{
        Params,
        groups::{GroupRow, TenantRow, groups, row, tenants},
    },
};

/// The page of all tenants, of one, or of one App.
///
/// # Errors
/// If the user does not see the tenant, or there is none.
pub async fn page(cx: &Cx, params: &Params, tenant: &str, app: &str) -> Result<Page, Fail> {
    let mut asked = params.clone();
    for (name, value) in [("tenant", tenant), ("app", app)] {
        if !value.is_empty() {
            asked.0.retain(|(k, _)| k != name);
            asked.0.push((name.to_owned(), value.to_owned()));
        }
    }
    let (listing, all, object) = {
        let state = cx.app.model.read();
        let all = tenants(&state, &cx.sight);
        let object = state
            .apps
            .get(&(tenant.to_owned(), app.to_owned()))
            .cloned();
        (groups(&state, &cx.sight, &asked), all, object)
    };
    if !tenant.is_empty() && !all.iter().any(|t| t.name == tenant) {
        return Err(Fail::NotFound);
    }
    if !app.is_empty() && object.is_none() && listing.total == 0 {
        return Err(Fail::NotFound);
    }
    let mayname = if tenant.is_empty() { "" } else { tenant };
    let create = cx.may(Right::gantry("create", "groups", mayname)).await;
    let title = match (tenant, app) {
        ("", _) => cx.t(M::Services).to_owned(),
        (tenant, "") => tenant.to_owned(),
        (_, app) => app.to_owned(),
    };
    let top = html! {
        div.title {
            h1 { (title) }
            @if create { a.button.primary href={ "/create?tenant=" (tenant) "&app=" (app) } { (cx.t(M::Create)) } }
        }
        @if let Some(app) = &object {
            @let spec = &app.spec;
            dl.facts.row {
                (widgets::fact(cx.t(M::Level), &html! { (format!("{:?}", spec.level)) }))
                (widgets::fact(cx.t(M::Owners), &html! { (if spec.owners.is_empty() { "—".to_owned() } else { spec.owners.join(", ") }) }))
                (widgets::fact(cx.t(M::Ports), &html! { @for p in &spec.ports { span.mono { (p.name) ":" (p.port) } " " } @if spec.ports.is_empty() { "—" } }))
                (widgets::fact(cx.t(M::Age), &widgets::ago(cx, app.creation_timestamp().map(|t| t.0))))
            }
        }
        div.bar-row {
            (widgets::search(cx, params, &["health", "sort", "env"]))
            (widgets::choices(params, "health", &[
                ("", cx.t(M::All)), ("Troubled", cx.t(M::InTrouble)), ("Releasing", cx.t(M::HealthReleasing)), ("Waiting", cx.t(M::HealthWaiting)), ("Healthy", cx.t(M::HealthHealthy)),
            ]))
        }
    };
    let rows = html! {
        @if listing.items.is_empty() {
            @if params.get("q").is_empty() && params.get("health").is_empty() {
                (widgets::empty(cx.t(M::NoGroups), &html! { (cx.t(M::NoGroupsHint)) pre { "gantry import -f shop.yaml -n shop" } }))
            } @else {
                (widgets::empty(cx.t(M::NothingFound), &html! { (cx.t(M::NothingFoundHint)) }))
            }
        } @else {
            (table(cx, &listing.items, params, tenant))
        }
        (widgets::pager(cx, &listing, params))
    };
    let mut body = vec![Block::part("top", "", top)];
    if tenant.is_empty() && params.0.is_empty() && !cx.prefs.favourites.is_empty() {
        let rows: Vec<GroupRow> = {
            let state = cx.app.model.read();
            let mine = cx.prefs.favourites.iter();
            mine.filter(|key| cx.sight.groups.see(&key.0))
                .filter_map(|key| row(&state, key, cx.sight.releases.see(&key.0)))
                .collect()
        };
        if !rows.is_empty() {
            let html = html! { h2 { "★ " (cx.t(M::Favourites)) span.number { (rows.len()) } } (table(cx, &rows, params, "")) };
            body.push(Block::part("favourites", "card", html));
        }
    }
    if tenant.is_empty() && all.len() > 1 {
        let blocks = vec![
            Block::part("tenants", "card side", side(cx, &all)),
            Block::part("rows", "card", rows),
        ];
        body.push(Block::group("tree", "sided", blocks));
    } else {
        body.push(Block::part("rows", "card", rows));
    }
    let mut crumbs = Vec::new();
    if !tenant.is_empty() {
        crumbs.push((cx.t(M::Services).to_owned(), "/services".to_owned()));
    }
    if !app.is_empty() {
        crumbs.push((tenant.to_owned(), format!("/services/{tenant}")));
    }
    Ok(Page {
        title,
        nav: Nav::Services,
        crumbs,
        body,
        interest: Interest::Services,
    })
}

fn side(cx: &Cx, tenants: &[TenantRow]) -> Markup {
    html! {
        h2 { (cx.t(M::Tenants)) span.number { (tenants.len()) } }
        ul.tenants {
            @for t in tenants.iter().take(200) {
                li {
                    a href={ "/services/" (t.name) } { (t.name) }
                    @if t.troubled > 0 { (widgets::badge("bad", "▲", &t.troubled.to_string())) }
                    span.number title=(cx.t(M::Groups)) { (t.groups) }
                }
            }
        }
        @if tenants.len() > 200 { p.hint { (cx.f(M::AndMore, &[&(tenants.len() - 200)])) } }
    }
}

fn table(cx: &Cx, rows: &[GroupRow], params: &Params, tenant: &str) -> Markup {
    html! {
        div.scroll { table data-rows {
            thead { tr {
                (widgets::sorter(params, "name", cx.t(M::Group), ""))
                @if tenant.is_empty() { th { (cx.t(M::Tenant)) } }
                th { (cx.t(M::App)) }
                (widgets::sorter(params, "env", cx.t(M::Environment), ""))
                (widgets::sorter(params, "health", cx.t(M::State), ""))
                (widgets::sorter(params, "ready", cx.t(M::InService), "num"))
                (widgets::sorter(params, "revision", cx.t(M::Revision), ""))
                th { (cx.t(M::Image)) }
                (widgets::sorter(params, "changed", cx.t(M::Changed), "num"))
                th { (cx.t(M::By)) }
            } }
            tbody { @for row in rows { (line(cx, row, tenant)) } }
        } }
    }
}

fn line(cx: &Cx, row: &GroupRow, tenant: &str) -> Markup {
    let tone = if row.in_service < row.desired {
        "warn"
    } else {
        "good"
    };
    let words = cx.f(M::InServiceOf, &[&row.in_service, &row.desired]);
    html! {
        tr {
            th scope="row" { a href={ "/groups/" (row.tenant) "/" (row.name) } data-row { (row.name) } }
            @if tenant.is_empty() { td { a href={ "/services/" (row.tenant) } { (row.tenant) } } }
            td { a href={ "/services/" (row.tenant) "/" (row.app) } { (row.app) } }
            td { (row.environment) }
            td title=(widgets::local(cx, &row.message)) { (widgets::health(cx, row.health)) }
            td.num { (widgets::bar(i64::from(row.in_service), i64::from(row.desired), tone, &words)) span.n { (row.in_service) " / " (row.desired) } }
            td {
                @if let Some(n) = row.revision { span.mono { (n) } } @else { "—" }
                @if let (Some(target), Some(release)) = (row.target, &row.release) {
                    " → " a.mono href={ "/releases/" (row.tenant) "/" (release) } { (target) }
                }
            }
            td { (widgets::image(&row.image)) }
            td.num { (widgets::ago(cx, row.changed)) }
            td { (row.by) }
        }
    }
}
