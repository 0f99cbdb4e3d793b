//! What a person has chosen: language, theme, time zone. Kept in a cookie, since it is no secret and is
//! wanted before anyone has logged in.

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
}

impl Default for Prefs {
    fn default() -> Self {
        Self {
            lang: Lang::En,
            theme: Theme::Auto,
            zone_name: "UTC".to_owned(),
            zone: TimeZone::UTC,
        }
    }
}

impl Prefs {
    /// From the request: its cookie, else the browser's language.
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(kept) = cookie(headers, COOKIE) {
            let mut parts = kept.splitn(3, '.');
            let (lang, theme, zone) = (parts.next(), parts.next(), parts.next());
            return Self::new(lang.unwrap_or(""), theme.unwrap_or(""), zone.unwrap_or(""));
        }
        let asked = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|v| v.to_str().ok());
        Self {
            lang: asked.map_or(Lang::En, preferred),
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
}
