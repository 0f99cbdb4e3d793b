//! Reading behaviours: durations, spans, rules of the ConfigMap, annotations of a pod.

use super::{
    Annotations, Shape as Spread, Span,
    rule::{Crash, Effects, Glob, Lapse, Prints, Ready, Rule},
};
use crate::{
    object::parse_quantity,
    usage::{Level, Profile, Series, Shape, Spikes},
    yaml::{self, Field, Mistakes},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Annotations of a pod that set its behaviour start so.
pub const ANNOTATION_PREFIX: &str = "hollow.gantry.dev/";

/// A rule, or an annotation, that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Refused {
    /// Where it stands: `rules.yaml: rule 3` or the annotation's name.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
}

/// One duration in Go's notation (`500ms`, `1.5s`, `1m30s`, `2h`) or a plain `0`.
///
/// # Errors
/// Says what is wrong when the text is no such duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 500ms, 2s or 1m30s");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                // Not Go's, but scenarios speak of days.
                "d" => 86_400.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    if text.trim().is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// One duration, or two with `..` between (evenly distributed), or `median 2s p99 20s` (log-normally), or
/// `mean 30d` (exponentially).
///
/// # Errors
/// When either is no duration or the first is longer than the second.
pub fn span(text: &str) -> Result<Span, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["median", median, "p99", p99] => {
            let (min, max) = (duration(median)?, duration(p99)?);
            if min.is_zero() || min >= max {
                return Err(format!(
                    "{text:?}: the median must be above 0 and below the 99th percentile"
                ));
            }
            return Ok(Span {
                min,
                max,
                shape: Spread::Skewed,
            });
        }
        ["mean", mean] => {
            return Ok(Span {
                min: Duration::ZERO,
                max: duration(mean)?,
                shape: Spread::Memoryless,
            });
        }
        _ => {}
    }
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (duration(min)?, duration(max)?),
        None => (duration(text)?, duration(text)?),
    };
    if min > max {
        return Err(format!("{text:?} runs backwards"));
    }
    Ok(Span::even(min, max))
}

fn ready(text: &str) -> Result<Ready, String> {
    if text.trim() == "never" {
        Ok(Ready::Never)
    } else {
        span(text).map(Ready::After)
    }
}

/// Reads files that a text names, by their names.
pub type Files<'f> = dyn Fn(&str) -> Result<String, String> + 'f;

/// Fields of a rule.
const FIELDS: [&str; 25] = [
    "image",
    "namespace",
    "pod",
    "container",
    "node",
    "revision",
    "labels",
    "pull",
    "pullError",
    "start",
    "startError",
    "ready",
    "unready",
    "message",
    "run",
    "exitCode",
    "crash",
    "oom",
    "hang",
    "stop",
    "logs",
    "cpu",
    "memory",
    "disk",
    "network",
];

/// Reads a rule; mistakes are told to the field.
pub(crate) fn rule(field: &Field<'_>, files: &Files<'_>) -> Rule {
    let map = field.map(&FIELDS);
    let glob = |name: &str| map.read(name, |it| Ok(Glob::new(it)));
    let text = |name: &str| map.read(name, |it| Ok(Arc::<str>::from(it)));
    let effects = Effects {
        pull: map.read("pull", span),
        pull_error: text("pullError"),
        start: map.read("start", span),
        start_error: text("startError"),
        ready: map.read("ready", ready),
        message: text("message"),
        run: map.read("run", span),
        exit_code: map.read("exitCode", exit_code),
        crash: map.get("crash").map(|it| crash(it, 1, None)),
        oom: map.get("oom").map(|it| crash(it, 137, Some("OOMKilled"))),
        unready: map.get("unready").and_then(lapse),
        hang: map.read("hang", span),
        stop: map.read("stop", span),
        logs: map.get("logs").and_then(prints),
        cpu: map.get("cpu").and_then(|it| profile(it, "cpu", files)),
        memory: map
            .get("memory")
            .and_then(|it| profile(it, "memory", files)),
        disk: map.get("disk").and_then(|it| profile(it, "disk", files)),
        network: map
            .get("network")
            .and_then(|it| profile(it, "network", files)),
    };
    let rule = Rule {
        image: glob("image"),
        namespace: glob("namespace"),
        pod: glob("pod"),
        container: glob("container"),
        node: glob("node"),
        revision: glob("revision"),
        labels: map
            .get("labels")
            .into_iter()
            .flat_map(Field::entries)
            .filter_map(|(key, value)| Some((key.to_owned(), Glob::new(value.word()?))))
            .collect(),
        effects,
    };
    let names = field.quiet_names();
    if !names.is_empty() && names.iter().all(|name| FIELDS[..7].contains(name)) {
        field.wrong(format!(
            "it changes nothing: give at least one of {}",
            FIELDS[7..].join(", ")
        ));
    }
    rule
}

