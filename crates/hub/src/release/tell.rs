//! Saying where a release stands: phase, message, counts, and the clock of people's waiting.

use gantry_api::{
    ReleaseStatus,
    release::{BatchState, Doing, InstanceCounts, Phase, Progress},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::drive::Moved;
use crate::world::{CellView, Instance};

/// Sets phase, reason and message.
pub(super) fn phase(status: &mut ReleaseStatus, phase: Phase, reason: &str, message: String) {
    status.phase = phase;
    reason.clone_into(&mut status.reason);
    status.message = message;
}

/// Adds to the message what froze releases while this one went back or was aborted.
pub(super) fn in_freezes(status: &mut ReleaseStatus) {
    if status.in_freezes.is_empty() || !(status.phase.is_final() || status.rollback.is_some()) {
        return;
    }
    let told = format!("; in {}", status.in_freezes.join(", in "));
    if !status.message.ends_with(&told) {
        status.message += &told;
    }
}

/// The earlier of two times, where there are any.
pub(crate) fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A time of day to the second, and that it is in UTC: the console shows it in the reader's zone.
pub(crate) fn clock_time(at: Timestamp) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}

/// A length of time, to the second.
pub(super) fn took(duration: SignedDuration) -> String {
    let seconds = u64::try_from(duration.as_secs()).unwrap_or(0);
    gantry_api::Span::seconds(seconds).to_string()
}

/// The first few names.
pub(super) fn list(mut names: Vec<String>) -> String {
    let all = names.len();
    names.truncate(3);
    let more = if all > names.len() {
        format!(" and {} more", all - names.len())
    } else {
        String::new()
    };
    format!("{}{more}", names.join(", "))
}

/// How far a batch is, in one line. `earlier` instances belong to the batches before it.
pub(super) fn moving(moved: &Moved, what: &str, earlier: i32) -> String {
    let of_it = |n: i32| (n - earlier).max(0);
    let mut text = format!(
        "{what}: {} of {} instances done",
        of_it(moved.finished),
        of_it(moved.size)
    );
    let under_way = moved
        .working
        .iter()
        .filter(|w| w.doing != Doing::Failed)
        .count();
    if under_way > 0 {
        text += &format!(", {under_way} under way");
    }
    if moved.failed > 0 {
        text += &format!(", {} failed", moved.failed);
    }
    if let Some(blocked) = &moved.blocked {
        text += &format!("; {blocked}");
    } else if let Some(slow) = moved
        .working
        .iter()
        .find(|w| w.doing == Doing::Updating && !w.message.is_empty())
    {
        text += &format!("; {}: {}", slow.name, slow.message);
    }
    text
}

/// Counts instances for the status: `goal` is where they go now, `target` what the release brings.
pub(super) fn counts(cells: &[CellView], goal: i64, target: i64, status: &mut ReleaseStatus) {
    let mut counts = InstanceCounts::default();
    let (mut total, mut updated) = (0, 0);
    let failed = |name: &str| {
        status
            .working
            .iter()
            .any(|w| w.doing == Doing::Failed && w.name == name)
    };
    let under_way = |name: &str| {
        status
            .working
            .iter()
            .any(|w| w.doing != Doing::Failed && w.name == name)
    };
    for cell in cells {
        total += cell.replicas();
        for ordinal in 0..cell.replicas() {
            let instance = cell.instances.get(&ordinal);
            let at = |revision| instance.is_some_and(|i| cell.at(i, revision));
            let serving = instance.is_some_and(Instance::in_service);
            updated += i32::from(at(target));
            counts.out += i32::from(!serving);
            match instance {
                Some(i) if failed(&i.name) => counts.failed += 1,
                Some(i) if under_way(&i.name) => counts.updating += 1,
                _ if at(goal) && serving => counts.done += 1,
                _ if at(goal) => counts.updating += 1,
                _ => counts.waiting += 1,
            }
        }
    }
    status.instances = counts;
    let done = status
        .batches
        .iter()
        .skip(1)
        .filter(|b| matches!(b.state, BatchState::Done | BatchState::Skipped))
        .count();
    status.progress = Progress {
        batch: format!("{done}/{}", status.batches.len().saturating_sub(1)),
        updated: format!("{updated}/{total}"),
    };
}

/// Whether it is a person the release waits for.
fn waits_for_person(status: &ReleaseStatus) -> bool {
    match status.phase {
        Phase::Paused => status.reason != "Unreachable",
        // What a program is asked, or what only takes time, is the release's own time.
        Phase::Gate => !matches!(status.reason.as_str(), "Interval" | "Gate" | "BatchDone"),
        Phase::Planning => status.reason == "Window",
        _ => false,
    }
}

/// Keeps the account of time spent waiting for people.
pub(super) fn clock(before: &ReleaseStatus, after: &mut ReleaseStatus, now: Timestamp) {
    match (waits_for_person(after), &before.waiting_since) {
        (true, None) => after.waiting_since = Some(Time(now)),
        (true, Some(since)) => after.waiting_since = Some(since.clone()),
        (false, Some(since)) => {
            after.waited_seconds =
                before.waited_seconds + now.duration_since(since.0).as_secs().max(0);
            after.waiting_since = None;
        }
        (false, None) => {}
    }
}
