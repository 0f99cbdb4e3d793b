//! Which rank a class is decided from, and bringing it up to date; what depends on the node alone.

use super::bits::NodeSet;
use super::cluster::Cluster;
use super::load::Limits;
use super::nodes::{Node, Nodes};
use super::profile::{Rule, Rules};
use super::rank::{Rank, TOP, View};
use super::request::{Compiler, Placement, Shape};
use super::seats::Seats;
use super::symbols::Symbol;
use super::topology::KeyId;

/// A placement with the nodes that it allows.
pub struct PlacementState {
    pub key: Placement,
    /// The only nodes it can allow; such a placement has no ranks.
    pub pins: Option<Vec<Symbol>>,
    pub allowed: NodeSet,
    /// Bounds of usage on its nodes; pods that name their nodes have none.
    pub limits: Option<Limits>,
    /// Scores by node affinity and taints, weighted; empty if they are all alike.
    pub statics: Vec<u16>,
    /// The highest preference met, the most taints disliked and the most that policies like, among the allowed nodes.
    pub extremes: [i64; 3],
    /// Grows when the scores change as a whole.
    pub version: u32,
    pub(super) stale: bool,
}

/// A resource request, with how often it was asked for.
pub struct ShapeState {
    pub shape: Shape,
    pub decisions: u32,
}

/// Shapes decided this often get a rank of their own.
const SHAPE_PAYS_AFTER: u32 = 8;
/// Ranks of single shapes kept at most: each costs about 100 bytes a node.
const MOST_SHAPE_RANKS: usize = 128;
/// Ranks of placements kept at most.
const MOST_SHARED_RANKS: usize = 256;
/// A shape's rank unused for this many decisions may be replaced.
const RANK_IDLE: u64 = 4096;

/// An index into [`Cluster::ranks`].
#[derive(Clone, Copy, Debug)]
pub struct RankId {
    pub index: usize,
    /// The rank fits the class's own shape.
    pub exact: bool,
    /// Its levels are the scores themselves.
    pub scored: bool,
    /// Which copy it is.
    pub copy: usize,
}

/// Placement, partition key, shape, and which copy: the first is everybody's, workers of a round that need the same rank
/// at the same time have others.
pub(super) type RankKey = (u32, Option<KeyId>, Option<u32>, usize);

impl Cluster {
    /// The rank to decide a class from; [`Cluster::sync`] brings it up to date.
    pub(super) fn rank(
        &mut self,
        placement: u32,
        key: Option<KeyId>,
        shape: u32,
        copy: usize,
    ) -> RankId {
        self.decisions += 1;
        let profile = self.placements[placement as usize].key.profile;
        let scored = self.profiles[profile.0 as usize].top <= TOP as i64;
        let state = &mut self.shapes[shape as usize];
        state.decisions = state.decisions.saturating_add(1);
        let pays = state.decisions > SHAPE_PAYS_AFTER;
        let own = (placement, key, Some(shape), copy);
        let exact = match self.rank_ids.get(&own) {
            Some(index) => Some(*index),
            None if pays => self.shape_rank(own),
            None => None,
        };
        let id = match exact {
            Some(index) => RankId {
                index,
                exact: true,
                scored,
                copy,
            },
            None => {
                let shared = (placement, key, None, copy);
                let known = self.rank_ids.get(&shared).copied();
                RankId {
                    index: known.unwrap_or_else(|| self.shared_rank(shared)),
                    exact: false,
                    scored: false,
                    copy,
                }
            }
        };
        self.ranks[id.index].used = self.decisions;
        id
    }

    /// Whether a rank is still one of this placement, key and shape.
    pub(super) fn is_rank_of(
        &self,
        id: RankId,
        placement: u32,
        key: Option<KeyId>,
        shape: u32,
    ) -> bool {
        let key = (placement, key, id.exact.then_some(shape), id.copy);
        self.rank_ids.get(&key) == Some(&id.index)
    }

    /// A new shared rank, in place of the one unused for longest if there are many.
    fn shared_rank(&mut self, key: RankKey) -> usize {
        let idle = self
            .shared_ranks
            .iter()
            .enumerate()
            .min_by_key(|(_, (_, index))| self.ranks[*index].used);
        let index = match idle {
            Some((slot, (_, index))) if self.shared_ranks.len() >= MOST_SHARED_RANKS => {
                let index = *index;
                let (old, _) = std::mem::replace(&mut self.shared_ranks[slot], (key, index));
                self.rank_ids.remove(&old);
                self.ranks[index] = Rank::new(key.1);
                index
            }
            _ => {
                self.ranks.push(Rank::new(key.1));
                self.shared_ranks.push((key, self.ranks.len() - 1));
                self.ranks.len() - 1
            }
        };
        self.rank_ids.insert(key, index);
        index
    }

    /// A new rank for one shape, if there is room for it or one that is idle.
    fn shape_rank(&mut self, key: RankKey) -> Option<usize> {
        let fresh = Rank::new(key.1);
        let index = if self.shape_ranks.len() < MOST_SHAPE_RANKS {
            self.ranks.push(fresh);
            self.shape_ranks.push((key, self.ranks.len() - 1));
            self.ranks.len() - 1
        } else {
            let (slot, (_, index)) = self
                .shape_ranks
                .iter()
                .enumerate()
                .min_by_key(|(_, (_, index))| self.ranks[*index].used)?;
            let index = *index;
            if self.ranks[index].used + RANK_IDLE > self.decisions {
                return None;
            }
            let (old, _) = std::mem::replace(&mut self.shape_ranks[slot], (key, index));
            self.rank_ids.remove(&old);
            self.ranks[index] = fresh;
            index
        };
        self.rank_ids.insert(key, index);
        Some(index)
    }

