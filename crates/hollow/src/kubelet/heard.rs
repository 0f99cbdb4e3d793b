//! What servers in simulated pods print of the requests that reach them.

use super::Network;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// As many lines are kept of a container.
const KEPT: usize = 500;

/// A line and its time.
type Line = (Timestamp, String);

/// Lines by the pods' uids and by container.
#[derive(Default)]
pub struct Heard(Mutex<FxHashMap<String, FxHashMap<String, VecDeque<Line>>>>);

impl Heard {
    fn add(&self, uid: &str, container: &str, line: Line) {
        let mut all = self.0.lock();
        let pod = all.entry(uid.to_owned()).or_default();
        let lines = pod.entry(container.to_owned()).or_default();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn of(&self, uid: &str, container: &str) -> Vec<Line> {
        let all = self.0.lock();
        let lines = all.get(uid).and_then(|pod| pod.get(container));
        lines.into_iter().flatten().cloned().collect()
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Network {
    /// A container prints something of a request, as Go's log does.
    pub(super) fn prints(&self, uid: &str, container: &str, text: &str) {
        let now = self.truth().clock.now().timestamp();
        let line = format!("{} {text}", now.strftime("%Y/%m/%d %H:%M:%S"));
        self.0.heard.add(uid, container, (now, line));
    }

    /// What a container has printed of requests.
    pub(super) fn printed(&self, uid: &str, container: &str) -> Vec<Line> {
        self.0.heard.of(uid, container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_until_the_pod_goes() {
        let heard = Heard::default();
        for nth in 0..KEPT + 5 {
            heard.add("u", "c", (Timestamp::UNIX_EPOCH, nth.to_string()));
        }
        let kept = heard.of("u", "c");
        assert_eq!((kept.len(), kept[0].1.as_str()), (KEPT, "5"));
        assert!(heard.of("u", "d").is_empty() && heard.of("v", "c").is_empty());
        heard.forget("u");
        assert!(heard.of("u", "c").is_empty());
    }
}