fn exit_code(text: &str) -> Result<i32, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|code| (0..=255).contains(code))
        .ok_or_else(|| format!("{text:?} is no exit code: want 0 to 255"))
}

/// A share such as `0.25` or `25%`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|it| it / 100.0),
        None => text.trim().parse(),
    };
    number
        .ok()
        .filter(|it| (0.0..=1.0).contains(it))
        .ok_or_else(|| format!("{text:?} is not between 0 and 1: want a share such as 0.25 or 25%"))
}

/// A probability, in a million.
pub(crate) fn probability(text: &str) -> Result<u32, String> {
    share(text).map(per_million)
}

fn crash(field: &Field<'_>, code: i32, reason: Option<&'static str>) -> Crash {
    let known: &[&str] = match reason {
        None => &["after", "probability", "message", "exitCode", "reason"],
        Some(_) => &["after", "probability", "message"],
    };
    let map = field.map(known);
    let text = |name: &str| map.read(name, |it| Ok(Arc::<str>::from(it)));
    Crash {
        after: map.read("after", span).unwrap_or(Span::ZERO),
        exit_code: map.read("exitCode", exit_code).unwrap_or(code),
        per_million: map.read("probability", probability).unwrap_or(1_000_000),
        reason: reason.map(Into::into).or_else(|| text("reason")),
        message: text("message"),
    }
}

fn lapse(field: &Field<'_>) -> Option<Lapse> {
    let map = field.map(&["after", "for", "every"]);
    let lapse = Lapse {
        after: map
            .need(
                "after",
                "when the container goes out of service, after its start",
            )?
            .read(span)?,
        lasts: map
            .need("for", "how long it stays out of service")?
            .read(span)?,
        every: map.read("every", duration),
    };
    if lapse.every.is_some_and(|every| every <= lapse.lasts.max) {
        field.wrong("every must be longer than for, or it never comes back");
        return None;
    }
    Some(lapse)
}

fn prints(field: &Field<'_>) -> Option<Arc<Prints>> {
    let mut every = Duration::from_secs(10);
    let lines = if field.is_list() {
        field.list()
    } else {
        let map = field.map(&["lines", "every"]);
        if let Some(told) = map.get("every").and_then(|it| it.read(duration)) {
            if told < Duration::from_millis(100) {
                field.wrong("every is less than 100ms");
                return None;
            }
            every = told;
        }
        map.need("lines", "what is printed")?.list()
    };
    let lines: Box<[Box<str>]> = lines
        .iter()
        .filter_map(|it| Some(it.word()?.into()))
        .collect();
    if lines.is_empty() {
        field.wrong("there is no line in it");
        return None;
    }
    Some(Arc::new(Prints { lines, every }))
}

/// An amount of a resource, or a share of what is asked for: cores, or bytes.
#[expect(clippy::cast_precision_loss, reason = "amounts stay far below 2^53")]
fn level(text: &str, resource: &str) -> Result<Level, String> {
    if let Some(percent) = text.trim().strip_suffix('%') {
        return percent
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|it| it.is_finite() && *it >= 0.0)
            .map(|it| Level::Share(it / 100.0))
            .ok_or_else(|| format!("{text:?} is no percentage"));
    }
    let unit = if resource == "cpu" { 1000.0 } else { 1.0 };
    parse_quantity(resource, text)
        .filter(|it| *it >= 0)
        .map(|it| Level::Amount(it as f64 / unit))
        .ok_or_else(|| format!("{text:?} is no quantity such as 500m or 2Gi, and no share of the request such as 40%"))
}

/// Seconds of the day of `14:30`.
fn time_of_day(text: &str) -> Result<f64, String> {
    let read = || {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then(|| f64::from(hour * 3600 + minute * 60))
    };
    read().ok_or_else(|| format!("{text:?} is no time of day such as \"14:30\""))
}

