//! Reading a scenario: every field checked, every mistake with its place.

use super::{
    Scenario,
    event::Event,
    read_devices::devices,
    read_events::event,
    values::{bytes, count, extended, name, number, quantity, rate, speed},
};
use crate::{
    behaviour::{self, Files, Glob, Span, span},
    image::{Catalogue, Image, PullFailure, Registry},
    object::Taint,
    options::{Failures, NodeGroup, StaticPod},
    yaml::{self, Field, Mistake, Mistakes, unknown},
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
        "devices",
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
        devices: map.get("devices").map_or(vec![], |it| {
            if class.is_none() {
                it.wrong("devices need a class: it is how a node's own are found");
            }
            devices(it)
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
        "nodes: [{class: a, devices: [{driver: gpu.io, count: 8, attributes: {model: x}, capacity: {memory: 80Gi}, shared: true}]}]",
        "fine"
    )]
    #[case(
        "nodes: [{devices: [{driver: gpu.io}]}]",
        "1:19: nodes[0].devices: devices need a class: it is how a node's own are found"
    )]
    #[case(
        "nodes: [{class: a, devices: [{count: 2}]}]",
        "1:30: nodes[0].devices[0]: driver is missing: who offers them, such as gpu.example.com"
    )]
    #[case(
        "nodes: [{class: a, devices: [{driver: d.io, count: 129}]}]",
        "1:52: nodes[0].devices[0].count: 129 is not between 1 and 128"
    )]
    #[case(
        "nodes: [{class: a, devices: [{driver: d.io, capacity: {memory: lots}, attributes: {A b: 1}}]}]",
        "1:64: nodes[0].devices[0].capacity.memory: \"lots\" is no amount such as 8 | 1:83: nodes[0].devices[0].attributes: \"A b\" is no name of an attribute: want a letter, letters, digits and '_', after DOMAIN/ if it is not the driver's"
    )]
    #[case(
        "nodes: [{class: a, devices: [{driver: d.io}, {driver: d.io, count: 2}]}]",
        "1:46: nodes[0].devices[1]: the driver has other devices of that name: give these a name of their own"
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
        "1:14: behaviours[0]: it changes nothing: give at least one of pull, pullError, start, startError, ready, unready, message, run, exitCode, crash, oom, hang, stop, logs, cpu, memory, disk, network"
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
