//! Updates in place: which images change, and which container runs that ends.

use std::collections::BTreeMap;

use gantry_api::strategy::InPlace;

use super::Order;
use crate::{
    render,
    world::{Instance, Run},
};

/// The container runs that setting `changed` will end. A run that an earlier update was to end, and
/// has not, is still the one to end, unless the image goes back to what it runs: then nothing will.
pub(super) fn ends(
    instance: &Instance,
    changed: &BTreeMap<String, String>,
) -> BTreeMap<String, Run> {
    let mut ends = BTreeMap::new();
    let before = instance.mark.as_ref().map(|m| &m.ends);
    for (name, container) in &instance.containers {
        let pending = before
            .and_then(|b| b.get(name))
            .filter(|run| run.id == container.id && run.restarts == container.restarts);
        let image = changed.get(name).unwrap_or(&container.image);
        let run = match pending {
            Some(run) => run.clone(),
            None if changed.contains_key(name) => Run {
                id: container.id.clone(),
                restarts: container.restarts,
                image: container.image.clone(),
            },
            None => continue,
        };
        if run.image != *image {
            ends.insert(name.clone(), run);
        }
    }
    ends
}

/// New images by container where an instance of revision `from` can be updated in place.
pub(super) fn in_place(order: &Order<'_>, from: Option<i64>) -> Option<BTreeMap<String, String>> {
    if order.in_place == InPlace::Never {
        return None;
    }
    let to = order.revisions.get(&order.goal)?;
    let from = order.revisions.get(&from?)?;
    render::in_place(&from.template, &to.template).ok()
}