fn profile(field: &Field<'_>, resource: &str, files: &Files<'_>) -> Option<Arc<Profile>> {
    let amount = |text: &str| level(text, resource);
    if !field.is_map() {
        return field.read(amount).map(|it| Arc::new(Profile::constant(it)));
    }
    let map = field.map(&["constant", "diurnal", "replay", "noise", "spikes"]);
    let shapes = ["constant", "diurnal", "replay"];
    if shapes.iter().filter(|it| map.get(it).is_some()).count() != 1 {
        field.wrong("want exactly one of constant, diurnal, replay");
        return None;
    }
    let shape = if let Some(it) = map.get("constant") {
        Shape::Constant(it.read(amount)?)
    } else if let Some(it) = map.get("diurnal") {
        let day = it.map(&["low", "high", "peak"]);
        Shape::Diurnal {
            low: day
                .need("low", "what is used at the quietest")?
                .read(amount)?,
            high: day
                .need("high", "what is used at the busiest")?
                .read(amount)?,
            peak: match day.get("peak") {
                Some(peak) => peak.read(time_of_day)?,
                None => 14.0 * 3600.0,
            },
        }
    } else {
        let it = map.get("replay")?;
        let recording = it.map(&["file", "column"]);
        let column = recording.read("column", |it| Ok(it.to_owned()));
        let column = column.as_deref().unwrap_or(resource);
        let read = |name: &str| {
            let text = files(name)?;
            Series::read(&text, column).map_err(|why| format!("{name}: {why}"))
        };
        let series = recording
            .need("file", "a CSV file, its first column the seconds")?
            .read(read)?;
        Shape::Replay(Arc::new(series))
    };
    let spikes = map.get("spikes").and_then(|it| {
        let spikes = it.map(&["every", "for", "height"]);
        let every = spikes
            .need("every", "how often one comes")?
            .read(duration)?;
        let lasts = spikes.need("for", "how long one lasts")?.read(duration)?;
        let height = spikes.need("height", "what it adds")?.read(amount)?;
        if lasts >= every || lasts.is_zero() {
            it.wrong("for must be shorter than every, and longer than nothing");
            return None;
        }
        Some(Spikes {
            every: every.as_secs_f64(),
            lasts: lasts.as_secs_f64(),
            height,
        })
    });
    Some(Arc::new(Profile {
        shape,
        noise: map.read("noise", share).unwrap_or(0.0),
        spikes,
    }))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the probability was checked to lie between 0 and 1"
)]
fn per_million(probability: f64) -> u32 {
    (probability * 1e6).round() as u32
}

fn no_files(name: &str) -> Result<String, String> {
    Err(format!(
        "{name} cannot be read from here: recordings are for scenario files"
    ))
}

/// The rules of a ConfigMap's data: every value is a YAML list of rules, keys in order.
/// What cannot be read is left out and reported; the rest holds.
#[must_use]
pub fn rules(data: &BTreeMap<String, String>) -> (Vec<Rule>, Vec<Refused>) {
    let (mut rules, mut refused) = (Vec::new(), Vec::new());
    for (key, text) in data {
        if text.trim().is_empty() {
            continue;
        }
        let yaml = match yaml::parse(text) {
            Ok(yaml) => yaml,
            Err(mistake) => {
                refused.push(Refused {
                    place: key.clone(),
                    reason: format!("not a YAML list of rules: {mistake}"),
                });
                continue;
            }
        };
        let whole = Mistakes::default();
        let list = Field::root(&yaml, &whole).list();
        for (index, field) in list.iter().enumerate() {
            let mistakes = Mistakes::default();
            let read = rule(&field.told_to(&mistakes), &no_files);
            let mistakes = mistakes.into_list();
            if mistakes.is_empty() {
                rules.push(read);
            }
            refused.extend(mistakes.into_iter().take(1).map(|mistake| Refused {
                place: format!("{key}: rule {}", index + 1),
                reason: mistake.to_string(),
            }));
        }
        refused.extend(whole.into_list().into_iter().map(|mistake| Refused {
            place: key.clone(),
            reason: format!("not a list of rules: {mistake}"),
        }));
    }
    (rules, refused)
}

/// What a pod's annotations ask for; `None` when they ask for nothing.
///
/// `pull`, `start`, `ready`, `run`, `stop` take a duration or a span (`ready` also `never`),
/// `exit-code` a number, `fail` one of `pull`, `start`, `ready`, `crash`, each with `: message`
/// after it if wanted.
#[must_use]
pub fn annotations(annotations: &Annotations) -> (Option<Arc<Effects>>, Vec<Refused>) {
    let (mut effects, mut refused) = (Effects::default(), Vec::new());
    for (name, text) in annotations.range(ANNOTATION_PREFIX.to_owned()..) {
        let Some(what) = name.strip_prefix(ANNOTATION_PREFIX) else {
            break;
        };
        let result = match what {
            "pull" => span(text).map(|it| effects.pull = Some(it)),
            "start" => span(text).map(|it| effects.start = Some(it)),
            "ready" => ready(text).map(|it| effects.ready = Some(it)),
            "run" => span(text).map(|it| effects.run = Some(it)),
            "stop" => span(text).map(|it| effects.stop = Some(it)),
            "exit-code" => text
                .trim()
                .parse()
                .map(|it| effects.exit_code = Some(it))
                .map_err(|_| format!("{text:?} is no exit code")),
            "fail" => fail(text, &mut effects),
            "cpu" | "memory" => level(text, what).map(|it| {
                let profile = Some(Arc::new(Profile::constant(it)));
                match what {
                    "cpu" => effects.cpu = profile,
                    _ => effects.memory = profile,
                }
            }),
            _ => Err(
                "there is no such behaviour; known: pull, start, ready, run, stop, exit-code, fail, cpu, memory"
                    .into(),
            ),
        };
        if let Err(reason) = result {
            refused.push(Refused {
                place: name.clone(),
                reason,
            });
        }
    }
    let any = effects != Effects::default();
    (any.then(|| Arc::new(effects)), refused)
}

