//! Nodes bucketed by score, so that a decision starts at the best node instead of looking at all of them.
//!
//! A rank holds the nodes that one placement (selector, affinity, taints) allows and that have room, in buckets of
//! equal score, optionally apart by the domains of one topology key. Two sorts: *shared* ranks score nodes as they
//! are, for pods whose resource request is rare; ranks of one *shape* score and fit exactly that request, for
//! requests seen again and again. A rank is brought up to date from the log of changed nodes when it is next used,
//! so that an idle rank costs nothing.

use super::bits::NodeSet;
use super::load::Limits;
use super::profile::Rules;
use super::request::Shape;
use super::seats::Seats;
use super::topology::{KeyId, NONE, Topology};

/// Highest score: LeastAllocated 100, BalancedAllocation 100, NodeAffinity 2 × 100, TaintToleration 3 × 100, and as much
/// again for what is not in the default profile.
pub const TOP: usize = 1023;
const WORDS: usize = TOP / 64 + 1;

/// The bucket of a score: itself, unless the profile's weights make for more scores than there are buckets.
fn level(score: i64, rules: &Rules) -> u16 {
    let top = i64::try_from(TOP).unwrap_or(i64::MAX);
    let score = if rules.top > top {
        score * top / rules.top
    } else {
        score
    };
    u16::try_from(score.clamp(0, top)).unwrap_or(u16::MAX)
}

/// Not in the rank.
const ABSENT: u32 = u32::MAX;

/// What a rank reads to judge a node.
pub struct View<'a> {
    pub seats: Seats<'a>,
    pub topology: &'a Topology,
    /// Nodes that the placement allows.
    pub allowed: &'a NodeSet,
    /// Scores that do not depend on resources; empty if they are all alike.
    pub statics: &'a [u16],
    /// Bounds of usage, where there are such.
    pub limits: Option<Limits>,
    /// The request to fit and score for.
    pub shape: &'a Shape,
    /// How to score.
    pub rules: &'a Rules,
}

#[derive(Clone, Copy)]
struct Slot {
    list: u32,
    position: u32,
    level: u16,
}

/// Where among nodes of equal score a decider begins: the workers of a round each at another place, so that they do not
/// all go for the same nodes.
#[derive(Clone, Copy, Default)]
pub struct Lane {
    /// Which worker it is, of how many.
    pub worker: usize,
    pub workers: usize,
    /// How many nodes it has taken in this round.
    pub taken: usize,
}

impl Lane {
    /// Nodes before this one come first, the last of them first, then the others. Of a taken node the last in the list
    /// takes the place, so that the beginning moves ahead of it.
    fn begin(self, len: usize) -> usize {
        if self.worker == 0 {
            return len;
        }
        let part = (len + self.taken) * (self.workers - self.worker) / self.workers;
        part.saturating_sub(self.taken).min(len)
    }
}

/// The nodes of one domain, by score.
#[derive(Default)]
pub struct List {
    levels: Vec<Vec<u32>>,
    filled: [u64; WORDS],
    len: usize,
}

impl List {
    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nodes with their scores, best first; among equals, from where the lane begins.
    pub fn best_first(&self, lane: Lane) -> impl Iterator<Item = (u32, u16)> + '_ {
        (0..WORDS).rev().flat_map(move |word| {
            let mut bits = self.filled[word];
            std::iter::from_fn(move || {
                let bit = 63_u32.checked_sub(bits.leading_zeros())?;
                bits &= !(1 << bit);
                Some(word * 64 + bit as usize)
            })
            .flat_map(move |level| {
                let score = u16::try_from(level).unwrap_or(u16::MAX);
                let bucket = &self.levels[level];
                let (first, rest) = bucket.split_at(lane.begin(bucket.len()));
                let nodes = first.iter().rev().chain(rest.iter().rev());
                nodes.map(move |node| (*node, score))
            })
        })
    }
}

/// Nodes ranked for one placement.
pub struct Rank {
    /// Nodes without the partition key (or all, without one) are in the first list; domain `d` in list `d + 1`.
    pub lists: Vec<List>,
    slots: Vec<Slot>,
    key: Option<KeyId>,
    /// Position in the log of changed nodes.
    pub cursor: u64,
    /// Version of the placement's scores that was used.
    pub version: u32,
    /// When it was last used, in decisions.
    pub used: u64,
}

