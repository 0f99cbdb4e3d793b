//! What is around every page: head, navigation, dialogs; and pages for who is not logged in.

use maud::{DOCTYPE, Markup, html};

use super::{Block, Nav, Page, widgets};
use crate::{
    app::{Cx, LANGUAGES},
    assets,
    error::Fail,
    live::Shown,
    messages::M,
    prefs::{Prefs, Theme},
};

/// One block.
pub fn block(block: &Block) -> Markup {
    match block {
        Block::Part { id, class, html } => {
            html! { section id=(id) class=(class) data-part { (html) } }
        }
        Block::Group {
            id,
            class,
            blocks: inner,
        } => html! { div id=(id) class=(class) { (blocks(inner)) } },
    }
}

/// Blocks after each other.
pub fn blocks(all: &[Block]) -> Markup {
    html! { @for one in all { (block(one)) } }
}

fn head(prefs: &Prefs, title: &str, live: bool) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content=(match prefs.theme { Theme::Auto => "light dark", Theme::Light => "light", Theme::Dark => "dark" });
            title { (title) " · Gantry" }
            link rel="icon" href=(assets::ICON.path) type="image/svg+xml";
            link rel="stylesheet" href=(assets::STYLE.path);
            @if live {
                script src=(assets::MORPH.path) defer {}
                script src=(assets::SCRIPT.path) defer {}
            }
        }
    }
}

fn logo() -> Markup {
    html! { img.logo src=(assets::ICON.path) alt="" width="20" height="20"; }
}

/// A page with all that is around it. `place` is its URL.
pub fn whole(cx: &Cx, page: &Page, place: &str) -> Markup {
    let mark = format!("{:016x}", Shown::of(page).mark);
    let told = cx.session.told.lock().take();
    let place_for_url: String = form_urlencoded::byte_serialize(place.as_bytes()).collect();
    let live = page.interest != super::Interest::Nothing;
    html! {
        (DOCTYPE)
        html lang=(cx.prefs.lang.code()) data-theme=(cx.prefs.theme.code()) {
            (head(&cx.prefs, &page.title, true))
            body data-csrf=(cx.session.csrf) {
                a.skip href="#main" { (cx.t(M::SkipToContent)) }
                header.top {
                    a.brand href="/" { (logo()) span { "Gantry" } }
                    nav.main aria-label=(cx.t(M::Navigation)) {
                        (link(cx, page.nav, Nav::Fleet, "/", M::Fleet))
                        (link(cx, page.nav, Nav::Services, "/services", M::Services))
                        (link(cx, page.nav, Nav::Releases, "/releases", M::Releases))
                        @if cx.sight.nodes { (link(cx, page.nav, Nav::Nodes, "/nodes", M::Nodes)) }
                        @if cx.sight.policies { (link(cx, page.nav, Nav::Policies, "/policies", M::Policies)) }
                        (link(cx, page.nav, Nav::Quotas, "/quotas", M::Quotas))
                        @if cx.sight.lines { (link(cx, page.nav, Nav::Lines, "/lines", M::Lines)) }
                        @if cx.app.records.is_some() { (link(cx, page.nav, Nav::Records, "/records", M::Records)) }
                    }
                    div.tools {
                        span #link.link role="status" data-lost=(cx.t(M::ConnectionLost)) data-back=(cx.t(M::ConnectionBack)) {
                            @if live { span.dot {} span.word { (cx.t(M::Live)) } }
                        }
                        button.palette-open type="button" data-palette hidden { (cx.t(M::GoTo)) kbd { "Ctrl K" } }
                        a.who href="/settings" aria-current=[(page.nav == Nav::Settings).then_some("page")] title=(cx.t(M::Settings)) { (cx.session.name()) }
                        form method="post" action="/logout" { (widgets::csrf(cx)) button.quiet type="submit" { (cx.t(M::LogOut)) } }
                    }
                }
                @if let Some(told) = told { div.told role="status" { (told) } }
                main #main tabindex="-1" {
                    @if !page.crumbs.is_empty() {
                        nav.crumbs aria-label=(cx.t(M::Path)) {
                            @for (index, (text, href)) in page.crumbs.iter().enumerate() {
                                @if index > 0 { span aria-hidden="true" { "/" } }
                                a href=(href) { (text) }
                            }
                        }
                    }
                    div #page data-live=[live.then(|| format!("/live?u={place_for_url}"))] data-mark=(mark) { (blocks(&page.body)) }
                }
                footer.bottom {
                    span { "Gantry " (env!("CARGO_PKG_VERSION")) }
                    span { (cx.t(M::KeysHint)) " " kbd { "?" } }
                    a href="/api/openapi.json" { "API" }
                }
                (dialogs(cx))
            }
        }
    }
}

fn link(cx: &Cx, now: Nav, nav: Nav, href: &str, word: M) -> Markup {
    html! { a href=(href) aria-current=[(now == nav).then_some("page")] { (cx.t(word)) } }
}

