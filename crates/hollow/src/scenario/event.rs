//! What happens at times: to which nodes, and for how long.

use crate::behaviour::{Draw, Glob};
use std::{fmt, sync::Arc, time::Duration};

/// Something that happens at a time of the scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// After its start.
    pub at: Duration,
    /// And again that long after; once, if not set.
    pub every: Option<Duration>,
    /// How long it lasts; to the end, if not set.
    pub lasts: Option<Duration>,
    /// What happens.
    pub act: Act,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Machines go off. What ran on them has ended when they come up again.
    Kill(Target),
    /// Nodes cannot reach the API server. What runs on them goes on.
    Cut(Target),
    /// The registry is slow, or answers with an error.
    Registry {
        /// So many times slower.
        slower: f64,
        /// Every pull fails with this answer.
        error: Option<Arc<str>>,
    },
    /// Nodes run short of something, and evict pods one by one.
    Press {
        /// Which.
        on: Target,
        /// Of what.
        what: Pressure,
        /// Pods that each node evicts before it has enough again.
        evict: u32,
    },
    /// Clocks of nodes are wrong.
    Skew {
        /// Which.
        on: Target,
        /// Milliseconds ahead, or behind if below zero.
        by: i64,
    },
}

/// What a node can run short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pressure {
    /// Memory.
    Memory,
    /// Disk.
    Disk,
    /// Process ids.
    Pids,
}

impl Pressure {
    /// All of them, as in arrays indexed by them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Pids];

    /// As scenarios write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Pids => "pids",
        }
    }
}

/// Nodes that fit all of what is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Pattern for the name.
    pub name: Option<Glob>,
    /// Pattern for the zone.
    pub zone: Option<Glob>,
    /// Pattern for the class.
    pub class: Option<Glob>,
    /// So many of them, drawn; all, if not set.
    pub count: Option<u32>,
}

/// A node that may be a target.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its zone.
    pub zone: &'a str,
    /// Its class.
    pub class: &'a str,
}

impl Target {
    /// Whether a node is among those that may be drawn.
    #[must_use]
    pub fn fits(&self, node: &Candidate<'_>) -> bool {
        let fits = |glob: &Option<Glob>, text| glob.as_ref().is_none_or(|it| it.matches(text));
        fits(&self.name, node.name) && fits(&self.zone, node.zone) && fits(&self.class, node.class)
    }

    /// Draws nodes: the same of the same names, in whatever order they come.
    pub fn draw<T>(&self, candidates: Vec<(String, T)>, draw: Draw) -> Vec<T> {
        let mut all: Vec<(u64, String, T)> = candidates
            .into_iter()
            .map(|(name, node)| (draw.word(&name).bits(), name, node))
            .collect();
        all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let most = self.count.map_or(all.len(), |it| it as usize);
        all.into_iter()
            .take(most)
            .map(|(_, _, node)| node)
            .collect()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            Some(1) => f.write_str("one node")?,
            Some(count) => write!(f, "{count} nodes")?,
            None => f.write_str("all nodes")?,
        }
        let parts = [
            ("named", &self.name),
            ("of zone", &self.zone),
            ("of class", &self.class),
        ];
        for (word, glob) in parts {
            if let Some(glob) = glob {
                write!(f, " {word} {glob}")?;
            }
        }
        if self.count.is_some() {
            f.write_str(", drawn")?;
        }
        Ok(())
    }
}

/// The nth time at which an event happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stroke {
    /// After the start.
    pub at: Duration,
    /// Which event.
    pub event: usize,
    /// Which time.
    pub nth: u32,
}

/// The first stroke of each event that is not over after `passed`, for a simulation that starts again in
/// the middle: what still lasts happens again at once, what is over does not.
#[must_use]
pub fn strokes(events: &[Event], passed: Duration) -> Vec<Stroke> {
    let over = |event: &Event, at: Duration| {
        at < passed && event.lasts.is_some_and(|lasts| at + lasts <= passed)
    };
    let mut all = vec![];
    for (index, event) in events.iter().enumerate() {
        let mut stroke = Stroke {
            at: event.at,
            event: index,
            nth: 0,
        };
        if let Some(every) = event.every.filter(|every| !every.is_zero()) {
            let past = passed.saturating_sub(event.at);
            let skipped = past.as_millis() / every.as_millis().max(1);
            stroke.nth = u32::try_from(skipped).unwrap_or(u32::MAX);
            stroke.at = event.at + every.saturating_mul(stroke.nth);
            if over(event, stroke.at) {
                stroke.nth += 1;
                stroke.at += every;
            }
        }
        if !over(event, stroke.at) {
            all.push(stroke);
        }
    }
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, every: Option<u64>, lasts: Option<u64>) -> Event {
        Event {
            at: Duration::from_secs(at),
            every: every.map(Duration::from_secs),
            lasts: lasts.map(Duration::from_secs),
            act: Act::Kill(Target::default()),
        }
    }

    #[test]
    fn a_scenario_that_goes_on_leaves_out_what_is_over() {
        let events = [
            event(10, None, Some(5)),
            event(20, None, None),
            event(0, Some(100), Some(10)),
            event(300, None, None),
        ];
        let seen = |passed| {
            strokes(&events, Duration::from_secs(passed))
                .iter()
                .map(|it| (it.event, it.at.as_secs(), it.nth))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(0), [(2, 0, 0), (0, 10, 0), (1, 20, 0), (3, 300, 0)]);
        assert_eq!(seen(12), [(0, 10, 0), (1, 20, 0), (2, 100, 1), (3, 300, 0)]);
        assert_eq!(seen(205), [(1, 20, 0), (2, 200, 2), (3, 300, 0)]);
    }

    #[test]
    fn drawing_depends_on_names_alone() {
        let target = Target {
            count: Some(3),
            ..Target::default()
        };
        let names: Vec<(String, u32)> = (0..20).map(|i| (format!("n-{i}"), i)).collect();
        let mut turned = names.clone();
        turned.reverse();
        let drawn = target.draw(names.clone(), Draw::new(7));
        assert_eq!(drawn.len(), 3);
        assert_eq!(drawn, target.draw(turned, Draw::new(7)));
        assert_ne!(drawn, target.draw(names, Draw::new(8)));
    }
}
