//! What a scenario will do, in words.

use super::{
    Scenario,
    event::{Act, Event},
};
use crate::{
    behaviour::{Effects, Ready, Rule, Shape as Spread, Span},
    image::PullFailure,
    options::NodeGroup,
    usage::{Level, Profile, Shape},
};
use std::{fmt::Write as _, time::Duration};

/// The text that `gantry scenario check` prints.
#[must_use]
pub fn describe(it: &Scenario) -> String {
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    say(format!("Scenario {}", it.name));
    for line in it.about.lines() {
        say(format!("  {line}"));
    }
    let seed = it
        .seed
        .map_or("that of the command line".into(), |it| it.to_string());
    let speed = it.speed.map_or(String::new(), |it| {
        format!("; {it} simulated seconds in one of the clock's")
    });
    say(format!("Seed: {seed}{speed}"));
    let count: u32 = it.nodes.iter().map(|it| it.count).sum();
    say(match it.nodes.len() {
        0 => "Nodes: those of the command line".into(),
        1 => format!("Nodes: {count}, of one class"),
        classes => format!("Nodes: {count}, of {classes} classes"),
    });
    it.nodes
        .iter()
        .for_each(|it| say(format!("  {}", node(it))));
    let registry = &it.images.registry;
    if !it.images.images.is_empty() {
        let mut line = "Registry:".to_owned();
        let mut add = |what: String| {
            let _ = write!(
                line,
                "{}{what}",
                if line.ends_with(':') { " " } else { ", " }
            );
        };
        match registry.per_node {
            Some(rate) => add(format!("{}/s to a node", bytes(rate))),
            None => add("as fast as a node can take it".into()),
        }
        if let Some(rate) = registry.in_all {
            add(format!("{}/s in all", bytes(rate)));
        }
        if let Some(latency) = registry.latency {
            add(format!("first byte after {}", span(latency)));
        }
        if let Some(failure) = &registry.failure {
            add(pull_failure(failure));
        }
        say(line);
    }
    for image in &it.images.images {
        let size = |bytes_: u64| {
            bytes(f64::from(u32::try_from(bytes_ >> 10).unwrap_or(u32::MAX)) * 1024.0)
        };
        let layers: Vec<_> = image
            .layers
            .iter()
            .map(|(name, bytes)| format!("{name} ({})", size(*bytes)))
            .collect();
        let shared = match layers.is_empty() {
            true => String::new(),
            false => format!(", of them shared: {}", layers.join(", ")),
        };
        let failure = image
            .failure
            .as_ref()
            .map_or(String::new(), |it| format!("; {}", pull_failure(it)));
        say(format!(
            "  {}: {}{shared}{failure}",
            image.name,
            size(image.size)
        ));
    }
    say(match it.behaviours.len() {
        0 => "Behaviours: as usual".into(),
        count => {
            format!("Behaviours: {count}, the first that fits and says something about it holds")
        }
    });
    it.behaviours
        .iter()
        .for_each(|it| say(format!("  {}", rule(it))));
    say(match it.events.len() {
        0 => "Events: none".into(),
        count => format!("Events: {count}"),
    });
    it.events
        .iter()
        .for_each(|it| say(format!("  {}", event(it))));
    text
}

