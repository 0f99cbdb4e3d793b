//! Reading behaviours: durations, spans, rules of the ConfigMap, annotations of a pod.

use super::{
    Annotations, Span,
    rule::{Crash, Effects, Glob, Ready, Rule},
};
use crate::object::parse_quantity;
use serde::{Deserialize, Deserializer, de::Error as _};
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
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    if text.trim().is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// One duration, or two with `..` between.
///
/// # Errors
/// When either is no duration or the first is longer than the second.
pub fn span(text: &str) -> Result<Span, String> {
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (duration(min)?, duration(max)?),
        None => (duration(text)?, duration(text)?),
    };
    if min > max {
        return Err(format!("{text:?} runs backwards"));
    }
    Ok(Span { min, max })
}

fn ready(text: &str) -> Result<Ready, String> {
    if text.trim() == "never" {
        Ok(Ready::Never)
    } else {
        span(text).map(Ready::After)
    }
}

/// A YAML scalar, as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            serde_json::Value::Bool(truth) => Ok(Self(truth.to_string())),
            other => Err(D::Error::custom(format!(
                "want a word or a number, found {other}"
            ))),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleText {
    image: Option<Scalar>,
    namespace: Option<Scalar>,
    pod: Option<Scalar>,
    container: Option<Scalar>,
    node: Option<Scalar>,
    #[serde(default)]
    labels: BTreeMap<String, Scalar>,
    pull: Option<Scalar>,
    pull_error: Option<String>,
    start: Option<Scalar>,
    start_error: Option<String>,
    ready: Option<Scalar>,
    message: Option<String>,
    run: Option<Scalar>,
    exit_code: Option<i32>,
    crash: Option<CrashText>,
    hang: Option<Scalar>,
    stop: Option<Scalar>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CrashText {
    after: Option<Scalar>,
    exit_code: Option<i32>,
    probability: Option<f64>,
    reason: Option<String>,
    message: Option<String>,
}

impl TryFrom<RuleText> for Rule {
    type Error = String;

    fn try_from(text: RuleText) -> Result<Self, String> {
        let glob = |field: Option<Scalar>| field.map(|pattern| Glob::new(&pattern.0));
        let time = |name: &str, field: Option<Scalar>| {
            field
                .map(|text| span(&text.0).map_err(|why| format!("{name}: {why}")))
                .transpose()
        };
        let effects = Effects {
            pull: time("pull", text.pull)?,
            pull_error: text.pull_error.map(Into::into),
            start: time("start", text.start)?,
            start_error: text.start_error.map(Into::into),
            ready: text
                .ready
                .map(|text| ready(&text.0).map_err(|why| format!("ready: {why}")))
                .transpose()?,
            message: text.message.map(Into::into),
            run: time("run", text.run)?,
            exit_code: text.exit_code,
            crash: text.crash.map(Crash::try_from).transpose()?,
            hang: time("hang", text.hang)?,
            stop: time("stop", text.stop)?,
        };
        if effects == Effects::default() {
            return Err("it changes nothing: give at least one of pull, pullError, start, startError, ready, run, crash, hang, stop".into());
        }
        Ok(Self {
            image: glob(text.image),
            namespace: glob(text.namespace),
            pod: glob(text.pod),
            container: glob(text.container),
            node: glob(text.node),
            labels: text
                .labels
                .into_iter()
                .map(|(key, value)| (key, Glob::new(&value.0)))
                .collect(),
            effects,
        })
    }
}

impl TryFrom<CrashText> for Crash {
    type Error = String;

    fn try_from(text: CrashText) -> Result<Self, String> {
        let probability = text.probability.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!(
                "crash.probability: {probability} is not between 0 and 1"
            ));
        }
        Ok(Self {
            after: match text.after {
                Some(after) => span(&after.0).map_err(|why| format!("crash.after: {why}"))?,
                None => Span::ZERO,
            },
            exit_code: text.exit_code.unwrap_or(1),
            per_million: per_million(probability),
            reason: text.reason.map(Into::into),
            message: text.message.map(Into::into),
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the probability was checked to lie between 0 and 1"
)]
fn per_million(probability: f64) -> u32 {
    (probability * 1e6).round() as u32
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
        let list: Vec<serde_json::Value> = match serde_saphyr::from_str(text) {
            Ok(list) => list,
            Err(error) => {
                let reason = error.to_string();
                let first = reason.lines().next().unwrap_or_default();
                refused.push(Refused {
                    place: key.clone(),
                    reason: format!("not a YAML list of rules: {first}"),
                });
                continue;
            }
        };
        for (index, value) in list.into_iter().enumerate() {
            let parsed = serde_json::from_value::<RuleText>(value)
                .map_err(|error| error.to_string())
                .and_then(Rule::try_from);
            match parsed {
                Ok(rule) => rules.push(rule),
                Err(reason) => refused.push(Refused {
                    place: format!("{key}: rule {}", index + 1),
                    reason,
                }),
            }
        }
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
            // Of what is used: see `kubelet::usage`.
            "cpu" | "memory" => match parse_quantity(what, text) {
                Some(_) => Ok(()),
                None => Err(format!("{text:?} is no quantity")),
            },
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
