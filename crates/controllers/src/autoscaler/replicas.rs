//! How many replicas one metric asks for: the ratio of what is to what should be, with the rules
//! about pods that are not ready or have no metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Timing;
use crate::model::Pod;
use crate::model::pod::{Phase, Request};

/// What was measured of one pod, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub value: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

pub type Samples = BTreeMap<Arc<str>, Sample>;

/// How far the ratio may be from one without consequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What a metric proposes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    pub replicas: i32,
    /// Percent of what is requested.
    pub utilization: Option<i32>,
    /// Thousandths: the average of pods, or the metric itself.
    pub value: i64,
}

/// The pods of a target, and the rules by which they count.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub current: i32,
    pub pods: &'a [Arc<Pod>],
    pub tolerance: Tolerance,
    pub timing: &'a Timing,
    pub now: Timestamp,
}

#[derive(Debug, Default, PartialEq)]
struct Groups {
    ready: usize,
    unready: BTreeSet<Arc<str>>,
    missing: BTreeSet<Arc<str>>,
    ignored: BTreeSet<Arc<str>>,
}

fn later(at: Timestamp, by: std::time::Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Whether the CPU sample of a pod tells nothing: it has not been ready, or not for long enough.
fn premature(pod: &Pod, sample: &Sample, world: &World<'_>) -> bool {
    let (Some(started), true) = (pod.started, pod.has_ready) else {
        return true;
    };
    let turned = pod.ready_since.unwrap_or(Timestamp::MIN);
    if later(started, world.timing.cpu_initialization) > world.now {
        let full_window = turned.checked_add(sample.window).unwrap_or(Timestamp::MAX);
        pod.unready || sample.at < full_window
    } else {
        pod.unready && later(started, world.timing.initial_readiness_delay) > turned
    }
}

fn group(world: &World<'_>, samples: &Samples, cpu: bool) -> Groups {
    let mut groups = Groups::default();
    for pod in world.pods {
        let name = pod.meta.name.clone();
        if pod.terminating() || pod.phase == Phase::Failed {
            groups.ignored.insert(name);
            continue;
        }
        if pod.phase == Phase::Pending {
            groups.unready.insert(name);
            continue;
        }
        let Some(sample) = samples.get(&name) else {
            groups.missing.insert(name);
            continue;
        };
        if cpu && premature(pod, sample, world) {
            groups.unready.insert(name);
            continue;
        }
        groups.ready += 1;
    }
    groups
}

fn ceil(value: f64) -> i32 {
    // `as` saturates, which is what is wanted of more pods than there are numbers.
    value.ceil() as i32
}

/// The requests that usage is a share of.
pub type Requests = BTreeMap<Arc<str>, i64>;

/// What each pod (or the container of that name) requests of a resource.
///
/// # Errors
/// In Kubernetes' words, when one does not say.
pub fn requests(pods: &[Arc<Pod>], resource: &str, container: &str) -> Result<Requests, String> {
    let of = |request: &Request| match resource {
        "cpu" => request.cpu,
        "memory" => request.memory,
        _ => None,
    };
    let mut requests = Requests::new();
    for pod in pods {
        if let Some(whole) = &pod.whole
            && container.is_empty()
        {
            let Some(asked) = of(whole) else {
                return Err(format!(
                    "missing pod-level request for {resource} in Pod {}",
                    pod.meta.name
                ));
            };
            requests.insert(pod.meta.name.clone(), asked);
            continue;
        }
        let mut sum = 0_i64;
        let mut found = container.is_empty();
        for (name, request) in &pod.requests {
            if !container.is_empty() && **name != *container {
                continue;
            }
            found = true;
            let Some(asked) = of(request) else {
                return Err(format!(
                    "missing request for {resource} in container {name} of Pod {}",
                    pod.meta.name
                ));
            };
            sum = sum.saturating_add(asked);
        }
        if !found {
            let pod = &pod.meta.name;
            return Err(format!("container {container} not found in Pod {pod}"));
        }
        requests.insert(pod.meta.name.clone(), sum);
    }
    Ok(requests)
}

/// Ratio, percent, and average in thousandths.
fn utilization(
    samples: &Samples,
    requests: &Requests,
    target: i32,
) -> Result<(f64, i32, i64), String> {
    let (mut used, mut asked, mut count) = (0_i64, 0_i64, 0_i64);
    for (name, sample) in samples {
        // A pod that is gone from the list may still have metrics.
        let Some(request) = requests.get(name) else {
            continue;
        };
        used = used.saturating_add(sample.value);
        asked = asked.saturating_add(*request);
        count += 1;
    }
    if asked == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    let percent = i32::try_from(i128::from(used) * 100 / i128::from(asked)).unwrap_or(i32::MAX);
    Ok((
        f64::from(percent) / f64::from(target),
        percent,
        used / count.max(1),
    ))
}

fn average(samples: &Samples, target: i64) -> (f64, i64) {
    let total = samples
        .values()
        .fold(0_i64, |sum, s| sum.saturating_add(s.value));
    let mean = total / i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
    (mean as f64 / target as f64, mean)
}

/// Whether the changed ratio calls for nothing, or for the other direction.
fn settles(before: f64, after: f64, tolerance: Tolerance) -> bool {
    tolerance.covers(after) || (before < 1.0 && after > 1.0) || (before > 1.0 && after < 1.0)
}

fn assume(samples: &mut Samples, name: &Arc<str>, value: i64, now: Timestamp) {
    let sample = Sample {
        value,
        at: now,
        window: SignedDuration::ZERO,
    };
    samples.insert(name.clone(), sample);
}

/// By the share of what is requested.
///
/// # Errors
/// In Kubernetes' words, when there is nothing to reckon with.
pub fn by_utilization(
    world: &World<'_>,
    mut samples: Samples,
    target: i32,
    resource: &str,
    container: &str,
) -> Result<Proposal, String> {
    if world.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(world, &samples, resource == "cpu");
    samples.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let requests = requests(world.pods, resource, container)?;
    let (ratio, percent, raw) = utilization(&samples, &requests, target)?;
    let proposal = |replicas| Proposal {
        replicas,
        utilization: Some(percent),
        value: raw,
    };
    let count_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !count_unready && groups.missing.is_empty() {
        return Ok(proposal(if world.tolerance.covers(ratio) {
            world.current
        } else {
            ceil(ratio * groups.ready as f64)
        }));
    }
    for name in &groups.missing {
        if ratio < 1.0 {
            // To scale down, those of which nothing is known count as fully used.
            let request = requests.get(name).copied().unwrap_or(0);
            let full = request.saturating_mul(i64::from(target.max(100))) / 100;
            assume(&mut samples, name, full, world.now);
        } else if ratio > 1.0 {
            assume(&mut samples, name, 0, world.now);
        }
    }
    if count_unready {
        for name in &groups.unready {
            assume(&mut samples, name, 0, world.now);
        }
    }
    let (after, _, _) = utilization(&samples, &requests, target)?;
    let wanted = ceil(after * samples.len() as f64);
    let turns = (after < 1.0 && wanted > world.current) || (after > 1.0 && wanted < world.current);
    Ok(proposal(
        if settles(ratio, after, world.tolerance) || turns {
            world.current
        } else {
            wanted
        },
    ))
}

/// By an average over pods, in thousandths.
///
/// # Errors
/// In Kubernetes' words, when there is nothing to reckon with.
pub fn by_average(
    world: &World<'_>,
    mut samples: Samples,
    target: i64,
    cpu: bool,
) -> Result<Proposal, String> {
    if world.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(world, &samples, cpu);
    samples.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let (ratio, value) = average(&samples, target);
    let proposal = |replicas| Proposal {
        replicas,
        utilization: None,
        value,
    };
    let count_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !count_unready && groups.missing.is_empty() {
        return Ok(proposal(if world.tolerance.covers(ratio) {
            world.current
        } else {
            ceil(ratio * groups.ready as f64)
        }));
    }
    for name in &groups.missing {
        if ratio < 1.0 {
            assume(&mut samples, name, target, world.now);
        } else if ratio > 1.0 {
            assume(&mut samples, name, 0, world.now);
        }
    }
    if count_unready {
        for name in &groups.unready {
            assume(&mut samples, name, 0, world.now);
        }
    }
    let (after, _) = average(&samples, target);
    let wanted = ceil(after * samples.len() as f64);
    let turns = (after < 1.0 && wanted > world.current) || (after > 1.0 && wanted < world.current);
    Ok(proposal(
        if settles(ratio, after, world.tolerance) || turns {
            world.current
        } else {
            wanted
        },
    ))
}

/// By the value of one metric for all pods together, in thousandths.
///
/// # Errors
/// In Kubernetes' words, when the target has no pods.
pub fn by_value(world: &World<'_>, value: i64, target: i64) -> Result<Proposal, String> {
    let ratio = value as f64 / target as f64;
    let replicas = if world.current == 0 {
        // There are no pods to multiply: the ratio itself says how many.
        ceil(ratio)
    } else if world.tolerance.covers(ratio) {
        world.current
    } else {
        if world.pods.is_empty() {
            return Err("unable to calculate ready pods: no pods returned by selector while calculating replica count".into());
        }
        let ready = world
            .pods
            .iter()
            .filter(|p| p.phase == Phase::Running && p.ready)
            .count();
        ceil(ratio * ready as f64)
    };
    Ok(Proposal {
        replicas,
        utilization: None,
        value,
    })
}

/// By the value of one metric divided by the replicas that there are.
pub fn per_pod(status_replicas: i32, value: i64, target: i64, tolerance: Tolerance) -> Proposal {
    let ratio = value as f64 / (target as f64 * f64::from(status_replicas));
    let replicas = if tolerance.covers(ratio) {
        status_replicas
    } else {
        ceil(value as f64 / target as f64)
    };
    let each = (value as f64 / f64::from(status_replicas.max(1))).ceil();
    Proposal {
        replicas,
        utilization: None,
        value: each as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T12:00:00Z";

    /// A pod `name` with one container that requests one CPU.
    fn pod(name: &str, change: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T10:00:00Z", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:01:00Z"}]},
        });
        for (pointer, value) in change.as_object().unwrap() {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn samples(of: &[(&str, i64)]) -> Samples {
        let one = |value| Sample {
            value,
            at: NOW.parse().unwrap(),
            window: SignedDuration::from_secs(60),
        };
        of.iter().map(|(n, v)| ((*n).into(), one(*v))).collect()
    }

    fn world<'a>(pods: &'a [Arc<Pod>], timing: &'a Timing) -> World<'a> {
        World {
            current: i32::try_from(pods.len()).unwrap(),
            pods,
            tolerance: Tolerance { up: 0.1, down: 0.1 },
            timing,
            now: NOW.parse().unwrap(),
        }
    }

    #[rstest]
    #[case::up(&[("a", 800), ("b", 800)], 40, 4, 80)]
    #[case::down(&[("a", 100), ("b", 100)], 50, 1, 10)]
    #[case::within(&[("a", 520), ("b", 540)], 50, 2, 53)]
    // 90 % of one and none of the other is 45 %: below, and with the missing as full above: stays.
    #[case::missing_on_the_way_down(&[("a", 300)], 50, 2, 30)]
    // 90/50 with one pod; with the missing as idle 45/50: within tolerance.
    #[case::missing_on_the_way_up(&[("a", 900)], 50, 2, 90)]
    #[case::missing_and_far_up(&[("a", 2000)], 50, 4, 200)]
    fn usage_as_a_share_of_requests(
        #[case] of: &[(&str, i64)],
        #[case] target: i32,
        #[case] replicas: i32,
        #[case] percent: i32,
    ) {
        let pods = [pod("a", json!({})), pod("b", json!({}))];
        let timing = Timing::default();
        let got = by_utilization(&world(&pods, &timing), samples(of), target, "cpu", "").unwrap();
        assert_eq!((got.replicas, got.utilization), (replicas, Some(percent)));
    }

    #[rstest]
    #[case::pending(json!({"/status/phase": "Pending"}), "unready")]
    #[case::failed(json!({"/status/phase": "Failed"}), "ignored")]
    #[case::leaving(json!({"/metadata/deletionTimestamp": NOW}), "ignored")]
    #[case::no_condition(json!({"/status/conditions": []}), "unready")]
    #[case::not_started(json!({"/status/startTime": null}), "unready")]
    #[case::starting_and_ready_for_less_than_a_window(
        json!({"/status/startTime": "2026-01-01T11:58:00Z", "/status/conditions/0/lastTransitionTime": "2026-01-01T11:59:30Z"}), "unready")]
    #[case::starting_and_ready_for_long_enough(
        json!({"/status/startTime": "2026-01-01T11:58:00Z", "/status/conditions/0/lastTransitionTime": "2026-01-01T11:58:30Z"}), "ready")]
    #[case::never_ready(
        json!({"/status/conditions/0/status": "False", "/status/conditions/0/lastTransitionTime": "2026-01-01T10:00:10Z"}), "unready")]
    #[case::no_longer_ready(json!({"/status/conditions/0/status": "False"}), "ready")]
    fn which_pods_count(#[case] change: Value, #[case] expected: &str) {
        let pods = [pod("a", change)];
        let timing = Timing::default();
        let groups = group(&world(&pods, &timing), &samples(&[("a", 1)]), true);
        let got = match (groups.ready, groups.unready.len(), groups.ignored.len()) {
            (1, 0, 0) => "ready",
            (0, 1, 0) => "unready",
            (0, 0, 1) => "ignored",
            _ => "?",
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn unready_pods_dampen_growth_only() {
        let pods = [
            pod("a", json!({})),
            pod("b", json!({"/status/phase": "Pending"})),
        ];
        let timing = Timing::default();
        let at = |value| {
            by_utilization(
                &world(&pods, &timing),
                samples(&[("a", value)]),
                50,
                "cpu",
                "",
            )
            .unwrap()
            .replicas
        };
        assert_eq!(at(2000), 4, "200 % of one, 100 % of two: twice two");
        assert_eq!(at(900), 2, "90 % of one, 45 % of two: within tolerance");
        assert_eq!(at(100), 1);
    }

    #[test]
    fn what_cannot_be_reckoned_says_why() {
        let timing = Timing::default();
        let none: [Arc<Pod>; 0] = [];
        let why = |pods: &[Arc<Pod>], of: &[(&str, i64)]| {
            by_utilization(&world(pods, &timing), samples(of), 50, "memory", "").unwrap_err()
        };
        assert_eq!(
            why(&none, &[]),
            "no pods returned by selector while calculating replica count"
        );
        let pods = [pod("a", json!({}))];
        assert_eq!(
            why(&pods, &[]),
            "did not receive metrics for targeted pods (pods might be unready)"
        );
        assert_eq!(
            why(&pods, &[("a", 5)]),
            "missing request for memory in container c of Pod a"
        );
    }

    #[test]
    fn requests_of_containers_and_of_pods_as_a_whole() {
        let whole = pod(
            "w",
            json!({"/spec/resources": {"requests": {"cpu": "400m"}}}),
        );
        let pods = [pod("a", json!({})), whole];
        let cpu = requests(&pods, "cpu", "").unwrap();
        assert_eq!((cpu["a"], cpu["w"]), (1000, 400));
        let cpu = requests(&pods, "cpu", "c").unwrap();
        assert_eq!((cpu["a"], cpu["w"]), (1000, 1000));
        assert_eq!(
            requests(&pods[1..], "memory", "").unwrap_err(),
            "missing pod-level request for memory in Pod w"
        );
        assert_eq!(
            requests(&pods, "cpu", "x").unwrap_err(),
            "container x not found in Pod a"
        );
    }

    #[test]
    fn missing_pods_do_not_matter_where_the_rest_is_just_right() {
        let pods = [pod("a", json!({})), pod("b", json!({}))];
        let timing = Timing::default();
        let got = by_average(&world(&pods, &timing), samples(&[("a", 10)]), 10, true).unwrap();
        assert_eq!(got.replicas, 2);
    }

    #[test]
    fn averages_and_values() {
        let pods = [pod("a", json!({})), pod("b", json!({}))];
        let timing = Timing::default();
        let world = world(&pods, &timing);
        let got = by_average(
            &world,
            samples(&[("a", 30_000), ("b", 10_000)]),
            10_000,
            false,
        );
        assert_eq!(got.unwrap().replicas, 4);
        assert_eq!(by_value(&world, 50_000, 10_000).unwrap().replicas, 10);
        assert_eq!(by_value(&world, 10_500, 10_000).unwrap().replicas, 2);
        let empty = World {
            current: 0,
            pods: &[],
            ..world
        };
        assert_eq!(by_value(&empty, 0, 10_000).unwrap().replicas, 0);
        assert_eq!(by_value(&empty, 1, 10_000).unwrap().replicas, 1);
        let got = per_pod(2, 50_000, 10_000, world.tolerance);
        assert_eq!((got.replicas, got.value), (5, 25_000));
        assert_eq!(per_pod(0, 50_000, 10_000, world.tolerance).replicas, 5);
    }

    /// The phases of TestHPAWithTolerance (`test/integration/podautoscaler`).
    #[rstest]
    #[case(35, 3700, 37)]
    #[case(37, 3800, 37)]
    #[case(37, 1000, 10)]
    #[case(10, 800, 10)]
    fn a_sum_for_all_pods_by_tolerance(
        #[case] replicas: i32,
        #[case] value: i64,
        #[case] wanted: i32,
    ) {
        let tolerance = Tolerance {
            up: 0.05,
            down: 0.5,
        };
        let got = per_pod(replicas, value * 1000, 100_000, tolerance);
        assert_eq!(got.replicas, wanted);
    }

    #[test]
    fn each_direction_has_its_own_tolerance() {
        let pods = [pod("a", json!({})), pod("b", json!({}))];
        let timing = Timing::default();
        let world = World {
            tolerance: Tolerance { up: 0.0, down: 0.5 },
            ..world(&pods, &timing)
        };
        assert_eq!(by_value(&world, 10_100, 10_000).unwrap().replicas, 3);
        assert_eq!(by_value(&world, 5_100, 10_000).unwrap().replicas, 2);
    }
}
