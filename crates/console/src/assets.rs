//! Files of this binary: style, script, icon. Their names carry their hash, so that a browser keeps them
//! for ever and still never shows old ones.

use std::{io::Write, sync::LazyLock};

use aws_lc_rs::digest;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

/// A file as it is served.
pub struct Asset {
    /// Its path, with the hash.
    pub path: String,
    /// Its media type.
    pub kind: &'static str,
    /// Plain.
    pub plain: Bytes,
    /// Compressed.
    pub gzip: Bytes,
}

fn asset(name: &str, kind: &'static str, content: &'static [u8]) -> Asset {
    let hash = digest::digest(&digest::SHA256, content);
    let hash: String = hash.as_ref()[..6]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
    Asset {
        path: format!("/assets/{stem}.{hash}.{end}"),
        kind,
        plain: Bytes::from_static(content),
        gzip: gzip(content, Compression::best()),
    }
}

/// Compressed; where that fails, which it cannot in memory, nothing.
pub fn gzip(content: &[u8], level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 4), level);
    match encoder.write_all(content).and_then(|()| encoder.finish()) {
        Ok(bytes) => bytes.into(),
        Err(_) => Bytes::new(),
    }
}

/// The style sheet.
pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "console.css",
        "text/css; charset=utf-8",
        include_bytes!("../assets/console.css"),
    )
});
/// Our own script.
pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "console.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/console.js"),
    )
});
/// The terminal, for the page that has one.
pub static TERMINAL: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "terminal.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/terminal.js"),
    )
});
/// The library that changes a page in place (see `assets/idiomorph.LICENSE`).
pub static MORPH: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "idiomorph.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/idiomorph-0.8.0.min.js"),
    )
});
/// The icon.
pub static ICON: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "gantry.svg",
        "image/svg+xml",
        include_bytes!("../assets/gantry.svg"),
    )
});

/// The file of a path.
pub fn find(path: &str) -> Option<&'static Asset> {
    let all: [&'static Asset; 5] = [&STYLE, &SCRIPT, &MORPH, &ICON, &TERMINAL];
    all.into_iter().find(|a| a.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names_carry_hashes_and_scripts_need_no_eval() {
        assert!(find(&STYLE.path).is_some());
        assert!(find("/assets/console.css").is_none());
        for script in [&SCRIPT, &MORPH, &TERMINAL] {
            let text = std::str::from_utf8(&script.plain).unwrap();
            for word in ["eval(", "new Function", "document.write", "innerHTML ="] {
                assert!(!text.contains(word), "{} uses {word}", script.path);
            }
            assert!(script.plain.len() < 60 * 1024);
        }
        let style = std::str::from_utf8(&STYLE.plain).unwrap();
        assert!(
            !style.contains("@import") && !style.contains("http"),
            "a request to elsewhere"
        );
    }

    /// The colours of a theme, by name: those of the block that begins so.
    fn colours<'a>(style: &'a str, block: &str) -> HashMap<&'a str, [f64; 3]> {
        let rest = &style[style.find(block).unwrap() + block.len()..];
        let rest = &rest[..rest.find('}').unwrap()];
        let read = |one: &'a str| {
            let (name, value) = one.trim().strip_prefix("--")?.split_once(": #")?;
            let part = |n: usize| u8::from_str_radix(value.get(n..n + 2)?, 16).ok();
            let linear = |n: u8| {
                let c = f64::from(n) / 255.0;
                if c <= 0.040_45 {
                    c / 12.92
                } else {
                    ((c + 0.055) / 1.055).powf(2.4)
                }
            };
            Some((name, [part(0)?, part(2)?, part(4)?].map(linear)))
        };
        rest.split(';').filter_map(read).collect()
    }

    /// As WCAG 2.2 defines it.
    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let light = |c: [f64; 3]| 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] + 0.05;
        let (a, b) = (light(a), light(b));
        (a / b).max(b / a)
    }

    #[test]
    fn text_stands_out_from_what_is_behind_it_in_both_themes() {
        let style = std::str::from_utf8(&STYLE.plain).unwrap();
        let dark = colours(style, ":root[data-theme=\"dark\"] {");
        assert_eq!(dark, colours(style, ":root:not([data-theme=\"light\"]) {"));
        let behind = [
            ("text", &["bg", "card", "busy-bg", "dim-bg"][..]),
            ("soft", &["bg", "card", "busy-bg", "dim-bg"]),
            ("link", &["bg", "card", "busy-bg"]),
            ("on-accent", &["accent"]),
            ("good", &["good-bg", "card"]),
            ("warn", &["warn-bg", "card"]),
            ("bad", &["bad-bg", "card", "bg"]),
            ("busy", &["busy-bg", "card"]),
            ("hold", &["hold-bg", "card"]),
            ("card", &["good", "bad", "warn"]),
        ];
        for (theme, all) in [("light", colours(style, ":root {")), ("dark", dark)] {
            for (text, grounds) in behind {
                for ground in grounds {
                    let found = contrast(all[text], all[ground]);
                    assert!(found >= 4.5, "{theme}: {text} on {ground} is {found:.2}");
                }
            }
            // Shapes: the focus ring, states, lines of usage.
            for shape in ["accent", "good", "warn", "bad", "hold", "fill"] {
                let found = contrast(all[shape], all["card"]);
                assert!(found >= 3.0, "{theme}: {shape} is {found:.2}");
            }
        }
    }
}
