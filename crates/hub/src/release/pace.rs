//! How fast a release goes: the plan's pace, unless the button or the way back say otherwise.

use gantry_api::{Release, release::Plan};
use jiff::SignedDuration;

use super::run::signed;

/// How many instances may be out of service at once, going forward or (`back`) going back.
pub fn max_out(release: &Release, plan: &Plan, back: bool) -> i32 {
    let pressed = release.spec.pace.as_ref().and_then(|p| p.max_unavailable);
    let on_the_way_back = plan.strategy.rollback.max_unavailable.filter(|_| back);
    match pressed.or(on_the_way_back) {
        Some(allowed) => allowed.max_out(plan.replicas.max(0) as u32) as i32,
        None => plan.max_out,
    }
}

/// Time between the end of a batch and the start of the next.
pub(super) fn interval(release: &Release, plan: &Plan) -> SignedDuration {
    let pressed = release.spec.pace.as_ref().and_then(|p| p.interval);
    signed(pressed.unwrap_or(plan.strategy.interval))
}
