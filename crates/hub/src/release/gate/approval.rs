//! Approval by so many of the people whom the gate names, or of their groups.

use std::collections::BTreeSet;

use gantry_api::gate::{Approval, Gate, GateState, GateStatus, Verdict};

use super::{Scene, decide};

pub(super) fn look(scene: &Scene<'_>, gate: &Gate, approval: &Approval, status: &mut GateStatus) {
    let spec = &scene.world.release.spec;
    let asked_for = super::super::requested_by(scene.world.release);
    let may = |v: &&Verdict| {
        v.gate == gate.name
            && v.batch.is_none_or(|b| b == scene.batch)
            && (approval.users.contains(&v.by)
                || v.groups.iter().any(|g| approval.groups.contains(g)))
            && (approval.own || v.by != asked_for || v.reject)
    };
    let verdicts: Vec<&Verdict> = spec.approvals.iter().filter(may).collect();
    if let Some(no) = verdicts.iter().find(|v| v.reject) {
        let why = if no.note.is_empty() {
            String::new()
        } else {
            format!(": {}", no.note)
        };
        decide(
            status,
            GateState::Failed,
            format!("rejected by {}{why}", no.by),
            scene.now,
        );
        return;
    }
    let people: BTreeSet<&str> = verdicts.iter().map(|v| v.by.as_str()).collect();
    status.passes = people.len() as i32;
    let said: Vec<&str> = people.into_iter().collect();
    if status.passes >= approval.count {
        decide(
            status,
            GateState::Passed,
            format!("approved by {}", said.join(", ")),
            scene.now,
        );
        return;
    }
    let groups = approval.groups.iter().map(|g| format!("group {g}"));
    let who: Vec<String> = approval.users.iter().cloned().chain(groups).collect();
    let so_far = if said.is_empty() {
        String::new()
    } else {
        format!("; approved by {}", said.join(", "))
    };
    status.message = format!(
        "waits for {} of {} approvals of {}{so_far}",
        approval.count - status.passes,
        approval.count,
        who.join(", ")
    );
}
