//! The stopped line: which of the switches in force are about a release, and what an emergency overrides.

use gantry_api::{
    Release, ReleaseStatus, StopLine,
    release::Override,
    stop_line::{StopKind, StopLineSpec},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{World, tell};
use crate::world::CellView;

/// What the switches say of a release at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    /// Why it stands still: one word for machines, one line for people.
    pub halt: Option<(&'static str, String)>,
    /// When a switch begins or ends to hold.
    pub wake: Option<Timestamp>,
    /// Freezes that an emergency overrides.
    pub overridden: Vec<String>,
    /// Freezes that would hold it.
    pub freezes: Vec<String>,
}

impl Line {
    /// A freeze holds what goes forward. Who is on the way back is let through: a release that went
    /// wrong must not stay until the holidays are over. A stopped line stops it too.
    pub(super) fn let_back(&mut self) {
        if self
            .halt
            .as_ref()
            .is_some_and(|(reason, _)| *reason == FROZEN)
        {
            self.halt = None;
        }
    }
}

/// A freeze halts.
const FROZEN: &str = "Frozen";

pub(super) fn look(world: &World<'_>, now: Timestamp) -> Line {
    let tenant = world.release.metadata.namespace.as_deref();
    let emergency = world.release.spec.emergency.is_some();
    switches(
        tenant.unwrap_or_default(),
        emergency,
        world.cells,
        world.lines,
        now,
    )
}

/// Why nothing of `tenant` may be begun in `cells`, and when that changes without anyone's doing.
pub(crate) fn halts(
    tenant: &str,
    cells: &[CellView],
    lines: &[StopLine],
    now: Timestamp,
) -> (Option<String>, Option<Timestamp>) {
    let line = switches(tenant, false, cells, lines, now);
    (line.halt.map(|(_, why)| why), line.wake)
}

fn switches(
    tenant: &str,
    emergency: bool,
    cells: &[CellView],
    lines: &[StopLine],
    now: Timestamp,
) -> Line {
    let mut line = Line::default();
    let stopped = cells.iter().find_map(|c| {
        let why = c.stopped.as_ref()?;
        Some(format!("the line is stopped in {}: {why}", c.name))
    });
    line.halt = stopped.map(|why| ("LineStopped", why));
    for switch in lines {
        let Some(scope) = scope(&switch.spec, tenant, cells) else {
            continue;
        };
        let (from, until) = (
            switch.spec.from.as_ref().map(|t| t.0),
            switch.spec.until.as_ref().map(|t| t.0),
        );
        if let Some(from) = from.filter(|from| *from > now) {
            line.wake = tell::earlier(line.wake, Some(from));
            continue;
        }
        if until.is_some_and(|until| until <= now) {
            continue;
        }
        line.wake = tell::earlier(line.wake, until);
        let name = switch.metadata.name.as_deref().unwrap_or_default();
        let spec = &switch.spec;
        let known = || format!("freeze {name} by {}: {}", spec.by, spec.reason);
        match spec.kind {
            StopKind::Freeze if emergency => line.overridden.push(known()),
            StopKind::Freeze => {
                line.freezes.push(known());
                let end = until.map_or(String::new(), |t| format!(" until {}", clock(t)));
                let message = format!(
                    "{} has frozen releases {scope}{end}: {}",
                    spec.by, spec.reason
                );
                line.halt.get_or_insert((FROZEN, message));
            }
            StopKind::Stop => {
                let message = format!("{} has stopped the line {scope}: {}", spec.by, spec.reason);
                // A stop is told before a freeze: nothing overrides it.
                if line
                    .halt
                    .as_ref()
                    .is_none_or(|(reason, _)| *reason == FROZEN)
                {
                    line.halt = Some(("LineStopped", message));
                }
            }
        }
    }
    line
}

fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Where a switch halts what `tenant` has in `cells`, in words; `None` where it is not about that.
fn scope(switch: &StopLineSpec, tenant: &str, cells: &[CellView]) -> Option<String> {
    if !switch.tenants.is_empty() && !switch.tenants.iter().any(|t| t == tenant) {
        return None;
    }
    let of_tenant = if switch.tenants.is_empty() {
        String::new()
    } else {
        format!(" of tenant {tenant}")
    };
    if switch.cells.is_empty() && switch.clusters.is_empty() {
        return Some(if switch.tenants.is_empty() {
            "of the whole fleet".to_owned()
        } else {
            of_tenant.trim_start().to_owned()
        });
    }
    let hit = cells
        .iter()
        .filter(|c| c.set.is_some() || c.weight.is_some_and(|w| w > 0))
        .find(|c| switch.cells.contains(&c.name) || switch.clusters.contains(&c.cluster))?;
    Some(format!("in {}{of_tenant}", hit.name))
}

/// Whether `switch` can be about releases of `tenant`; for the shell, which wakes those concerned.
pub fn concerns(switch: &StopLine, tenant: &str) -> bool {
    switch.spec.tenants.is_empty() || switch.spec.tenants.iter().any(|t| t == tenant)
}

/// Writes down the freezes that do not hold what goes back or is aborted, once each.
pub(super) fn went_on(status: &mut ReleaseStatus, freezes: Vec<String>) {
    for freeze in freezes {
        if !status.in_freezes.contains(&freeze) {
            status.in_freezes.push(freeze);
        }
    }
}

/// Writes down what an emergency has overridden, once each.
pub(super) fn record(
    release: &Release,
    status: &mut ReleaseStatus,
    what: impl IntoIterator<Item = String>,
    now: Timestamp,
) {
    let Some(emergency) = &release.spec.emergency else {
        return;
    };
    for what in what {
        if status.overrides.iter().all(|o| o.what != what) {
            status.overrides.push(Override {
                what,
                by: emergency.by.clone(),
                reason: emergency.reason.clone(),
                at: Time(now),
            });
        }
    }
}
