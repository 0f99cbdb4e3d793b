//! Whole simulations in virtual time: [`super::run`] as it is, on the runtime's paused clock, against a
//! cluster that is a map in memory. Nothing here waits for a disk, a socket or a thread, so time jumps
//! from one timer to the next and a day passes in a second or two.

mod cluster;

use crate::{
    Network, Options, Scenario,
    clock::{Clock, Millis},
    kubelet::testing,
};
use cluster::Cluster;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Midnight, UTC.
const MIDNIGHT: Millis = Millis(1_767_225_600_000);
const HOUR: Duration = Duration::from_secs(3600);

/// A simulation that is under way.
struct Play {
    cluster: Cluster,
    network: Network,
    clock: Clock,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), crate::Error>>,
}

impl Play {
    fn begin(scenario: &str, seed: u64, uids: &str) -> Self {
        let scenario = Scenario::parse(scenario, &|name| Err(format!("no {name} here")));
        Self::of(scenario.unwrap_or_else(|it| panic!("{it:?}")), seed, uids)
    }

    fn of(scenario: Scenario, seed: u64, uids: &str) -> Self {
        let cluster = Cluster::default();
        cluster.0.lock().uids = uids.to_owned();
        let network = Network::default();
        let mut options = Options {
            groups: scenario.groups(&[("east".into(), "a".into()), ("east".into(), "b".into())]),
            // Seldom: each renewal is work, and this is a test of many hours.
            lease_interval: Duration::from_secs(600),
            status_interval: Duration::from_secs(1800),
            network: Some(network.clone()),
            clock: Clock::runtime(MIDNIGHT),
            seed,
            ..Options::default()
        };
        let scenario = Arc::new(scenario);
        scenario.apply(&mut options);
        options.seed = seed;
        let clock = options.clock;
        let stop = CancellationToken::new();
        let running = tokio::spawn(super::run(cluster.client(), options, stop.clone()));
        Self {
            cluster,
            network,
            clock,
            stop,
            running,
        }
    }

    /// Lets virtual time pass until so long after midnight.
    async fn until(&self, hours: f64) {
        let at = MIDNIGHT.plus(HOUR.mul_f64(hours));
        tokio::time::sleep(at.since(self.clock.now())).await;
    }

    async fn end(self) -> Cluster {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.cluster
    }
}

const DAY: &str = r#"
nodes:
  - {class: small, count: 6, cpu: "8", memory: 32Gi}
images:
  registry: {perNode: 10Mi}
  list:
    - {image: "shop/*", size: 600Mi}
behaviours:
  - labels: {app: web}
    cpu: {diurnal: {low: 10%, high: 90%, peak: "14:00"}}
    memory: {constant: 50%}
  - labels: {app: hog}
    memory: 3Gi
  - labels: {app: flaky}
    crash: {after: mean 3h, exitCode: 3}
  - {labels: {app: leaky}, oom: {after: 5h}}
  - {labels: {app: shy}, unready: {after: 2h, for: 10m}}
events:
  - {at: 6h, cut: {zone: b}, for: 30m}
  - {at: 12h, kill: {node: a-small-001}, for: 1h}
  - {at: 15h, pressure: {of: memory, node: a-small-002, evict: 2}, for: 5m}
  - {at: 16h, skew: {node: a-small-003, by: -45s}}
"#;

fn day(play: &Play) {
    for node in ["a-small-001", "a-small-002", "b-small-001"] {
        let last = &node[node.len() - 1..];
        play.cluster
            .pod(&format!("web-{}{last}", &node[..1]), node, |_| {});
    }
    for (name, node) in [
        ("flaky-1", "a-small-003"),
        ("flaky-2", "a-small-003"),
        ("leaky-1", "b-small-002"),
    ] {
        play.cluster.pod(name, node, |_| {});
    }
    play.cluster.pod("shy-1", "b-small-003", |_| {});
    play.cluster.pod("hog-1", "a-small-002", |_| {});
    play.cluster.pod("hog-2", "a-small-002", |pod| {
        pod["spec"]["priority"] = 100.into()
    });
    play.cluster.pod("sys-1", "a-small-002", |pod| {
        pod["spec"]["priority"] = 2_000_000_000.into();
        pod["spec"]["containers"][0]["resources"] = json!({});
    });
}

