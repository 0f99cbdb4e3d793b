//! Seeded simulation: the real planners against a world that fails.
//!
//! Members run the StatefulSet controller's and the kubelet's rules on pods that become ready late or
//! never, die and crash; members go away for a while; the hub sees stale views, loses responses, meets
//! conflicts and ends between any two actions; people press every button. After each step the
//! invariants of `world/invariants.rs` are checked against the truth, and in the end, with the faults
//! gone, the release has to end.
//!
//! Adoption and leaving are simulated apart (`sim/adoption.rs`), since they are about whole objects: workloads
//! become Groups and plain again, and no instance may be lost, doubled or owned twice.
//!
//! A failure prints its seed. `GANTRY_SIM_SEED=n` replays that run with a log of every step;
//! `GANTRY_SIM_RUNS=n` sets how many seeds are tried.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: clippy takes only #[test] functions for tests, not what they call"
)]

mod sim;

use sim::run::{Profile, Run};

fn seeds() -> (u64, u64, bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    match number("GANTRY_SIM_SEED") {
        Some(seed) => (seed, 1, true),
        None => (0, number("GANTRY_SIM_RUNS").unwrap_or(100), false),
    }
}

/// What must come up among many runs with everything in them: what never comes up is not checked.
const MET: [&str; 25] = [
    "told later",
    "Passed gate",
    "Failed gate",
    "Overridden gate",
    "override",
    "skipped cell",
    "back batch by batch",
    "resolved tag",
    "kept tag",
    "wave",
    "Approval",
    "Window",
    "Interval",
    "LineStopped",
    "Frozen",
    "Busy",
    "InstanceFailed",
    "BatchDeadline",
    "pulled out",
    "restarted",
    "wish waits",
    "sent away",
    "gone by wish",
    "full cell",
    "lost cell",
];

fn simulate(profile: Profile) {
    let (first, count, log) = seeds();
    let mut ends = std::collections::BTreeMap::<String, u32>::new();
    let mut broken = Vec::new();
    let mut met = std::collections::BTreeSet::new();
    for seed in first..first + count {
        let (end, seen) = Run::new(seed, profile, log).into_end();
        met.extend(seen);
        match end {
            Ok(end) => *ends.entry(end).or_default() += 1,
            Err(why) => broken.push((seed, why)),
        }
    }
    if let Some((seed, _)) = broken.first() {
        if !log {
            let _ = Run::new(*seed, profile, true).into_end();
        }
        let list: Vec<String> = broken
            .iter()
            .map(|(s, why)| format!("{s}: {why}"))
            .collect();
        panic!(
            "{profile:?}: {} of {count} seeds\n{}\nreplay with GANTRY_SIM_SEED={seed} cargo test -p gantry-hub --test simulation -- --nocapture",
            list.len(),
            list.join("\n")
        );
    }
    println!("{profile:?}: {ends:?}, met {met:?}");
    // A simulation in which nothing ever succeeds, or nothing ever fails, proves nothing.
    if count >= 100 {
        let least = if profile == Profile::Calm {
            count as u32
        } else {
            5
        };
        assert!(
            ends.get("Succeeded").is_some_and(|n| *n >= least),
            "{ends:?}"
        );
        assert!(
            ends.get("blocked, and says so")
                .is_none_or(|n| u64::from(*n) * 50 < count),
            "{ends:?}"
        );
        if profile == Profile::Everything {
            let missed: Vec<&str> = MET.into_iter().filter(|m| !met.contains(*m)).collect();
            assert!(missed.is_empty(), "never met: {missed:?}");
        }
        if profile != Profile::Calm {
            assert!(ends.get("RolledBack").is_some_and(|n| *n > 5), "{ends:?}");
        }
    }
}

/// No faults: every release goes through, and the limit holds for all instances, whatever put them out.
#[test]
fn calm() {
    simulate(Profile::Calm);
}

/// Pods die and never become ready; the hub sees everything at once.
#[test]
fn sick_instances() {
    simulate(Profile::SickInstances);
}

/// Stale views, lost responses, conflicts, crashes of the hub, members away.
#[test]
fn broken_hub() {
    simulate(Profile::BrokenHub);
}

/// All of it, and people pressing buttons.
#[test]
fn everything() {
    simulate(Profile::Everything);
}

/// What must come up among many adoptions and leavings.
const ADOPTED: [&str; 12] = [
    "Deployment adopted",
    "StatefulSet adopted",
    "an instance died",
    "brought back after leaving",
    "crash between deeds",
    "left as a Deployment",
    "left as a StatefulSet",
    "lost response",
    "named instances beside guests",
    "refused",
    "rolled out before",
    "scaled meanwhile",
];

/// Workloads that run become Groups and plain again; no instance is touched, none has two owners.
#[test]
fn adoption_and_leaving() {
    let (first, count, log) = seeds();
    let mut met = std::collections::BTreeSet::new();
    let mut broken = Vec::new();
    for seed in first..first + count {
        let mut run = sim::adoption::Run::new(seed, log);
        if let Err(why) = run.run() {
            broken.push(format!("{seed}: {why}"));
        }
        met.extend(run.met);
    }
    assert!(
        broken.is_empty(),
        "{} of {count} seeds\n{}\nreplay with GANTRY_SIM_SEED=n cargo test -p gantry-hub --test simulation adoption -- --nocapture",
        broken.len(),
        broken.join("\n")
    );
    if count >= 100 {
        let missed: Vec<&str> = ADOPTED.into_iter().filter(|m| !met.contains(m)).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}
