//! Scaling of a Deployment that is not (only) rolling: all its ReplicaSets keep their proportions.

use super::plan::{MAX, Step, Which, by_size_newer, by_size_older, number};

impl Step<'_> {
    /// Fits the ReplicaSets to `spec.replicas` without moving the rollout on.
    pub(super) fn scale(&mut self) {
        let wanted = self.wanted();
        if let Some(which) = self.active_or_latest() {
            if self.at(which).is_some_and(|s| s.replicas != wanted) {
                self.resize(which, wanted);
            }
            return;
        }
        if self.saturated() {
            for i in 0..self.old.len() {
                if self.old[i].replicas > 0 {
                    self.resize(Which::Old(i), 0);
                }
            }
            return;
        }
        if self.rolling() {
            self.scale_in_proportion();
        }
    }

    /// The only ReplicaSet with replicas; the latest if none has any; `None` if several have.
    fn active_or_latest(&self) -> Option<Which> {
        let active: Vec<Which> = self.active().collect();
        match active.as_slice() {
            [] if self.new.is_some() => Some(Which::New),
            [] => self.old.len().checked_sub(1).map(Which::Old),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn active(&self) -> impl Iterator<Item = Which> {
        (0..self.old.len())
            .map(Which::Old)
            .chain([Which::New])
            .filter(|w| self.at(*w).is_some_and(|s| s.replicas > 0))
    }

    /// The new ReplicaSet is all there is to be.
    fn saturated(&self) -> bool {
        let wanted = self.wanted();
        self.new.as_ref().is_some_and(|new| {
            number(&new.annotations, super::plan::DESIRED) == Some(i64::from(wanted))
                && new.replicas == wanted
                && new.available() == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let wanted = self.wanted();
        let allowed = if wanted > 0 {
            wanted + self.max_surge()
        } else {
            0
        };
        let to_add = allowed - self.total();
        let mut order: Vec<Which> = self.active().collect();
        if to_add > 0 {
            order.sort_by_cached_key(|w| by_size_newer(self, *w));
        } else {
            order.sort_by_cached_key(|w| by_size_older(self, *w));
        }
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::with_capacity(order.len());
        for which in &order {
            let replicas = self.at(*which).map_or(0, |s| s.replicas);
            let share = self.share(*which, to_add, added);
            sizes.push(replicas + share);
            added += share;
        }
        // What rounding has left over goes to the largest.
        if to_add != 0
            && let Some(first) = sizes.first_mut()
        {
            *first = (*first + to_add - added).max(0);
        }
        for (which, size) in order.into_iter().zip(sizes) {
            self.resize(which, size);
        }
    }

    /// What one ReplicaSet gets of `to_add`, of which `added` is given out already.
    fn share(&self, which: Which, to_add: i32, added: i32) -> i32 {
        let Some(set) = self.at(which) else { return 0 };
        if set.replicas == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let wanted = self.wanted();
        let fraction = if wanted == 0 {
            -set.replicas
        } else {
            let max = f64::from(wanted + self.max_surge());
            let before = number(&set.annotations, MAX)
                .and_then(|m| i32::try_from(m).ok())
                .filter(|m| *m > 0)
                .unwrap_or(self.world.deployment.status.replicas);
            if before == 0 {
                // Somebody took the note of its size away, and there was nothing yet to divide.
                return 0;
            }
            let size = (f64::from(set.replicas) * max / f64::from(before)).round();
            #[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
            let size = size as i32;
            size - set.replicas
        };
        let allowed = to_add - added;
        if to_add > 0 {
            fraction.min(allowed)
        } else {
            fraction.max(allowed)
        }
    }
}