fn node(it: &NodeGroup) -> String {
    let name = match &it.prefix {
        Some(prefix) if it.cell.is_empty() => format!("ZONE-{prefix}-001"),
        Some(prefix) => format!("{prefix}-001"),
        None => "ZONE-001".into(),
    };
    let place = match (it.cell.as_str(), it.region.as_str()) {
        ("", _) => "over all zones".into(),
        (zone, "") => format!("in zone {zone}"),
        (zone, region) => format!("in zone {zone} of {region}"),
    };
    let mut text = format!(
        "{} {place}, {name} …: {} CPUs, {} memory, {} disk, {} pods",
        it.count, it.cpu, it.memory, it.disk, it.pods
    );
    let mut add = |what: String| {
        text.push_str(", ");
        text.push_str(&what);
    };
    if it.numa > 0 {
        add(format!("{} NUMA nodes each", it.numa));
    }
    if let Some(version) = &it.kubelet_version {
        add(format!("kubelet {version}"));
    }
    for (key, value) in &it.resources {
        add(format!("{value} {key}"));
    }
    for (key, value) in &it.labels {
        add(format!("label {key}={value}"));
    }
    for taint in &it.taints {
        let value = taint
            .value
            .as_ref()
            .map_or(String::new(), |it| format!("={it}"));
        add(format!("taint {}{value}:{}", taint.key, taint.effect));
    }
    for it in &it.devices {
        let shared = if it.shared { ", shared" } else { "" };
        add(format!("{} devices of {}{shared}", it.count, it.driver));
    }
    for pod in &it.static_pods {
        add(format!("static pod {}/{}", pod.namespace, pod.name));
    }
    if let Some(failures) = &it.failures {
        add(format!(
            "each fails after {} and is back after {}",
            span(failures.after),
            span(failures.repair)
        ));
    }
    text
}

fn pull_failure(it: &PullFailure) -> String {
    format!(
        "{} of pulls fail: {}",
        percent(f64::from(it.per_million) / 1e6),
        it.message
    )
}

fn rule(it: &Rule) -> String {
    let mut who = vec![];
    let parts = [
        ("image", &it.image),
        ("namespace", &it.namespace),
        ("pod", &it.pod),
        ("container", &it.container),
        ("node", &it.node),
        ("revision", &it.revision),
    ];
    for (word, glob) in parts {
        who.extend(glob.as_ref().map(|it| format!("{word} {it}")));
    }
    who.extend(
        it.labels
            .iter()
            .map(|(key, glob)| format!("label {key}={glob}")),
    );
    let who = match who.is_empty() {
        true => "all containers".into(),
        false => who.join(", "),
    };
    format!("{who}: {}", effects(&it.effects).join("; "))
}

fn effects(it: &Effects) -> Vec<String> {
    let mut all = vec![];
    let mut add = |what: Option<String>| all.extend(what);
    add(it.pull.map(|it| format!("pulled in {}", span(it))));
    add(it
        .pull_error
        .as_ref()
        .map(|it| format!("cannot be pulled: {it}")));
    add(it.start.map(|it| format!("starts in {}", span(it))));
    add(it
        .start_error
        .as_ref()
        .map(|it| format!("cannot be started: {it}")));
    add(it.ready.map(|it| match it {
        Ready::After(after) => format!("answers {} after its start", span(after)),
        Ready::Never => "never answers".into(),
    }));
    add(it
        .message
        .as_ref()
        .map(|it| format!("failing probes say {it:?}")));
    add(it.unready.map(|it| {
        let again = it.every.map_or(String::new(), |it| {
            format!(", and again every {}", time(it))
        });
        format!(
            "out of service {} after its start for {}{again}",
            span(it.after),
            span(it.lasts)
        )
    }));
    add(it
        .hang
        .map(|it| format!("stops answering {} after its start", span(it))));
    add(it
        .run
        .map(|it| format!("ends by itself after {}", span(it))));
    add(it.exit_code.map(|it| format!("ends with code {it}")));
    let chance = |per_million: u32| match per_million {
        1_000_000 => String::new(),
        per_million => format!(" in {} of runs", percent(f64::from(per_million) / 1e6)),
    };
    add(it.crash.as_ref().map(|it| {
        format!(
            "crashes{} with code {} after {}",
            chance(it.per_million),
            it.exit_code,
            span(it.after)
        )
    }));
    add(it.oom.as_ref().map(|it| {
        format!(
            "is killed for want of memory{} after {}",
            chance(it.per_million),
            span(it.after)
        )
    }));
    add(it.stop.map(|it| format!("takes {} to stop", span(it))));
    add(it.logs.as_ref().map(|it| {
        format!(
            "prints {} lines in turn, one every {}",
            it.lines.len(),
            time(it.every)
        )
    }));
    add(it
        .cpu
        .as_ref()
        .map(|it| format!("uses {}", profile(it, "CPU"))));
    add(it
        .memory
        .as_ref()
        .map(|it| format!("uses {}", profile(it, "memory"))));
    add(it
        .disk
        .as_ref()
        .map(|it| format!("uses {}", profile(it, "disk"))));
    add(it
        .network
        .as_ref()
        .map(|it| format!("uses {}", profile(it, "network"))));
    all
}

