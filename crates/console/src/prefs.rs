//! What a person has chosen: language, theme, time zone. Kept in a cookie, since it is no secret and is
//! wanted before anyone has logged in.

use std::collections::BTreeSet;

use http::{HeaderMap, header};
use jiff::tz::TimeZone;

/// Name of the cookie.
pub const COOKIE: &str = "__Host-gantry-prefs";

/// A language of the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese, simplified.
    Zh,
}

impl Lang {
    /// For the `lang` attribute.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }
}

/// Light or dark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Theme {
    /// As the system says.
    #[default]
    Auto,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// For the `data-theme` attribute.
    pub fn code(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// What a person has chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefs {
    /// Language.
    pub lang: Lang,
    /// Theme.
    pub theme: Theme,
    /// Time zone, by its IANA name.
    pub zone_name: String,
    /// The same.
    pub zone: TimeZone,
    /// Groups that are looked at often, by tenant and name.
    pub favourites: BTreeSet<(String, String)>,
}

impl Default for Prefs {
    fn default() -> Self {
        Self {
            lang: Lang::En,
            theme: Theme::Auto,
            zone_name: "UTC".to_owned(),
            zone: TimeZone::UTC,
            favourites: BTreeSet::new(),
        }
    }
}

impl Prefs {
    /// From the request: its cookie, else the browser's language.
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(kept) = cookie(headers, COOKIE) {
            let mut parts = kept.splitn(3, '.');
            let (lang, theme, zone) = (parts.next(), parts.next(), parts.next());
            return Self {
                favourites: favourites(headers),
                ..Self::new(lang.unwrap_or(""), theme.unwrap_or(""), zone.unwrap_or(""))
            };
        }
        let asked = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|v| v.to_str().ok());
        Self {
            lang: asked.map_or(Lang::En, preferred),
            favourites: favourites(headers),
            ..Self::default()
        }
    }

    /// From what a form or cookie says; what is unknown is the default.
    pub fn new(lang: &str, theme: &str, zone: &str) -> Self {
        let found = TimeZone::get(zone).ok();
        Self {
            lang: if lang.starts_with("zh") {
                Lang::Zh
            } else {
                Lang::En
            },
            theme: match theme {
                "light" => Theme::Light,
                "dark" => Theme::Dark,
                _ => Theme::Auto,
            },
            zone_name: if found.is_some() {
                zone.to_owned()
            } else {
                "UTC".to_owned()
            },
            zone: found.unwrap_or(TimeZone::UTC),
            favourites: BTreeSet::new(),
        }
    }

    /// The cookie that keeps them.
    pub fn set_cookie(&self) -> String {
        format!(
            "{COOKIE}={}.{}.{}; Path=/; Max-Age=31536000; Secure; HttpOnly; SameSite=Lax",
            self.lang.code(),
            self.theme.code(),
            self.zone_name
        )
    }
}

/// Name of the cookie with favourites. They are kept in the browser: a Group's page is no right, so the hub is
/// asked for none to keep them, nothing is left behind there, and they follow the person at this machine
/// whoever they log in as. What they name is checked by what one sees, each time.
pub const FAVOURITES: &str = "__Host-gantry-favourites";
/// What a cookie holds well.
const MOST: usize = 40;

fn favourites(headers: &HeaderMap) -> BTreeSet<(String, String)> {
    let kept = cookie(headers, FAVOURITES).unwrap_or_default();
    let names = kept.split('.').filter_map(|one| one.split_once('/'));
    names
        .filter(|(tenant, name)| plain(tenant) && plain(name))
        .map(|(tenant, name)| (tenant.to_owned(), name.to_owned()))
        .take(MOST)
        .collect()
}

/// Whether a name is one that Kubernetes takes for a namespace or Group.
fn plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 63 && name.chars().all(fits)
}

/// The cookie that keeps them, with one more or one less.
///
/// `None` for what is no name, or if there are too many.
pub fn with_favourite(
    now: &BTreeSet<(String, String)>,
    tenant: &str,
    name: &str,
    on: bool,
) -> Option<String> {
    let mut all = now.clone();
    let key = (tenant.to_owned(), name.to_owned());
    if on {
        all.insert(key);
    } else {
        all.remove(&key);
    }
    if !plain(tenant) || !plain(name) || all.len() > MOST {
        return None;
    }
    let all: Vec<String> = all.iter().map(|(t, n)| format!("{t}/{n}")).collect();
    Some(format!(
        "{FAVOURITES}={}; Path=/; Max-Age=31536000; Secure; HttpOnly; SameSite=Lax",
        all.join(".")
    ))
}

/// The first language of the list that the console has.
fn preferred(list: &str) -> Lang {
    for entry in list.split(',') {
        let tag = entry
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if tag.starts_with("zh") {
            return Lang::Zh;
        }
        if tag.starts_with("en") {
            return Lang::En;
        }
    }
    Lang::En
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_cookie_wins_over_the_browser_and_nonsense_over_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(Prefs::of(&headers).lang, Lang::En);
        headers.insert(
            header::ACCEPT_LANGUAGE,
            HeaderValue::from_static("fr, zh-CN;q=0.9, en;q=0.8"),
        );
        assert_eq!(Prefs::of(&headers).lang, Lang::Zh);
        let kept = Prefs::new("en", "dark", "Asia/Shanghai");
        let line = format!("a=b; {}", kept.set_cookie().split(';').next().unwrap());
        headers.insert(header::COOKIE, HeaderValue::from_str(&line).unwrap());
        let read = Prefs::of(&headers);
        assert_eq!(
            (read.lang, read.theme, read.zone_name.as_str()),
            (Lang::En, Theme::Dark, "Asia/Shanghai")
        );
        assert_eq!(Prefs::new("x", "y", "\r\nSet-Cookie: z"), Prefs::default());
    }

    #[test]
    fn favourites_are_names_and_not_too_many() {
        let none = BTreeSet::new();
        let line = with_favourite(&none, "shop", "cart-prod", true).unwrap();
        let mut headers = HeaderMap::new();
        let pair = line.split(';').next().unwrap();
        headers.insert(header::COOKIE, HeaderValue::from_str(pair).unwrap());
        let kept = Prefs::of(&headers).favourites;
        assert!(kept.contains(&("shop".to_owned(), "cart-prod".to_owned())));
        let gone = with_favourite(&kept, "shop", "cart-prod", false).unwrap();
        assert!(gone.starts_with("__Host-gantry-favourites=;"), "{gone}");
        for (tenant, name) in [("", "a"), ("a;b", "c"), ("a", "../x"), ("a", "B")] {
            assert_eq!(
                with_favourite(&none, tenant, name, true),
                None,
                "{tenant}/{name}"
            );
        }
        let many: BTreeSet<_> = (0..MOST)
            .map(|n| ("t".to_owned(), format!("g{n}")))
            .collect();
        assert_eq!(with_favourite(&many, "t", "more", true), None);
    }
}