/// The palette and the list of keys; both need the script, which opens them.
fn dialogs(cx: &Cx) -> Markup {
    let keys = [
        ("Ctrl K", M::KeyPalette),
        ("/", M::KeySearch),
        ("j k", M::KeyMove),
        ("Enter", M::KeyOpen),
        ("x", M::KeyChoose),
        ("g f", M::KeyFleet),
        ("g s", M::KeyServices),
        ("g r", M::KeyReleases),
        ("g n", M::KeyNodes),
        ("g p", M::KeyPolicies),
        ("g q", M::KeyQuotas),
        ("g h", M::KeyRecords),
        ("?", M::KeyHelp),
        ("Esc", M::KeyClose),
    ];
    html! {
        dialog #palette aria-label=(cx.t(M::GoTo)) {
            input #palette-input type="text" role="combobox" aria-expanded="true" aria-controls="palette-list"
                autocomplete="off" spellcheck="false" placeholder=(cx.t(M::PaletteHint)) aria-label=(cx.t(M::PaletteHint));
            ul #palette-list role="listbox" data-empty=(cx.t(M::NothingFound)) {}
            template #palette-pages {
                @for (tenant, name) in &cx.prefs.favourites { a href={ "/groups/" (tenant) "/" (name) } data-kind=(cx.t(M::Favourites)) { (tenant) "/" (name) } }
                a href="/" data-kind=(cx.t(M::Page)) { (cx.t(M::Fleet)) }
                a href="/services" data-kind=(cx.t(M::Page)) { (cx.t(M::Services)) }
                a href="/releases" data-kind=(cx.t(M::Page)) { (cx.t(M::Releases)) }
                @if cx.sight.nodes { a href="/nodes" data-kind=(cx.t(M::Page)) { (cx.t(M::Nodes)) } }
                @if cx.sight.policies { a href="/policies" data-kind=(cx.t(M::Page)) { (cx.t(M::Policies)) } }
                a href="/quotas" data-kind=(cx.t(M::Page)) { (cx.t(M::Quotas)) }
                @if cx.sight.lines { a href="/lines" data-kind=(cx.t(M::Page)) { (cx.t(M::Lines)) } }
                @if cx.app.records.is_some() { a href="/records" data-kind=(cx.t(M::Page)) { (cx.t(M::Records)) } }
                a href="/create" data-kind=(cx.t(M::Page)) { (cx.t(M::Create)) }
                a href="/settings" data-kind=(cx.t(M::Page)) { (cx.t(M::Settings)) }
            }
        }
        dialog #keys aria-label=(cx.t(M::Keys)) {
            h2 { (cx.t(M::Keys)) }
            dl { @for (key, word) in keys { div { dt { kbd { (key) } } dd { (cx.t(word)) } } } }
            form method="dialog" { button type="submit" { (cx.t(M::Close)) } }
        }
    }
}

/// The page of an error.
pub fn error(cx: &Cx, fail: &Fail) -> Page {
    let (title, hint) = match fail {
        Fail::NotFound => (M::ErrorNotFound, M::ErrorNotFoundHint),
        Fail::Forbidden(_) => (M::ErrorForbidden, M::ErrorForbiddenHint),
        Fail::Conflict(_) => (M::ErrorConflict, M::ErrorConflictHint),
        Fail::Upstream(_) => (M::ErrorUpstream, M::ErrorUpstreamHint),
        Fail::TooMany => (M::LoginTooMany, M::ErrorBadHint),
        Fail::Bad(_) | Fail::Login => (M::ErrorBad, M::ErrorBadHint),
    };
    let detail = matches!(
        fail,
        Fail::Forbidden(_) | Fail::Bad(_) | Fail::Conflict(_) | Fail::Upstream(_)
    );
    let html = html! {
        h1 { (cx.t(title)) }
        @if detail { p.said { (fail.detail()) } }
        p { (cx.t(hint)) }
        p { a.button href="/" { (cx.t(M::Fleet)) } " " a.button href="/services" { (cx.t(M::Services)) } }
    };
    Page {
        title: cx.t(title).to_owned(),
        body: vec![Block::part("error", "card narrow", html)],
        ..Page::default()
    }
}

/// A page for who is not logged in.
pub fn bare(prefs: &Prefs, title: M, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(prefs.lang.code()) data-theme=(prefs.theme.code()) {
            (head(prefs, title.text(prefs.lang), false))
            body.bare {
                main #main {
                    div.card.narrow {
                        div.brand { (logo()) span { "Gantry" } }
                        h1 { (title.text(prefs.lang)) }
                        (content)
                    }
                    form.langs method="post" action="/prefs" {
                        input type="hidden" name="next" value="/login";
                        @for (lang, word) in LANGUAGES {
                            button.quiet type="submit" name="lang" value=(lang.code()) aria-pressed=(prefs.lang == lang) lang=(lang.code()) { (word) }
                        }
                    }
                }
            }
        }
    }
}