fn profile(it: &Profile, what: &str) -> String {
    let amount = |level: Level| match level {
        Level::Share(share) if what == "network" => format!("{} of 10 Mbit/s", percent(share)),
        Level::Share(share) => format!("{} of the {what} it asks for", percent(share)),
        Level::Amount(amount) if what == "network" => {
            format!("{} a second of network", bytes(amount))
        }
        Level::Amount(amount) if what == "CPU" => format!("{amount} CPUs"),
        Level::Amount(amount) => format!("{} of {what}", bytes(amount)),
    };
    let mut text = match &it.shape {
        Shape::Constant(level) => amount(*level),
        Shape::Diurnal { low, high, peak } => {
            let minutes = (peak / 60.0).round();
            format!(
                "{} by night and {} at {:02}:{:02} UTC",
                amount(*low),
                amount(*high),
                (minutes / 60.0).floor(),
                minutes % 60.0
            )
        }
        Shape::Replay(_) => format!("{what} as recorded"),
    };
    if it.noise > 0.0 {
        let _ = write!(text, ", give or take {}", percent(it.noise));
    }
    if let Some(spikes) = &it.spikes {
        let seconds = |it: f64| time(Duration::from_secs_f64(it));
        let (lasts, every) = (seconds(spikes.lasts), seconds(spikes.every));
        let _ = write!(
            text,
            ", and {} more for {lasts} every {every}",
            amount(spikes.height)
        );
    }
    text
}

fn event(it: &Event) -> String {
    let every = it.every.map_or(String::new(), |it| {
        format!(", and again every {}", time(it))
    });
    let lasts = it
        .lasts
        .map_or(" for good".into(), |it| format!(" for {}", time(it)));
    let what = match &it.act {
        Act::Kill(on) => format!("switched off{lasts}: {on}"),
        Act::Cut(on) => format!("without the API server{lasts}: {on}"),
        Act::Registry { slower, error } => match error {
            Some(error) => format!("the registry answers {error:?}{lasts}"),
            None => format!("the registry is {slower} times slower{lasts}"),
        },
        Act::Press { on, what, evict } => {
            format!(
                "short of {}{lasts}: {on}; pods that each evicts: {evict}",
                what.word()
            )
        }
        Act::Skew { on, by } => {
            let length = time(Duration::from_millis(by.unsigned_abs()));
            let side = if *by < 0 { "behind" } else { "ahead" };
            format!("clocks {length} {side}{lasts}: {on}")
        }
    };
    format!("{}{every}: {what}", time(it.at))
}

fn percent(share: f64) -> String {
    format!("{}%", (share * 10_000.0).round() / 100.0)
}

fn bytes(amount: f64) -> String {
    for (unit, size) in [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        let parts = amount / f64::from(size);
        if parts >= 1.0 {
            return format!("{}{unit}", (parts * 10.0).round() / 10.0);
        }
    }
    format!("{amount}")
}

fn span(it: Span) -> String {
    match it.shape {
        Spread::Even if it.min == it.max => time(it.min),
        Spread::Even => format!("{} to {}", time(it.min), time(it.max)),
        Spread::Skewed => format!(
            "{} (median; 99 of 100 within {})",
            time(it.min),
            time(it.max)
        ),
        Spread::Memoryless => format!("{} on average", time(it.max)),
    }
}

/// A duration as scenarios write it.
fn time(it: Duration) -> String {
    if it.is_zero() {
        return "0s".into();
    }
    let mut left = it.as_millis();
    let mut text = String::new();
    for (unit, length) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ] {
        if left >= length {
            let _ = write!(text, "{}{unit}", left / length);
            left %= length;
        }
    }
    text
}
