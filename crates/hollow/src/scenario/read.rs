//! Reading a scenario: every field checked, every mistake with its place.

use super::{
    Scenario,
    event::{Act, Event, Pressure, Target},
};
use crate::{
    behaviour::{self, Files, Glob, Span, duration, span},
    image::{Catalogue, Image, PullFailure, Registry},
    object::{Taint, parse_quantity},
    options::{Failures, NodeGroup, StaticPod},
    yaml::{self, Field, Map, Mistake, Mistakes, unknown},
};
use std::{sync::Arc, time::Duration};

/// Reads a scenario.
pub fn scenario(text: &str, files: &Files<'_>) -> Result<Scenario, Vec<Mistake>> {
    let yaml = yaml::parse(text).map_err(|mistake| vec![mistake])?;
    let mistakes = Mistakes::default();
    let root = Field::root(&yaml, &mistakes);
    let top = root.map(&[
        "name",
        "about",
        "seed",
        "speed",
        "nodes",
        "images",
        "behaviours",
        "events",
    ]);
    let items = |name: &str| top.get(name).map(Field::list).unwrap_or_default();
    let mut scenario = Scenario {
        name: top.read("name", name).unwrap_or_default(),
        about: top
            .read("about", |it| Ok(it.trim().to_owned()))
            .unwrap_or_default(),
        seed: top.read("seed", |it| {
            it.parse()
                .map_err(|_| format!("{it:?} is no whole number from 0 on"))
        }),
        speed: top.read("speed", speed),
        nodes: items("nodes").iter().map(node).collect(),
        images: Arc::new(top.get("images").map(images).unwrap_or_default()),
        behaviours: items("behaviours")
            .iter()
            .map(|it| behaviour::rule(it, files))
            .collect(),
        events: vec![],
    };
    classes(&items("nodes"), &scenario.nodes);
    let mut events: Vec<Event> = items("events")
        .iter()
        .filter_map(|it| event(it, &scenario.nodes))
        .collect();
    events.sort_by_key(|it| it.at);
    scenario.events = events;
    let mistakes = mistakes.into_list();
    if mistakes.is_empty() {
        Ok(scenario)
    } else {
        Err(mistakes)
    }
}

/// A name as objects of the API have.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = text.len() <= 60
        && text.chars().all(fits)
        && ends(text.chars().next())
        && ends(text.chars().last());
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no name: want at most 60 lower case letters, digits, '-' and '.', letters or digits at both ends"
        )),
    }
}

/// How many times as fast as the clock.
pub fn speed(text: &str) -> Result<f64, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|it| (0.01..=10_000.0).contains(it))
        .ok_or_else(|| {
            format!(
                "{text:?} is no speed: want simulated seconds in one of the clock's, 0.01 to 10000"
            )
        })
}

fn number(text: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("{text:?} is no whole number from 0 on"))
}

fn count(text: &str) -> Result<u32, String> {
    number(text).and_then(|it| match it {
        1..=100_000 => Ok(it),
        _ => Err(format!("{it} is not between 1 and 100000")),
    })
}

fn quantity(resource: &'static str) -> impl Fn(&str) -> Result<String, String> {
    move |text| match parse_quantity(resource, text) {
        Some(1..) => Ok(text.trim().to_owned()),
        _ => Err(format!(
            "{text:?} is no amount of {resource} above 0, such as 500m, 64 or 256Gi"
        )),
    }
}