impl Rank {
    /// An empty rank, to be filled by [`Rank::rebuild`].
    #[must_use]
    pub fn new(key: Option<KeyId>) -> Self {
        Self {
            lists: Vec::new(),
            slots: Vec::new(),
            key,
            cursor: u64::MAX,
            version: 0,
            used: 0,
        }
    }

    /// Brings it up to date from the log of changed nodes, of which the first entry has the number `start`. `version`:
    /// that of the placement's scores.
    pub fn catch_up(&mut self, view: &View<'_>, log: &[u32], start: u64, version: u32) {
        let end = start + log.len() as u64;
        let behind = end.checked_sub(self.cursor);
        let rebuild = self.version != version
            || self.cursor < start
            || behind.is_none_or(|b| b > view.seats.slots() as u64 + 64);
        if rebuild {
            self.version = version;
            self.rebuild(view);
        } else {
            let from = usize::try_from(self.cursor - start).unwrap_or_default();
            for node in &log[from..] {
                self.refresh(*node, view);
            }
        }
        self.cursor = end;
    }

    /// What fits has changed all over: it is ranked anew when it is next used.
    pub fn outdate(&mut self) {
        self.cursor = u64::MAX;
    }

    /// Ranks all nodes anew.
    pub fn rebuild(&mut self, view: &View<'_>) {
        self.lists.clear();
        self.slots.clear();
        for node in 0..view.seats.slots() {
            self.refresh(u32::try_from(node).unwrap_or(ABSENT), view);
        }
    }

    /// Brings one node up to date.
    pub fn refresh(&mut self, node: u32, view: &View<'_>) {
        let at = node as usize;
        if self.slots.len() <= at {
            self.slots.resize(
                at + 1,
                Slot {
                    list: ABSENT,
                    position: 0,
                    level: 0,
                },
            );
        }
        let allowed = view.allowed.contains(at);
        let cool = |limits: &Limits| view.seats.too_hot(node, view.shape, limits).is_none();
        let fits =
            allowed && view.seats.fits(node, view.shape) && view.limits.as_ref().is_none_or(cool);
        let wanted = fits.then(|| {
            let domain = self.key.map_or(NONE, |key| view.topology.domain(key, node));
            let list = if domain == NONE { 0 } else { domain + 1 };
            let score = view.seats.score(node, view.shape, view.rules)
                + i64::from(view.statics.get(at).copied().unwrap_or_default());
            (list, level(score, view.rules))
        });
        let slot = self.slots[at];
        if slot.list != ABSENT {
            if wanted == Some((slot.list, slot.level)) {
                return;
            }
            self.take(at, slot);
        }
        if let Some((list, level)) = wanted {
            self.put(node, list, level);
        }
    }

    fn take(&mut self, at: usize, slot: Slot) {
        let list = &mut self.lists[slot.list as usize];
        let bucket = &mut list.levels[slot.level as usize];
        bucket.swap_remove(slot.position as usize);
        if let Some(moved) = bucket.get(slot.position as usize) {
            self.slots[*moved as usize].position = slot.position;
        }
        if bucket.is_empty() {
            list.filled[slot.level as usize / 64] &= !(1 << (slot.level % 64));
        }
        list.len -= 1;
        self.slots[at].list = ABSENT;
    }

    fn put(&mut self, node: u32, list: u32, level: u16) {
        if self.lists.len() <= list as usize {
            self.lists.resize_with(list as usize + 1, List::default);
        }
        let into = &mut self.lists[list as usize];
        if into.levels.len() <= level as usize {
            into.levels.resize_with(level as usize + 1, Vec::new);
        }
        let bucket = &mut into.levels[level as usize];
        let position = u32::try_from(bucket.len()).unwrap_or(ABSENT);
        bucket.push(node);
        into.filled[level as usize / 64] |= 1 << (level % 64);
        into.len += 1;
        self.slots[node as usize] = Slot {
            list,
            position,
            level,
        };
    }
}
