//! Settings: language, theme, time zone; who one is; tokens for scripts; notification hooks.

use maud::{Markup, html};

use super::{Block, Nav, Page, widgets};
use crate::{
    act::token::{self, Issued},
    app::{Cx, LANGUAGES},
    error::Fail,
    messages::M,
    prefs::Theme,
};

/// Zones that are offered; any other can be typed.
const ZONES: [&str; 12] = [
    "UTC",
    "Asia/Shanghai",
    "Asia/Hong_Kong",
    "Asia/Singapore",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Europe/London",
    "Europe/Berlin",
    "America/New_York",
    "America/Chicago",
    "America/Los_Angeles",
    "Australia/Sydney",
];

/// The page; `issued` is what a request for a token came to.
///
/// # Errors
/// None; the signature is that of all pages.
pub async fn page(cx: &Cx, issued: Option<&Result<Issued, Fail>>) -> Result<Page, Fail> {
    let themes = [
        (Theme::Auto, M::ThemeAuto),
        (Theme::Light, M::ThemeLight),
        (Theme::Dark, M::ThemeDark),
    ];
    let form = html! {
        h1 { (cx.t(M::Settings)) }
        form.stack method="post" action="/prefs" {
            input type="hidden" name="next" value="/settings";
            fieldset {
                legend { (cx.t(M::Language)) }
                @for (lang, word) in LANGUAGES {
                    label.radio lang=(lang.code()) { input type="radio" name="lang" value=(lang.code()) checked[cx.prefs.lang == lang]; (word) }
                }
            }
            fieldset {
                legend { (cx.t(M::Theme)) }
                @for (theme, word) in themes {
                    label.radio { input type="radio" name="theme" value=(theme.code()) checked[cx.prefs.theme == theme]; (cx.t(word)) }
                }
            }
            label for="zone" { (cx.t(M::TimeZone)) }
            input #zone name="zone" list="zones" value=(cx.prefs.zone_name) autocomplete="off";
            datalist #zones { @for zone in ZONES { option value=(zone) {} } }
            p.hint { (cx.f(M::TimeZoneNow, &[&widgets::absolute(cx, cx.now)])) }
            button.primary type="submit" { (cx.t(M::Save)) }
        }
    };
    let groups = cx.session.user.groups.clone().unwrap_or_default();
    let who = html! {
        h2 { (cx.t(M::YouAre)) }
        dl.facts {
            (widgets::fact(cx.t(M::User), &html! { span.mono { (cx.session.name()) } }))
            (widgets::fact(cx.t(M::UserGroups), &html! { @for g in &groups { div.mono { (g) } } }))
        }
        p.hint { (cx.t(M::YouAreHint)) }
    };
    let hooks = html! {
        h2 { (cx.t(M::Hooks)) }
        p { (cx.t(M::HooksHint)) }
        div.actions { a.button href="/notifications" { (cx.t(M::Hooks)) } }
    };
    Ok(Page {
        title: cx.t(M::Settings).to_owned(),
        nav: Nav::Settings,
        body: vec![Block::group(
            "both",
            "two",
            vec![
                Block::part("settings", "card", form),
                Block::group(
                    "side",
                    "stacked",
                    vec![
                        Block::part("who", "card", who),
                        Block::part("tokens", "card", tokens(cx, issued).await),
                        Block::part("hooks", "card", hooks),
                    ],
                ),
            ],
        )],
        ..Page::default()
    })
}

async fn tokens(cx: &Cx, issued: Option<&Result<Issued, Fail>>) -> Markup {
    let own = token::account(cx.session.name());
    let own_may = match own {
        Some((namespace, name)) => cx.may(token::right(namespace, name)).await,
        None => false,
    };
    let any = own_may || cx.may(token::right("", "")).await;
    let filled = own.map(|(ns, name)| format!("{ns}/{name}"));
    html! {
        h2 { (cx.t(M::Tokens)) }
        p.hint { (cx.t(M::TokensHint)) }
        @match issued {
            Some(Ok(issued)) => {
                p role="status" { (widgets::badge("good", "●", cx.t(M::TokenIssued))) " " (cx.f(M::TokenUntil, &[&issued.account, &widgets::absolute(cx, issued.until)])) }
                textarea.token readonly rows="5" aria-label=(cx.t(M::Tokens)) { (issued.token) }
                p.hint { (cx.t(M::TokenOnce)) }
            },
            Some(Err(fail)) => p.said role="alert" { (fail.detail()) },
            None => {},
        }
        @if any || !matches!(cx.sight.groups, crate::access::Tenants::All) || own.is_some() {
            form.stack method="post" action="/settings/token" {
                (widgets::csrf(cx))
                label for="account" { (cx.t(M::TokenAccount)) }
                input #account name="account" required placeholder="shop/ci" value=(filled.unwrap_or_default()) autocomplete="off" spellcheck="false";
                label for="hours" { (cx.t(M::TokenHours)) }
                input #hours name="hours" type="number" min="1" max="2160" value="24";
                div.actions { button type="submit" { (cx.t(M::TokenIssue)) } }
            }
        } @else { p { (cx.t(M::TokenNone)) } }
    }
}
