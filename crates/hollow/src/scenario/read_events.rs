//! Reading what happens in a scenario.

use super::{
    event::{Act, Event, Pressure, Target},
    values::{count, number},
};
use crate::{
    behaviour::{Glob, duration},
    options::NodeGroup,
    yaml::{Field, Map, unknown},
};
use std::{sync::Arc, time::Duration};

pub(super) const ACTS: [&str; 6] = ["kill", "cut", "pause", "registry", "pressure", "skew"];

pub(super) fn event(field: &Field<'_>, nodes: &[NodeGroup]) -> Option<Event> {
    let map = field.map(&[
        "at", "every", "for", "kill", "cut", "pause", "registry", "pressure", "skew",
    ]);
    let at = map
        .need(
            "at",
            "when it happens, after the start of the scenario, such as 10m",
        )
        .and_then(|it| it.read(duration));
    let (every, lasts) = (map.read("every", duration), map.read("for", duration));
    if every.is_some_and(|every| every < Duration::from_secs(1)) {
        field.wrong("every is less than a second");
    }
    if let (Some(every), Some(lasts)) = (every, lasts)
        && lasts >= every
    {
        field.wrong("for is not shorter than every: it would never end");
    }
    if every.is_some() && lasts.is_none() {
        field.wrong("with every it needs for: how long it lasts each time");
    }
    // An action without parameters may stand there with nothing after it.
    let named: Vec<&str> = field
        .entries()
        .iter()
        .map(|(key, _)| *key)
        .filter(|it| ACTS.contains(it))
        .collect();
    let [named] = named.as_slice() else {
        field.wrong(format!("want exactly one of {}", ACTS.join(", ")));
        return None;
    };
    let act = act(named, &map, lasts, nodes)?;
    Some(Event {
        at: at?,
        every,
        lasts,
        act,
    })
}

pub(super) fn act(
    named: &str,
    map: &Map<'_>,
    lasts: Option<Duration>,
    nodes: &[NodeGroup],
) -> Option<Act> {
    let field = map.get(named);
    if field.is_none() && matches!(named, "registry" | "pressure" | "skew") {
        map.wrong(format!("{named} is empty: say what happens"));
    }
    let on = |more: &[&str]| field.map(|it| target(it, more, nodes)).unwrap_or_default();
    let inside = |more: &[&str]| field.map(|it| it.map(&[&TARGET[..], more].concat()));
    Some(match named {
        "kill" => Act::Kill(on(&[])),
        "cut" => Act::Cut(on(&[])),
        "pause" => {
            if let Some(field) = field {
                field.map(&[]);
            }
            if lasts.is_none() {
                map.wrong("a pause needs for: how long the API server is away");
            }
            Act::Cut(Target::default())
        }
        "registry" => {
            let it = field?.map(&["slower", "error"]);
            let slower = it.read("slower", |text| {
                let slower = text.parse().ok().filter(|it| (0.001..=1e6).contains(it));
                slower.ok_or_else(|| format!("{text:?} is no factor such as 10"))
            });
            let error = it.read("error", |it| Ok(Arc::<str>::from(it)));
            if slower.is_none() && error.is_none() {
                it.wrong("give slower (a factor) or error (what it answers)");
            }
            Act::Registry {
                slower: slower.unwrap_or(1.0),
                error,
            }
        }
        "pressure" => {
            let it = inside(&["of", "evict"])?;
            let what = it.need("of", "memory, disk or pids").and_then(|it| {
                it.read(|text| {
                    let known = Pressure::ALL.map(Pressure::word);
                    let found = Pressure::ALL.into_iter().find(|it| it.word() == text);
                    found.ok_or_else(|| unknown("pressure", text, &known))
                })
            });
            Act::Press {
                on: target(field?, &["of", "evict"], nodes),
                what: what?,
                evict: it.read("evict", number).unwrap_or(1),
            }
        }
        _ => {
            let it = inside(&["by"])?;
            let by = it.need(
                "by",
                "how far clocks are ahead, such as 90s, or behind, such as -90s",
            );
            Act::Skew {
                on: target(field?, &["by"], nodes),
                by: by?.read(signed)?,
            }
        }
    })
}

/// Milliseconds of a duration that may be below zero.
pub(super) fn signed(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.trim().strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim().trim_start_matches('+')),
    };
    let millis =
        i64::try_from(duration(rest)?.as_millis()).map_err(|_| format!("{text:?} is too long"))?;
    Ok(sign * millis)
}

pub(super) const TARGET: [&str; 4] = ["node", "zone", "class", "count"];

pub(super) fn target(field: &Field<'_>, more: &[&str], nodes: &[NodeGroup]) -> Target {
    // Fields were told about by whoever knows all of them; here those of others are none of ours.
    let map = match more.is_empty() {
        true => field.map(&TARGET),
        false => field.quiet(),
    };
    let glob = |name: &str, known: &dyn Fn(&NodeGroup) -> Option<String>| {
        let field = map.get(name)?;
        let glob = Glob::new(field.word()?);
        let names: Vec<String> = nodes.iter().filter_map(known).collect();
        if !names.is_empty()
            && names.len() == nodes.len()
            && !names.iter().any(|it| glob.matches(it))
        {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            field.wrong(unknown(
                &format!("{name} among the scenario's nodes"),
                field.word()?,
                &names,
            ));
        }
        Some(glob)
    };
    Target {
        name: map.read("node", |it| Ok(Glob::new(it))),
        zone: glob("zone", &|it| {
            Some(it.cell.clone()).filter(|it| !it.is_empty())
        }),
        class: glob("class", &|it| it.class.clone()),
        count: map.read("count", count),
    }
}
