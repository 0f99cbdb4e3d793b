//! Settings: language, theme, time zone; who one is.

use maud::html;

use super::{Block, Nav, Page, widgets};
use crate::{
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

/// The page.
///
/// # Errors
/// None; the signature is that of all pages.
pub fn page(cx: &Cx) -> Result<Page, Fail> {
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
    Ok(Page {
        title: cx.t(M::Settings).to_owned(),
        nav: Nav::Settings,
        body: vec![
            Block::part("settings", "card narrow", form),
            Block::part("who", "card narrow", who),
        ],
        ..Page::default()
    })
}
