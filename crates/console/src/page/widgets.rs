//! Small things that pages are made of. State is told by colour, by shape and by word, always.

use gantry_api::{gate::GateState, release::BatchState};
use jiff::{Timestamp, tz::TimeZone};
use maud::{Markup, html};

use crate::{
    app::Cx,
    messages::M,
    model::Health,
    view::{Listing, Params, order, run::Tile},
};

/// A state: shape, word, tone.
pub fn badge(tone: &str, shape: &str, word: &str) -> Markup {
    html! { span class={ "badge " (tone) } { span.shape aria-hidden="true" { (shape) } " " (word) } }
}

/// How a Group is.
pub fn health(cx: &Cx, health: Health) -> Markup {
    let (tone, shape, word) = match health {
        Health::Down => ("bad", "■", M::HealthDown),
        Health::Degraded => ("warn", "▲", M::HealthDegraded),
        Health::Halted => ("bad", "◆", M::HealthHalted),
        Health::Waiting => ("hold", "◇", M::HealthWaiting),
        Health::Releasing => ("busy", "◐", M::HealthReleasing),
        Health::Scaling => ("busy", "↕", M::HealthScaling),
        Health::Healthy => ("good", "●", M::HealthHealthy),
        Health::Idle => ("dim", "○", M::HealthIdle),
        Health::Unknown => ("dim", "?", M::HealthUnknown),
    };
    badge(tone, shape, cx.t(word))
}

/// Where a release stands.
pub fn phase(cx: &Cx, phase: &str, halted: bool, waits: bool) -> Markup {
    let (tone, shape, word) = match phase {
        _ if halted => ("bad", "◆", M::PhaseHalted),
        "Pending" => ("dim", "○", M::PhasePending),
        "Queued" => ("dim", "○", M::PhaseQueued),
        "Planning" => ("busy", "◐", M::PhasePlanning),
        "Bastion" => ("busy", "◐", M::PhaseBastion),
        "Batch" => ("busy", "◐", M::PhaseBatch),
        "Gate" if waits => ("hold", "◇", M::PhaseWaits),
        "Gate" => ("busy", "◇", M::PhaseGate),
        "Paused" => ("hold", "‖", M::PhasePaused),
        "RollingBack" => ("warn", "◀", M::PhaseRollingBack),
        "Succeeded" => ("good", "●", M::PhaseSucceeded),
        "RolledBack" => ("warn", "◀", M::PhaseRolledBack),
        "Aborted" => ("dim", "■", M::PhaseAborted),
        _ => ("bad", "■", M::PhaseFailed),
    };
    badge(tone, shape, cx.t(word))
}

/// Where a batch stands.
pub fn batch_state(cx: &Cx, state: BatchState) -> Markup {
    let (tone, shape, word) = match state {
        BatchState::Waiting => ("dim", "○", M::BatchWaiting),
        BatchState::Running => ("busy", "◐", M::BatchRunning),
        BatchState::Ready => ("hold", "◇", M::BatchReady),
        BatchState::Done => ("good", "●", M::BatchDone),
        BatchState::Failed => ("bad", "■", M::BatchFailed),
        BatchState::Skipped => ("warn", "▷", M::BatchSkipped),
    };
    badge(tone, shape, cx.t(word))
}

/// Where a gate stands.
pub fn gate_state(cx: &Cx, state: GateState) -> Markup {
    let (tone, shape, word) = match state {
        GateState::Running => ("busy", "◇", M::GateRunning),
        GateState::Passed => ("good", "●", M::GatePassed),
        GateState::Failed => ("bad", "■", M::GateFailed),
        GateState::Overridden => ("warn", "▷", M::GateOverridden),
    };
    badge(tone, shape, cx.t(word))
}

/// The word of a tile.
pub fn tile_word(cx: &Cx, tile: Tile) -> &'static str {
    cx.t(match tile {
        Tile::Failed => M::TileFailed,
        Tile::Draining => M::TileDraining,
        Tile::Updating => M::TileUpdating,
        Tile::Checking => M::TileChecking,
        Tile::Held => M::TileHeld,
        Tile::Waiting => M::TileWaiting,
        Tile::Unready => M::TileUnready,
        Tile::Missing => M::TileMissing,
        Tile::Done => M::TileDone,
        Tile::TakenBack => M::TileTakenBack,
        Tile::Untouched => M::TileUntouched,
    })
}