fn fail(text: &str, effects: &mut Effects) -> Result<(), String> {
    let (what, message) = match text.split_once(':') {
        Some((what, message)) => (what.trim(), Some(Arc::<str>::from(message.trim()))),
        None => (text.trim(), None),
    };
    match what {
        "pull" => effects.pull_error = Some(message.unwrap_or_else(|| "manifest unknown".into())),
        "start" => {
            effects.start_error = Some(message.unwrap_or_else(|| "exec format error".into()))
        }
        "ready" => {
            effects.ready = Some(Ready::Never);
            effects.message = message;
        }
        "crash" => {
            effects.crash = Some(Crash {
                after: Span::millis(500, 2000),
                exit_code: 1,
                per_million: 1_000_000,
                reason: None,
                message,
            });
        }
        _ => return Err(format!("{what:?} is none of pull, start, ready, crash")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("500ms", 500)]
    #[case("2s", 2000)]
    #[case("1.5s", 1500)]
    #[case("1m30s", 90_000)]
    #[case("0", 0)]
    #[case(" 1h ", 3_600_000)]
    fn durations(#[case] text: &str, #[case] millis: u64) {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
    }

    #[rstest]
    #[case("")]
    #[case("5")]
    #[case("s")]
    #[case("2 parsecs")]
    #[case("-1s")]
    #[case("3s..1s")]
    #[case("1.2.3s")]
    fn no_spans(#[case] text: &str) {
        assert!(span(text).is_err(), "{text:?} must be refused");
    }

    #[test]
    fn a_bad_rule_is_refused_and_the_rest_holds() {
        let text = r#"
- image: "*:broken"
  ready: never
- image: "*"
  puII: 2s
- labels: {tier: front}
  pull: 4s..2s
- node: "sh-a-*"
  crash: {after: 5s, exitCode: 3, probability: 0.1}
- image: "x"
- ready: never
  crash: {probability: 2}
"#;
        let (rules, refused) = rules(&BTreeMap::from([(
            "rules.yaml".to_owned(),
            text.to_owned(),
        )]));
        assert_eq!(rules.len(), 2);
        assert_eq!(
            rules[1]
                .effects
                .crash
                .as_ref()
                .map(|crash| (crash.exit_code, crash.per_million)),
            Some((3, 100_000))
        );
        let places: Vec<_> = refused.iter().map(|it| it.place.as_str()).collect();
        assert_eq!(
            places,
            [
                "rules.yaml: rule 2",
                "rules.yaml: rule 3",
                "rules.yaml: rule 5",
                "rules.yaml: rule 6"
            ]
        );
        assert!(refused[0].reason.contains("puII"), "{}", refused[0]);
        assert!(
            refused[1].reason.contains("runs backwards"),
            "{}",
            refused[1]
        );
    }

    #[test]
    fn text_that_is_no_list_is_refused_whole() {
        let data = BTreeMap::from([
            ("a".to_owned(), "image: x".to_owned()),
            ("b".to_owned(), "- {image: x, ready: 1s}".to_owned()),
        ]);
        let (rules, refused) = rules(&data);
        assert_eq!((rules.len(), refused.len()), (1, 1));
        assert_eq!(refused[0].place, "a");
    }

    #[test]
    fn annotations_of_a_pod() {
        let given = Annotations::from(
            [
                ("a.example/x", "1"),
                ("hollow.gantry.dev/pull", "1s..2s"),
                ("hollow.gantry.dev/fail", "ready: db is away"),
                ("hollow.gantry.dev/exit-code", "many"),
                ("hollow.gantry.dev/runn", "1s"),
                ("z.example/x", "1"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let (effects, refused) = annotations(&given);
        let effects = effects.unwrap();
        assert_eq!(effects.pull, Some(Span::millis(1000, 2000)));
        assert_eq!(effects.ready, Some(Ready::Never));
        assert_eq!(effects.message.as_deref(), Some("db is away"));
        assert_eq!(refused.len(), 2);
        assert_eq!(annotations(&Annotations::new()), (None, vec![]));
    }
}