fn extended(text: &str) -> Result<String, String> {
    match parse_quantity("extended", text) {
        Some(0..) => Ok(text.trim().to_owned()),
        _ => Err(format!("{text:?} is no amount such as 8")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_quantity("bytes", text)
        .and_then(|it| u64::try_from(it).ok())
        .ok_or_else(|| format!("{text:?} is no number of bytes such as 350Mi"))
}

#[expect(clippy::cast_precision_loss, reason = "bytes a second, far below 2^53")]
fn rate(text: &str) -> Result<f64, String> {
    match bytes(text)? {
        0 => Err("a registry that sends nothing: leave it out for one without a bound".into()),
        bytes => Ok(bytes as f64),
    }
}

fn node(field: &Field<'_>) -> NodeGroup {
    let map = field.map(&[
        "class",
        "count",
        "prefix",
        "zone",
        "region",
        "cpu",
        "memory",
        "disk",
        "pods",
        "numa",
        "resources",
        "labels",
        "taints",
        "kubeletVersion",
        "failures",
        "staticPods",
    ]);
    let usual = NodeGroup::default();
    let class = map.read("class", name);
    let zone = map.read("zone", name);
    let numa = map.read("numa", |it| {
        number(it).and_then(|it| match it {
            0..=64 => Ok(it),
            _ => Err(format!("{it} is not between 0 and 64")),
        })
    });
    NodeGroup {
        prefix: map.read("prefix", name).or_else(|| match (&zone, &class) {
            (Some(zone), Some(class)) => Some(format!("{zone}-{class}")),
            (zone, class) => class.clone().or_else(|| zone.clone()),
        }),
        // Whoever plays it knows in which zones, and in which region, if the file does not.
        cell: zone.unwrap_or_default(),
        region: map.read("region", name).unwrap_or_default(),
        count: map.read("count", count).unwrap_or(1),
        cpu: map.read("cpu", quantity("cpu")).unwrap_or(usual.cpu),
        memory: map
            .read("memory", quantity("memory"))
            .unwrap_or(usual.memory),
        disk: map.read("disk", quantity("disk")).unwrap_or(usual.disk),
        pods: map.read("pods", count).unwrap_or(usual.pods),
        resources: map
            .get("resources")
            .into_iter()
            .flat_map(Field::entries)
            .filter_map(|(key, value)| Some((key.to_owned(), value.read(extended)?)))
            .collect(),
        numa: numa.unwrap_or(0),
        kubelet_version: map.read("kubeletVersion", version),
        labels: map
            .get("labels")
            .into_iter()
            .flat_map(Field::entries)
            .filter_map(|(key, value)| Some((key.to_owned(), value.word()?.to_owned())))
            .collect(),
        taints: map
            .get("taints")
            .into_iter()
            .flat_map(Field::list)
            .filter_map(|it| taint(&it))
            .collect(),
        failures: map.get("failures").and_then(|it| {
            if class.is_none() {
                it.wrong("failures need a class: it is how a node's own are found");
            }
            failures(it)
        }),
        static_pods: map.get("staticPods").map_or(vec![], |it| {
            if class.is_none() {
                it.wrong("static pods need a class: it is how a node's own are found");
            }
            static_pods(it)
        }),
        class,
    }
}

fn static_pods(field: &Field<'_>) -> Vec<StaticPod> {
    let mut all: Vec<StaticPod> = vec![];
    for it in field.list() {
        let Some(pod) = static_pod(&it) else {
            continue;
        };
        let same =
            |other: &StaticPod| (&other.namespace, &other.name) == (&pod.namespace, &pod.name);
        if all.iter().any(same) {
            it.wrong("there is another static pod of that name");
        }
        all.push(pod);
    }
    all
}

fn static_pod(field: &Field<'_>) -> Option<StaticPod> {
    let map = field.map(&[
        "name",
        "namespace",
        "image",
        "cpu",
        "memory",
        "hostNetwork",
        "priorityClass",
        "labels",
    ]);
    let usual = StaticPod::default();
    let (pod, image) = (
        map.need("name", "what it is called")
            .and_then(|it| it.read(name)),
        map.need("image", "what it runs").and_then(Field::word),
    );
    let yes = |text: &str| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    };
    Some(StaticPod {
        namespace: map.read("namespace", name).unwrap_or(usual.namespace),
        cpu: map.read("cpu", quantity("cpu")),
        memory: map.read("memory", quantity("memory")),
        host_network: map.read("hostNetwork", yes).unwrap_or(usual.host_network),
        priority_class: map.read("priorityClass", name),
        labels: map
            .get("labels")
            .into_iter()
            .flat_map(Field::entries)
            .filter_map(|(key, value)| Some((key.to_owned(), value.word()?.to_owned())))
            .collect(),
        name: pod?,
        image: image?.to_owned(),
    })
}

fn version(text: &str) -> Result<String, String> {
    let bare = text.trim().trim_start_matches('v');
    let numbers = bare.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = numbers.split('.').collect();
    match numbers.len() == 3 && numbers.iter().all(|it| it.parse::<u32>().is_ok()) {
        true => Ok(format!("v{bare}")),
        false => Err(format!("{text:?} is no version such as v1.35.2")),
    }
}

fn taint(field: &Field<'_>) -> Option<Taint> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let map = field.map(&["key", "value", "effect"]);
    let effect = |it: &str| match EFFECTS.contains(&it) {
        true => Ok(it.to_owned()),
        false => Err(unknown("effect of a taint", it, &EFFECTS)),
    };
    let (key, effect) = (
        map.need("key", "the taint's key").and_then(Field::word),
        map.need("effect", "NoSchedule, PreferNoSchedule or NoExecute")
            .and_then(|it| it.read(effect)),
    );
    Some(Taint {
        key: key?.to_owned(),
        value: map.read("value", |it| Ok(it.to_owned())),
        effect: effect?,
        time_added: None,
    })
}

fn failures(field: &Field<'_>) -> Option<Failures> {
    let map = field.map(&["after", "repair"]);
    let after = map
        .need("after", "how long a machine lasts, such as \"mean 30d\"")?
        .read(span)?;
    if after.max < Duration::from_secs(1) {
        field.wrong("after is less than a second");
        return None;
    }
    Some(Failures {
        after,
        repair: map
            .read("repair", span)
            .unwrap_or(Span::millis(300_000, 1_800_000)),
    })
}

/// Names of classes are unique, and so are names of nodes.
fn classes(fields: &[Field<'_>], groups: &[NodeGroup]) {
    let prefix = |it: &NodeGroup| it.prefix.clone().unwrap_or_default();
    for (index, (field, group)) in fields.iter().zip(groups).enumerate() {
        let before = &groups[..index];
        if before.iter().any(|it| prefix(it) == prefix(group)) {
            field.wrong("its nodes would have the names of another's: give it a class, a zone or a prefix of its own");
        }
    }
}

fn failure(field: &Field<'_>) -> PullFailure {
    let map = field.map(&["probability", "message"]);
    PullFailure {
        per_million: map
            .need("probability", "the share of pulls that fail, such as 5%")
            .and_then(|it| it.read(behaviour::probability))
            .unwrap_or(0),
        message: map.read("message", |it| Ok(it.into())).unwrap_or_else(|| {
            "failed to copy: httpReadSeeker: failed open: unexpected status code 503 Service Unavailable".into()
        }),
    }
}

fn images(field: &Field<'_>) -> Catalogue {
    let map = field.map(&["registry", "list"]);
    let registry = map.get("registry").map(|it| {
        let map = it.map(&["latency", "perNode", "inAll", "failure"]);
        Registry {
            latency: map.read("latency", span),
            per_node: map.read("perNode", rate),
            in_all: map.read("inAll", rate),
            failure: map.get("failure").map(failure),
        }
    });
    let images = map.get("list").map(Field::list).unwrap_or_default();
    Catalogue {
        registry: registry.unwrap_or_default(),
        images: images.iter().filter_map(image).collect(),
    }
}

fn image(field: &Field<'_>) -> Option<Image> {
    let map = field.map(&["image", "size", "layers", "failure"]);
    let name = map
        .need("image", "a pattern for its name")
        .and_then(Field::word);
    let size = map
        .need("size", "its bytes, such as 350Mi")
        .and_then(|it| it.read(bytes));
    let layers: Vec<(Arc<str>, u64)> = map
        .get("layers")
        .map(Field::list)
        .unwrap_or_default()
        .iter()
        .filter_map(|layer| {
            let map = layer.map(&["name", "size"]);
            let name = map
                .need("name", "what others call it, too")
                .and_then(Field::word);
            let size = map
                .need("size", "its bytes, such as 80Mi")
                .and_then(|it| it.read(bytes));
            Some((name?.into(), size?))
        })
        .collect();
    let failure = map.get("failure").map(failure);
    let shared: u64 = layers.iter().map(|(_, size)| size).sum();
    let (name, size) = (name?, size?);
    if shared > size {
        field.wrong(format!(
            "its shared layers ({shared} bytes) are larger than the image ({size} bytes)"
        ));
    }
    Some(Image {
        name: Glob::new(name),
        size,
        layers,
        failure,
    })
}

const ACTS: [&str; 6] = ["kill", "cut", "pause", "registry", "pressure", "skew"];

fn event(field: &Field<'_>, nodes: &[NodeGroup]) -> Option<Event> {
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

fn act(named: &str, map: &Map<'_>, lasts: Option<Duration>, nodes: &[NodeGroup]) -> Option<Act> {
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
fn signed(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.trim().strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim().trim_start_matches('+')),
    };
    let millis =
        i64::try_from(duration(rest)?.as_millis()).map_err(|_| format!("{text:?} is too long"))?;
    Ok(sign * millis)
}

const TARGET: [&str; 4] = ["node", "zone", "class", "count"];

fn target(field: &Field<'_>, more: &[&str], nodes: &[NodeGroup]) -> Target {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn told(text: &str) -> String {
        let files = |name: &str| match name {
            "good.csv" => Ok("s,cpu\n0,1\n".to_owned()),
            name => Err(format!("{name}: no such file")),
        };
        match scenario(text, &files) {
            Ok(_) => "fine".into(),
            Err(all) => all
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" | "),
        }
    }

    /// What is wrong, where, and what to do about it.
    #[rstest]
    #[case("nodes: [{count: 3}]", "fine")]
    #[case("events: [{at: 1m, kill: }]", "fine")]
    #[case("behaviours: [{image: a, cpu: {replay: {file: good.csv}}}]", "fine")]
    #[case("node: []", "1:1: node: there is no such field; did you mean nodes?")]
    #[case(
        "nodes:\n  - count: many",
        "2:12: nodes[0].count: \"many\" is no whole number from 0 on"
    )]
    #[case(
        "nodes:\n  - cpu: lots",
        "2:10: nodes[0].cpu: \"lots\" is no amount of cpu above 0, such as 500m, 64 or 256Gi"
    )]
    #[case(
        "nodes: [{class: a}, {class: a}]",
        "1:21: nodes[1]: its nodes would have the names of another's: give it a class, a zone or a prefix of its own"
    )]
    #[case(
        "nodes: [{class: a, taints: [{key: k, effect: NoShedule}]}]",
        "1:46: nodes[0].taints[0].effect: there is no such effect of a taint; did you mean NoSchedule?"
    )]
    #[case(
        "nodes: [{class: a, staticPods: [{name: p}]}]",
        "1:33: nodes[0].staticPods[0]: image is missing: what it runs"
    )]
    #[case(
        "nodes: [{staticPods: [{name: p, image: i, hostNetwork: often}]}]",
        "1:22: nodes[0].staticPods: static pods need a class: it is how a node's own are found | 1:56: nodes[0].staticPods[0].hostNetwork: \"often\" is neither true nor false"
    )]
    #[case(
        "nodes: [{class: a, staticPods: [{name: p, image: i}, {name: p, image: j}]}]",
        "1:54: nodes[0].staticPods[1]: there is another static pod of that name"
    )]
    #[case(
        "nodes: [{kubeletVersion: 1.36}]",
        "1:26: nodes[0].kubeletVersion: \"1.36\" is no version such as v1.35.2"
    )]
    #[case(
        "speed: -1",
        "1:8: speed: \"-1\" is no speed: want simulated seconds in one of the clock's, 0.01 to 10000"
    )]
    #[case(
        "images: {list: [{image: a, size: 1Mi, layers: [{name: b, size: 2Mi}]}]}",
        "1:17: images.list[0]: its shared layers (2097152 bytes) are larger than the image (1048576 bytes)"
    )]
    #[case(
        "behaviours: [{image: a}]",
        "1:14: behaviours[0]: it changes nothing: give at least one of pull, pullError, start, startError, ready, unready, message, run, exitCode, crash, oom, hang, stop, logs, cpu, memory, disk"
    )]
    #[case(
        "behaviours: [{crash: {probability: 2}}]",
        "1:36: behaviours[0].crash.probability: \"2\" is not between 0 and 1: want a share such as 0.25 or 25%"
    )]
    #[case(
        "behaviours: [{start: 3s..1s}]",
        "1:22: behaviours[0].start: \"3s..1s\" runs backwards"
    )]
    #[case(
        "behaviours: [{cpu: {replay: {file: bad.csv}}}]",
        "1:36: behaviours[0].cpu.replay.file: bad.csv: no such file"
    )]
    #[case(
        "behaviours: [{cpu: {diurnal: {low: 1}}}]",
        "1:30: behaviours[0].cpu.diurnal: high is missing: what is used at the busiest"
    )]
    #[case(
        "events: [{at: 1m}]",
        "1:10: events[0]: want exactly one of kill, cut, pause, registry, pressure, skew"
    )]
    #[case(
        "events: [{kill: {}}]",
        "1:10: events[0]: at is missing: when it happens, after the start of the scenario, such as 10m"
    )]
    #[case(
        "events: [{at: 1m, pause: {}}]",
        "1:10: events[0]: a pause needs for: how long the API server is away"
    )]
    #[case(
        "events: [{at: 1m, every: 5m, cut: {}}]",
        "1:10: events[0]: with every it needs for: how long it lasts each time"
    )]
    #[case(
        "events: [{at: 1m, pressure: {of: ram}}]",
        "1:34: events[0].pressure.of: there is no such pressure; known: memory, disk, pids"
    )]
    #[case(
        "nodes: [{class: web}]\nevents: [{at: 1m, kill: {class: wep}}]",
        "2:33: events[0].kill.class: there is no such class among the scenario's nodes; did you mean web?"
    )]
    #[case(
        "events: [{at: 1m, skew: {by: much}}]",
        "1:30: events[0].skew.by: \"much\" is no duration such as 500ms, 2s or 1m30s"
    )]
    #[case("seed: 1\nseed: 2", "duplicate")]
    fn mistakes(#[case] text: &str, #[case] wanted: &str) {
        let told = told(text);
        match wanted {
            "duplicate" => assert!(told.starts_with("2:"), "{told}"),
            wanted => assert_eq!(told, wanted),
        }
    }

    #[test]
    fn all_mistakes_are_told_in_the_order_of_the_file() {
        let told =
            told("speed: x\nnodes:\n  - {count: 0}\nevents:\n  - {at: soon, kill: {cuont: 1}}\n");
        let places: Vec<&str> = told
            .split(" | ")
            .map(|it| it.split(": ").next().unwrap_or_default())
            .collect();
        assert_eq!(places, ["1:8", "3:13", "5:10", "5:23"], "{told}");
    }
}