/// The name of a batch.
pub fn batch_name(cx: &Cx, index: i32) -> String {
    match index {
        0 => cx.t(M::Bastion).to_owned(),
        n => cx.f(M::BatchN, &[&n]),
    }
}

/// A length of time in few letters: `41s`, `3m`, `5h`, `2d`.
pub fn span(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m", s / 60),
        3600..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// A time in the user's zone.
pub fn absolute(cx: &Cx, at: Timestamp) -> String {
    let zoned = at.to_zoned(cx.prefs.zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// A text of the hub with its times in the user's zone: those written as `2026-11-27 08:00 UTC`, as
/// `08:00:00 UTC` (of the last or next hours) or as RFC 3339 in UTC. Other text is left as it is.
pub fn local(cx: &Cx, text: &str) -> String {
    in_zone(text, &cx.prefs.zone, cx.now)
}

fn in_zone(text: &str, zone: &TimeZone, now: Timestamp) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let found = c
            .is_ascii_digit()
            .then(|| leading_time(rest, now))
            .flatten();
        // A digit before it: the middle of a longer number.
        match found.filter(|_| !out.ends_with(|c: char| c.is_ascii_digit())) {
            Some((at, long, shape)) => {
                out.push_str(&at.to_zoned(zone.clone()).strftime(shape).to_string());
                rest = &rest[long..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// The time that a text begins with, how long that is, and how such a one is shown.
fn leading_time(text: &str, now: Timestamp) -> Option<(Timestamp, usize, &'static str)> {
    if let Some(clock) = text.get(..12).and_then(|t| t.strip_suffix(" UTC")) {
        let today = now.to_zoned(TimeZone::UTC).date();
        let of_day = |date: jiff::civil::Date| format!("{date}T{clock}Z").parse::<Timestamp>();
        // The one that is nearest to now.
        let days = [today.yesterday().ok(), Some(today), today.tomorrow().ok()];
        let near = days.into_iter().flatten().filter_map(|d| of_day(d).ok());
        let at = near.min_by_key(|at| at.duration_since(now).abs())?;
        return Some((at, 12, "%H:%M:%S"));
    }
    if let Some(minutes) = text.get(..20).and_then(|t| t.strip_suffix(" UTC")) {
        let at = format!("{}:00Z", minutes.replacen(' ', "T", 1));
        return Some((at.parse().ok()?, 20, "%Y-%m-%d %H:%M %Z"));
    }
    let long = text.find('Z').filter(|n| (19..=30).contains(n))? + 1;
    let at = text.get(..long)?;
    (at.as_bytes().get(10) == Some(&b'T')).then_some(())?;
    Some((at.parse().ok()?, long, "%Y-%m-%d %H:%M:%S %Z"))
}

/// A time of day in the user's zone.
pub fn clock(cx: &Cx, at: Timestamp) -> String {
    let zoned = at.to_zoned(cx.prefs.zone.clone());
    if zoned.date() == cx.now.to_zoned(cx.prefs.zone.clone()).date() {
        zoned.strftime("%H:%M:%S").to_string()
    } else {
        zoned.strftime("%m-%d %H:%M").to_string()
    }
}

/// How long ago; the browser keeps it current.
pub fn ago(cx: &Cx, at: Option<Timestamp>) -> Markup {
    let Some(at) = at else {
        return html! { span.none { "—" } };
    };
    html! {
        time datetime=(at.to_string()) title=(absolute(cx, at)) { (span(cx.now.duration_since(at).as_secs())) }
    }
}

/// Share of a whole as a bar, with what it is in words.
pub fn bar(part: i64, whole: i64, tone: &str, label: &str) -> Markup {
    let wide = if whole > 0 {
        (part.clamp(0, whole) * 1000 / whole) as f64 / 10.0
    } else {
        0.0
    };
    html! {
        svg.bar.(tone) role="img" aria-label=(label) viewBox="0 0 100 6" preserveAspectRatio="none" {
            rect.track width="100" height="6" {}
            rect.fill width=(wide) height="6" {}
        }
    }
}

/// What was used lately, as a line, with the last value in words. The line's top is what is requested, or
/// the most that was used where that is more.
pub fn spark(points: &[i64], requested: i64, words: fn(i64) -> String) -> Markup {
    let Some(last) = points.last() else {
        return html! {};
    };
    let most = points.iter().copied().max().unwrap_or(0);
    let top = most.max(requested).max(1);
    // One point is a level line.
    let level = [*last, *last];
    let drawn = if points.len() > 1 { points } else { &level };
    let wide = drawn.len() - 1;
    let line: Vec<String> = drawn
        .iter()
        .enumerate()
        .map(|(index, n)| {
            let x = index as f64 * 60.0 / wide as f64;
            let y = 15.0 - n.clamp(&0, &top).to_owned() as f64 * 14.0 / top as f64;
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let label = format!("{} (max {})", words(*last), words(most));
    html! {
        span.spark title=(label) {
            svg role="img" aria-label=(label) viewBox="0 0 60 16" width="60" height="16" { polyline points=(line.join(" ")) {} }
            span.num { (words(*last)) }
        }
    }
}

/// Thousandths of a core.
pub fn cores(milli: i64) -> String {
    if milli % 1000 == 0 || milli >= 100_000 {
        format!("{}", milli / 1000)
    } else if milli >= 1000 {
        format!("{:.1}", milli as f64 / 1000.0)
    } else {
        format!("{milli}m")
    }
}

/// Bytes.
pub fn bytes(n: i64) -> String {
    let units = ["B", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value >= 100.0 || value.fract() < 0.05 {
        format!("{value:.0}{}", units[unit])
    } else {
        format!("{value:.1}{}", units[unit])
    }
}

/// The last part of an image's name: what people look at.
pub fn image(image: &str) -> Markup {
    let plain = image.split('@').next().unwrap_or(image);
    let short = plain.rsplit('/').next().unwrap_or(plain);
    html! { span.mono title=(image) { (short) } }
}

/// A column's head that sorts by it.
pub fn sorter(params: &Params, column: &str, word: &str, class: &str) -> Markup {
    let (by, down) = order(params);
    let here = by == column;
    let next = if here && !down {
        format!("-{column}")
    } else {
        column.to_owned()
    };
    let sort = if !here {
        "none"
    } else if down {
        "descending"
    } else {
        "ascending"
    };
    html! {
        th class=(class) aria-sort=(sort) {
            a href={ (if params.with("sort", &next).is_empty() { "?" } else { "" }) (params.with("sort", &next)) } {
                (word)
                @if here { span.arrow aria-hidden="true" { (if down { " ↓" } else { " ↑" }) } }
            }
        }
    }
}

/// Which page of how many, with ways to the others.
pub fn pager<T>(cx: &Cx, listing: &Listing<T>, params: &Params) -> Markup {
    let (page, pages) = (listing.page, listing.pages());
    let first = if listing.total == 0 {
        0
    } else {
        (page - 1) * listing.per_page + 1
    };
    let last = first
        + listing
            .items
            .len()
            .saturating_sub(usize::from(!listing.items.is_empty()));
    html! {
        div.pager {
            span { (cx.f(M::RowsOf, &[&first, &last, &listing.total])) }
            @if pages > 1 {
                nav aria-label=(cx.t(M::Pages)) {
                    @if page > 1 { a.button rel="prev" href=(params.with("page", &(page - 1).to_string())) { "← " (cx.t(M::Previous)) } }
                    span { (page) " / " (pages) }
                    @if page < pages { a.button rel="next" href=(params.with("page", &(page + 1).to_string())) { (cx.t(M::Next)) " →" } }
                }
            }
        }
    }
}

/// A pane that the script fills with the log at a URL.
pub fn logs(cx: &Cx, url: &str, choices: &Markup) -> Markup {
    html! {
        div.title { h2 { (cx.t(M::Logs)) }
            div.actions {
                (choices)
                label.sr for="log-filter" { (cx.t(M::Search)) }
                input #log-filter type="search" placeholder=(cx.t(M::Search)) data-log-filter autocomplete="off";
                label.radio { input type="checkbox" data-log-follow checked; (cx.t(M::Follow)) }
                a.button href={ (url) "&follow=0" } { (cx.t(M::Download)) }
            } }
        p.said data-log-lost hidden role="status" { (cx.t(M::LogLost)) }
        pre.logs data-logs=(url) tabindex="0" aria-label=(cx.t(M::Logs)) {}
        noscript { p.hint { a href={ (url) "&follow=0" } { (cx.t(M::Logs)) } } }
    }
}

/// A form's token.
pub fn csrf(cx: &Cx) -> Markup {
    html! { input type="hidden" name="csrf" value=(cx.session.csrf); }
}

/// A field into which a name has to be typed before something dangerous is done to what has it.
pub fn typed(cx: &Cx, name: &str) -> Markup {
    html! {
        label for="typed" { (cx.f(M::TypeName, &[&name])) }
        input #typed name="confirm" required autocomplete="off" spellcheck="false" placeholder=(name);
    }
}

/// Where there is nothing: what to do about it.
pub fn empty(title: &str, hint: &Markup) -> Markup {
    html! { div.empty { strong { (title) } p { (hint) } } }
}

/// A search field that keeps the other parameters.
pub fn search(cx: &Cx, params: &Params, keep: &[&str]) -> Markup {
    html! {
        form.search role="search" method="get" {
            label.sr for="q" { (cx.t(M::Search)) }
            input #q type="search" name="q" value=(params.get("q")) placeholder=(cx.t(M::Search)) autocomplete="off" data-search;
            @for name in keep {
                @if !params.get(name).is_empty() { input type="hidden" name=(name) value=(params.get(name)); }
            }
        }
    }
}

/// Choices of one parameter as links.
pub fn choices(params: &Params, name: &str, options: &[(&str, &str)]) -> Markup {
    let now = params.get(name);
    html! {
        nav.choices {
            @for (value, word) in options {
                a href={ (if params.with(name, value).is_empty() { "?" } else { "" }) (params.with(name, value)) }
                    aria-current=[(now == *value).then_some("true")] { (word) }
            }
        }
    }
}

/// A name and what it says, in a list of such.
pub fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_texts_are_the_users() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        for (text, want) in [
            (
                "frozen until 2026-11-27 18:30 UTC by bob",
                "frozen until 2026-11-28 02:30 CST by bob",
            ),
            (
                "since 2026-11-27T18:30:05Z.",
                "since 2026-11-28 02:30:05 CST.",
            ),
            (
                "at 2026-11-27T18:30:05.123456Z",
                "at 2026-11-28 02:30:05 CST",
            ),
            (
                "cart:2026-11-27-18 is no time, nor is 12026-11-27 18:30 UTC",
                "cart:2026-11-27-18 is no time, nor is 12026-11-27 18:30 UTC",
            ),
            ("2026-13-27 18:30 UTC", "2026-13-27 18:30 UTC"),
            ("发布于 2026-11-27 00:00 UTC", "发布于 2026-11-27 08:00 CST"),
            (
                "waits until 23:59:59 UTC (since 9:00:00 UTC)",
                "waits until 07:59:59 (since 9:00:00 UTC)",
            ),
            ("07:51:01", "07:51:01"),
        ] {
            let now = "2026-11-27T08:00:00Z".parse().unwrap();
            assert_eq!(in_zone(text, &zone, now), want);
        }
    }

    #[test]
    fn a_line_of_usage_stays_in_its_box() {
        let html = spark(&[0, 500, 2000], 1000, cores).into_string();
        assert!(html.contains("0.0,15.0 30.0,11.5 60.0,1.0"), "{html}");
        assert!(html.contains("2 (max 2)"), "{html}");
        assert_eq!(spark(&[], 1000, cores).into_string(), "");
        assert!(
            spark(&[100], 1000, cores)
                .into_string()
                .contains("0.0,13.6 60.0,13.6")
        );
    }

    #[test]
    fn amounts_in_few_letters() {
        assert_eq!(
            ["250m", "2", "1.5", "240"].map(str::to_owned),
            [250, 2000, 1500, 240_000].map(cores)
        );
        assert_eq!(
            ["0B", "512Mi", "1.5Gi", "900Gi"].map(str::to_owned),
            [0, 512 << 20, 3 << 29, 900 << 30].map(bytes)
        );
        assert_eq!(
            ["0s", "59s", "1m", "47h", "2d"].map(str::to_owned),
            [-5, 59, 60, 169_300, 172_800].map(span)
        );
    }
}