#[tokio::test(start_paused = true)]
async fn a_day_passes_with_its_failures() {
    let play = Play::begin(DAY, 1, "x");
    play.until(0.01).await;
    day(&play);
    let pod = |name: &str| play.cluster.get("pods", "shop", name);
    let ready = |name: &str| {
        let pod = pod(name);
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .iter()
            .any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    // 600 MiB at 10 MiB a second.
    play.until(0.01 + 50.0 / 3600.0).await;
    assert_eq!(
        pod("web-a1")["status"]["phase"],
        "Pending",
        "its image is on its way"
    );
    play.until(0.1).await;
    assert_eq!(pod("web-a1")["status"]["phase"], "Running");

    let cores = |name: &str| testing::cores(&play.network, &pod(name), play.clock.now());
    play.until(2.0).await;
    assert!(
        (cores("web-a1") - 0.1).abs() < 0.01,
        "by night: {}",
        cores("web-a1")
    );
    assert!(ready("shy-1"));
    play.until(2.12).await;
    assert!(!ready("shy-1"), "out of service two hours after its start");
    play.until(2.3).await;
    assert!(ready("shy-1"), "and back after ten minutes");

    play.until(5.9).await;
    assert_eq!(
        pod("leaky-1")["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"],
        "OOMKilled"
    );

    play.until(12.5).await;
    assert_eq!(
        pod("web-a1")["status"]["phase"],
        "Running",
        "as it was last seen"
    );
    assert!(!testing::reached(&play.network, "a-small-001"));
    let address = pod("web-a1")["status"]["podIP"].clone();
    play.until(13.1).await;
    assert!(testing::reached(&play.network, "a-small-001"));
    let of = pod("web-a1")["status"].clone();
    let last = &of["containerStatuses"][0];
    assert_eq!(
        (
            &last["restartCount"],
            &last["lastState"]["terminated"]["exitCode"]
        ),
        (&json!(1), &json!(255))
    );
    assert_ne!(of["podIP"], address, "a new sandbox has a new address");
    let boot =
        |node: &str| play.cluster.get("nodes", "", node)["status"]["nodeInfo"]["bootID"].clone();
    assert_ne!(boot("a-small-001"), boot("a-small-002"));

    play.until(14.0).await;
    assert!(
        (cores("web-b1") - 0.9).abs() < 0.02,
        "at the peak: {}",
        cores("web-b1")
    );
    let before = testing::counter(&play.network, &pod("web-b1"), play.clock.now());
    play.until(14.5).await;
    let rate =
        (testing::counter(&play.network, &pod("web-b1"), play.clock.now()) - before) / 1800.0;
    assert!((rate - 0.9).abs() < 0.02, "the counter agrees: {rate}");

    play.until(15.05).await;
    let node = play.cluster.get("nodes", "", "a-small-002");
    let pressed = |node: &Value| {
        let all = node["status"]["conditions"].as_array().unwrap();
        all.iter()
            .any(|it| it["type"] == "MemoryPressure" && it["status"] == "True")
    };
    assert!(pressed(&node));
    play.until(15.5).await;
    assert!(
        !pressed(&play.cluster.get("nodes", "", "a-small-002")),
        "over, and five minutes more"
    );

    play.until(24.0).await;
    let cluster = play.end().await;
    let reason = |name: &str| cluster.get("pods", "shop", name)["status"]["reason"].clone();
    assert_eq!(
        (reason("hog-1"), reason("hog-2")),
        (json!("Evicted"), json!("Evicted"))
    );
    assert_eq!(
        (reason("web-a2"), reason("sys-1")),
        (Value::Null, Value::Null),
        "within its request; the system's own"
    );
    let evicted = cluster.get("pods", "shop", "hog-1")["status"].clone();
    let message = evicted["message"].as_str().unwrap();
    assert!(
        message.contains(
            "Container app was using 3Gi, request is 1Gi, has larger consumption of memory."
        ),
        "{message}"
    );
    let conditions = evicted["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|it| it["type"] == "DisruptionTarget" && it["reason"] == "TerminationByKubelet")
    );
    let restarts = |name: &str| {
        cluster.get("pods", "shop", name)["status"]["containerStatuses"][0]["restartCount"].as_u64()
    };
    assert!(restarts("flaky-1").unwrap() + restarts("flaky-2").unwrap() > 4);
    let state = cluster.0.lock();
    let gap = |node: &str| state.gaps[node];
    assert!(
        (1799.0..2450.0).contains(&gap("b-small-001")),
        "cut for half an hour: {}",
        gap("b-small-001")
    );
    assert!(
        (3599.0..4250.0).contains(&gap("a-small-001")),
        "off for an hour: {}",
        gap("a-small-001")
    );
    assert!(gap("a-small-002") < 650.0, "{}", gap("a-small-002"));
    drop(state);
}

const HUNGRY: &str = r#"
nodes:
  - {class: small, count: 1, zone: a, cpu: "8", memory: 4Gi, disk: 100Gi}
behaviours:
  - labels: {app: swell}
    memory: {diurnal: {low: 100Mi, high: 3Gi, peak: "12:00"}}
  - labels: {app: writer}
    disk: {constant: 95Gi}
  - labels: {app: spill}
    disk: 2Gi
"#;

/// Nothing is told to happen here: nodes look at what their pods use.
#[tokio::test(start_paused = true)]
async fn nodes_evict_by_what_is_used() {
    let play = Play::begin(HUNGRY, 1, "x");
    play.until(0.01).await;
    let node = "a-small-001";
    for name in ["swell-1", "swell-2"] {
        play.cluster.pod(name, node, |_| {});
    }
    play.cluster.pod("calm-1", node, |_| {});
    let status = |name: &str| play.cluster.get("pods", "shop", name)["status"].clone();
    let pressed = |what: &str| {
        let node = play.cluster.get("nodes", "", node);
        let all = node["status"]["conditions"].as_array().unwrap();
        all.iter()
            .any(|it| it["type"] == what && it["status"] == "True")
    };
    play.until(2.0).await;
    assert!(!pressed("MemoryPressure"));
    assert_eq!(status("swell-1")["phase"], "Running");
    play.until(12.0).await;
    let ended: Vec<&str> = ["swell-1", "swell-2", "calm-1"]
        .into_iter()
        .filter(|it| status(it)["reason"] == "Evicted")
        .collect();
    assert_eq!(
        ended.len(),
        1,
        "one of the two that grow is enough: {ended:?}"
    );
    assert!(ended[0].starts_with("swell"), "{ended:?}");
    let message = status(ended[0])["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with(
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: "
        ),
        "{message}"
    );
    assert!(
        message.contains("Container app was using ")
            && message.contains("request is 1Gi, has larger consumption of memory."),
        "{message}"
    );
    assert!(!pressed("MemoryPressure"), "long over");

    // The disk: more than a node can bear, and more than a container may.
    play.cluster.pod("writer-1", node, |_| {});
    play.cluster.pod("spill-1", node, |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "1Gi"}});
    });
    play.cluster.pod("spill-2", node, |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "3Gi"}});
    });
    play.until(12.05).await;
    assert!(pressed("DiskPressure"));
    assert_eq!(status("writer-1")["reason"], "Evicted");
    let message = status("spill-1")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(
        message,
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "
    );
    let conditions = status("spill-1")["conditions"].as_array().unwrap().clone();
    assert!(
        conditions.iter().all(|it| it["type"] != "DisruptionTarget"),
        "its own fault"
    );
    assert_eq!(status("spill-2")["phase"], "Running");
    play.until(12.3).await;
    assert!(!pressed("DiskPressure"), "over, and five minutes more");
    play.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_day() {
    let outcome = async |seed, uids| {
        let play = Play::begin(DAY, seed, uids);
        play.until(0.01).await;
        day(&play);
        play.until(9.0).await;
        play.end().await.outcome()
    };
    let first = outcome(1, "x").await;
    assert_eq!(first.len(), 10, "{first:#?}");
    // Virtual time goes on, so a second day begins later: times are left out of the comparison.
    let undated = |all: &[String]| -> Vec<String> {
        all.iter()
            .map(|it| it.rsplit_once(' ').unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(undated(&outcome(1, "other-uids").await), undated(&first));
    assert_ne!(undated(&outcome(2, "x").await), undated(&first));
}

/// What ships as an example is a scenario, is told in words, and can be played.
#[tokio::test(start_paused = true)]
async fn examples_play() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scenarios");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| it.extension().is_some_and(|it| it == "yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    for file in names {
        let scenario = Scenario::load(&file).unwrap_or_else(|refused| panic!("{refused}"));
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        insta::assert_snapshot!(
            format!("scenario {stem}"),
            crate::scenario::describe(&scenario)
        );
        let nodes: u32 = scenario.nodes.iter().map(|it| it.count).sum();
        let play = Play::of(scenario, 1, "x");
        tokio::time::sleep(HOUR).await;
        let cluster = play.end().await;
        assert_eq!(
            cluster.0.lock().list("nodes", "").len(),
            nodes as usize,
            "{stem}"
        );
    }
}