    /// What a rank of the placement reads.
    pub(super) fn view<'a>(
        &'a self,
        seats: Seats<'a>,
        id: RankId,
        placement: u32,
        shape: u32,
    ) -> View<'a> {
        let state = &self.placements[placement as usize];
        View {
            seats,
            topology: &self.topology,
            allowed: &state.allowed,
            statics: &state.statics,
            limits: state.limits,
            shape: if id.exact {
                &self.shapes[shape as usize].shape
            } else {
                &self.no_shape
            },
            rules: &self.profiles[state.key.profile.0 as usize],
        }
    }

    /// Brings a rank up to date.
    pub(super) fn sync(&mut self, id: RankId, placement: u32, shape: u32) {
        // Out of the array while it is looked at: what it reads is all around.
        let mut rank = std::mem::replace(&mut self.ranks[id.index], Rank::new(None));
        let view = self.view(self.nodes.seats(), id, placement, shape);
        let version = self.placements[placement as usize].version;
        rank.catch_up(&view, &self.log, self.log_start, version);
        self.ranks[id.index] = rank;
    }

    /// Scores of preferred node affinity and PreferNoSchedule taints, normalised over the allowed nodes.
    pub(super) fn refresh_statics(&mut self, placement: u32) {
        self.count_devices();
        let state = &mut self.placements[placement as usize];
        if !std::mem::take(&mut state.stale) {
            return;
        }
        let rules = &self.profiles[state.key.profile.0 as usize];
        let (fresh, extremes) = statics(state, &self.nodes, &self.compiler, rules);
        state.extremes = extremes;
        if fresh != state.statics {
            state.statics = fresh;
            state.version += 1;
        }
    }
}

/// Whether a placement allows a node: it is there, takes pods, its taints are tolerated and it is selected.
pub fn allows(key: &Placement, nodes: &Nodes, node: u32, compiler: &Compiler) -> bool {
    let node = &nodes.all[node as usize];
    node.known
        && (!node.unschedulable || tolerates_unschedulable(key, compiler))
        && key.tolerates(&node.taints)
        && key.features.without(node.features).is_empty()
        && key.selects(node.name, &node.labels, &compiler.symbols)
        && key.added_selects(node.name, &node.labels, &compiler.symbols)
        && key
            .refused(node.name, &node.labels, &compiler.symbols)
            .is_none()
}

/// Whether the placement tolerates the taint that stands for `spec.unschedulable`.
pub fn tolerates_unschedulable(key: &Placement, compiler: &Compiler) -> bool {
    use super::request::Effect;
    key.tolerations.iter().any(|t| {
        t.effect.is_none_or(|e| e == Effect::NoSchedule)
            && t.key
                .is_none_or(|k| compiler.symbols.text(k) == "node.kubernetes.io/unschedulable")
            && t.value.is_none_or(|v| compiler.symbols.text(v).is_empty())
    })
}

fn statics(
    state: &PlacementState,
    nodes: &Nodes,
    compiler: &Compiler,
    rules: &Rules,
) -> (Vec<u16>, [i64; 3]) {
    if !state.key.prefers() && nodes.disliked == 0 {
        return (Vec::new(), [0; 3]);
    }
    let mut raw = vec![[0; 3]; nodes.slots()];
    let named = state
        .pins
        .iter()
        .flatten()
        .filter_map(|name| nodes.find(*name));
    let named = named.filter(|node| allows(&state.key, nodes, node.0, compiler));
    for at in state
        .allowed
        .iter()
        .chain(named.map(|node| node.0 as usize))
    {
        let node = &nodes.all[at];
        raw[at] = raw_statics(&state.key, node, compiler);
    }
    let extreme = |i: usize| {
        raw.iter()
            .map(|r: &[i64; 3]| r[i])
            .max()
            .unwrap_or_default()
    };
    let extremes = [0, 1, 2].map(extreme);
    if extremes == [0; 3] {
        return (Vec::new(), extremes);
    }
    let score = |raw: [i64; 3]| {
        let scores = static_scores(raw, extremes);
        let weights = STATIC_RULES.map(|rule| rules.weight(rule));
        let sum: i64 = scores.iter().zip(weights).map(|(s, w)| s * w).sum();
        u16::try_from(sum).unwrap_or(u16::MAX)
    };
    (raw.into_iter().map(score).collect(), extremes)
}

/// The rules that look at nothing but the node, in the order of [`static_scores`].
pub const STATIC_RULES: [Rule; 3] = [Rule::NodeAffinity, Rule::Taints, Rule::Policy];

/// What [`static_scores`] are made of: preference, disliked taints, what policies like.
#[must_use]
pub fn raw_statics(key: &Placement, node: &Node, compiler: &Compiler) -> [i64; 3] {
    let symbols = &compiler.symbols;
    [
        key.preference(node.name, &node.labels, symbols),
        key.disliked(&node.taints),
        key.policy_preference(node.name, &node.labels, symbols),
    ]
}

/// The scores of a node by [`STATIC_RULES`], 0 to 100 each: what it has against the most among all nodes.
#[must_use]
pub fn static_scores(raw: [i64; 3], extremes: [i64; 3]) -> [i64; 3] {
    let share = |i: usize| {
        if extremes[i] == 0 {
            0
        } else {
            raw[i] * 100 / extremes[i]
        }
    };
    [share(0), 100 - share(1), share(2)]
}
