//! Elastic quotas: what tenants are guaranteed (`min`), what they may use at most (`max`), and borrowing what others do
//! not use, in trees of any depth. Objects and labels are those of scheduler-plugins and Koordinator
//! (`scheduling.sigs.k8s.io/v1alpha1` ElasticQuota).
//!
//! A pod is *guaranteed* by the first quota on its way up that stays within its own minimum with it. One that no quota
//! on the way guarantees *borrows*: that is allowed while its whole tree uses no more than is guaranteed in it all in
//! all, for as long as its owner does not want it back. No quota may ever pass its maximum.
//!
//! A tenant may have a quota in the tree of every pool of nodes: a tree that has the name of a pool (of a placement policy)
//! counts what is placed there, and where its quota has no place the next pool is tried.
//!
//! Reclaim: for a guaranteed pod that finds no room, pods of quotas that borrow may have to leave, least important
//! first. A quota that is within its minimum loses nothing to others, whatever their priority.

use super::object;
use super::request::{GroupKey, Shape, amount};
use super::symbols::{Symbol, Symbols, value_of};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Label of a pod: the name of its quota, where it is not that of its namespace.
pub const QUOTA_NAME: &str = "quota.scheduling.koordinator.sh/name";
/// Label of a quota: the name of the one above it.
pub const PARENT: &str = "quota.scheduling.koordinator.sh/parent";
/// Label of a quota: `true` if it is only there to be above others.
pub const IS_PARENT: &str = "quota.scheduling.koordinator.sh/is-parent";
/// Label of a quota: the tree it belongs to, one for each pool of nodes.
pub const TREE: &str = "quota.scheduling.koordinator.sh/tree-id";
/// Koordinator's name for the top of a tree, which needs no object.
const ROOT: &str = "koordinator-root-quota";

/// Ancestors looked at, at most: what is deeper goes round in circles.
const DEEPEST: usize = 32;

/// Amounts by resource, sorted; CPU in millicores.
pub type Amounts = Vec<(Symbol, i64)>;

fn of(amounts: &[(Symbol, i64)], resource: Symbol) -> Option<i64> {
    let found = amounts.iter().find(|(name, _)| *name == resource);
    found.map(|(_, amount)| *amount)
}

/// A quota.
#[derive(Clone, Debug)]
pub struct Quota {
    pub name: Symbol,
    namespace: Symbol,
    parent_name: Option<Symbol>,
    parent: Option<u32>,
    tree: Option<Symbol>,
    holds_pods: bool,
    min: Amounts,
    max: Amounts,
    used: Amounts,
    /// Pods that count in it, by priority.
    pods: BTreeMap<i32, u32>,
}

/// What a pod would be in its quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Within what it is guaranteed, in all resources.
    Guaranteed,
    /// Beyond that, of what others do not use.
    Borrows,
    /// A quota on its way up would pass its maximum of a resource.
    Over(u32, Symbol),
    /// Its quota has used what it is guaranteed of a resource, and nothing is left to borrow.
    NothingToBorrow(u32, Symbol),
}

/// A change that holds once [`Cluster::settle_rules`] is called: until then classes speak of quotas by their places.
enum Later {
    Set(Box<object::ElasticQuota>),
    Remove(String, String),
}

/// All quotas.
#[derive(Default)]
pub struct Quotas {
    later: Vec<Later>,
    all: Vec<Quota>,
    by_name: FxHashMap<Symbol, u32>,
    /// The quota of pods that name none, by namespace.
    by_namespace: FxHashMap<Symbol, u32>,
    /// The same, by namespace and tree.
    by_tree: FxHashMap<(Symbol, Symbol), u32>,
    words: Option<Words>,
}

/// Names that are read, as symbols.
#[derive(Clone, Copy)]
struct Words {
    quota_name: Symbol,
    cpu: Symbol,
    memory: Symbol,
    storage: Symbol,
    pods: Symbol,
}

impl Words {
    fn new(symbols: &mut Symbols) -> Self {
        Self {
            quota_name: symbols.intern(QUOTA_NAME),
            cpu: symbols.intern("cpu"),
            memory: symbols.intern("memory"),
            storage: symbols.intern("ephemeral-storage"),
            pods: symbols.intern("pods"),
        }
    }
}

impl Quotas {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A quota came or changed. Returns whether it says something new: usage is to be counted anew then.
    pub fn set(&mut self, quota: &object::ElasticQuota, symbols: &mut Symbols) -> bool {
        self.words.get_or_insert_with(|| Words::new(symbols));
        let meta = &quota.metadata;
        let label = |key: &str| meta.labels.as_ref().and_then(|l| l.get(key));
        let amounts = |map: &BTreeMap<String, _>, symbols: &mut Symbols| {
            let mut all: Amounts = map
                .iter()
                .map(|(name, quantity)| (symbols.intern(name), amount(name, quantity)))
                .collect();
            all.sort_unstable();
            all
        };
        let parent_name = label(PARENT).filter(|p| !p.is_empty() && *p != ROOT);
        let quota = Quota {
            name: symbols.intern(meta.name.as_deref().unwrap_or_default()),
            namespace: symbols.intern(meta.namespace.as_deref().unwrap_or_default()),
            parent_name: parent_name.map(|p| symbols.intern(p)),
            parent: None,
            tree: label(TREE).map(|t| symbols.intern(t)),
            holds_pods: label(IS_PARENT).is_none_or(|l| l != "true"),
            min: amounts(&quota.spec.min, symbols),
            max: amounts(&quota.spec.max, symbols),
            used: Amounts::new(),
            pods: BTreeMap::new(),
        };
        let same = |q: &Quota| (q.namespace, q.name) == (quota.namespace, quota.name);
        let says = |q: &Quota| {
            let (min, max) = (q.min.clone(), q.max.clone());
            (q.parent_name, q.tree, q.holds_pods, min, max)
        };
        let old = self.all.iter().find(|q| same(q));
        if old.is_some_and(|old| says(old) == says(&quota)) {
            return false;
        }
        self.all.retain(|q| !same(q));
        self.all.push(quota);
        self.link(symbols);
        true
    }

    /// A quota went. Returns whether it was there: usage is to be counted anew then.
    pub fn remove(&mut self, namespace: &str, name: &str, symbols: &Symbols) -> bool {
        let key = symbols.known(namespace).zip(symbols.known(name));
        let before = self.all.len();
        self.all.retain(|q| Some((q.namespace, q.name)) != key);
        self.link(symbols);
        self.all.len() != before
    }

    /// Finds parents and the quotas of namespaces.
    fn link(&mut self, symbols: &Symbols) {
        self.all
            .sort_by(|a, b| symbols.text(a.name).cmp(symbols.text(b.name)));
        self.by_name.clear();
        self.by_namespace.clear();
        self.by_tree.clear();
        for (at, quota) in (0..).zip(&self.all) {
            self.by_name.entry(quota.name).or_insert(at);
            if quota.holds_pods {
                self.by_namespace.entry(quota.namespace).or_insert(at);
                if let Some(tree) = quota.tree {
                    self.by_tree.entry((quota.namespace, tree)).or_insert(at);
                }
            }
        }
        for at in 0..self.all.len() {
            let parent = self.all[at].parent_name;
            let found = parent.and_then(|name| self.by_name.get(&name).copied());
            self.all[at].parent = found.filter(|p| *p as usize != at);
        }
    }

    /// The quota of a pod.
    #[must_use]
    pub fn of(&self, group: &GroupKey) -> Option<u32> {
        let words = self.words?;
        let named = value_of(&group.labels, words.quota_name);
        named
            .and_then(|name| self.by_name.get(&name))
            .or_else(|| self.by_namespace.get(&group.namespace))
            .copied()
    }

    /// The quota of a pod in a pool: unless it names one, that of its namespace in the pool's tree.
    #[must_use]
    pub fn of_pool(&self, group: &GroupKey, pool: Symbol) -> Option<u32> {
        let named = value_of(&group.labels, self.words?.quota_name);
        let own = self.by_tree.get(&(group.namespace, pool)).copied();
        let own = own.filter(|_| named.is_none_or(|name| !self.by_name.contains_key(&name)));
        own.or_else(|| self.of(group))
    }

    /// What a pod takes of its quota.
    #[must_use]
    pub fn takes(&self, shape: &Shape) -> Amounts {
        let Some(words) = self.words else {
            return Amounts::new();
        };
        let base = [
            (words.cpu, shape.base.cpu),
            (words.memory, shape.base.memory),
            (words.storage, shape.base.storage),
            (words.pods, 1),
        ];
        let all = base.into_iter().chain(shape.other.iter().copied());
        all.filter(|(_, amount)| *amount > 0).collect()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self, quota: u32) -> Symbol {
        self.all[quota as usize].name
    }

    /// The quota and those above it.
    fn up(&self, from: u32) -> impl Iterator<Item = u32> + '_ {
        let next = |at: &u32| self.all[*at as usize].parent;
        std::iter::successors(Some(from), next).take(DEEPEST)
    }

    /// Books a pod of this priority (`sign` 1), or takes it off (-1), in its quota and all above.
    pub fn book(&mut self, quota: u32, priority: i32, takes: &[(Symbol, i64)], sign: i64) {
        let path: Vec<u32> = self.up(quota).collect();
        for at in path {
            let quota = &mut self.all[at as usize];
            let pods = quota.pods.entry(priority).or_default();
            *pods = if sign < 0 {
                pods.saturating_sub(1)
            } else {
                *pods + 1
            };
            if *pods == 0 {
                quota.pods.remove(&priority);
            }
            let used = &mut quota.used;
            for (resource, amount) in takes {
                match used.iter_mut().find(|(name, _)| name == resource) {
                    Some(slot) => slot.1 += sign * amount,
                    None => used.push((*resource, sign * amount)),
                }
            }
        }
    }

    /// Forgets what is used, to be counted anew.
    pub fn forget_usage(&mut self) {
        for quota in &mut self.all {
            quota.used.clear();
            quota.pods.clear();
        }
    }

    /// What a pod that takes this would be in its quota.
    #[must_use]
    pub fn verdict(&self, quota: u32, takes: &[(Symbol, i64)]) -> Verdict {
        let mut verdict = Verdict::Guaranteed;
        for (resource, wanted) in takes {
            for at in self.up(quota) {
                let q = &self.all[at as usize];
                let used = of(&q.used, *resource).unwrap_or(0);
                if of(&q.max, *resource).is_some_and(|max| used + wanted > max) {
                    return Verdict::Over(at, *resource);
                }
            }
        }
        for (resource, wanted) in takes {
            match self.guarantor(quota, *resource, *wanted) {
                Some(true) => {}
                // Nobody guarantees anything of it to anybody: only maxima count.
                None => {}
                Some(false) => {
                    let (used, guaranteed) = self.of_tree(quota, *resource);
                    if used + wanted > guaranteed {
                        return Verdict::NothingToBorrow(quota, *resource);
                    }
                    verdict = Verdict::Borrows;
                }
            }
        }
        verdict
    }

    /// Everything that a verdict has against a pod that takes this, and not only the first: by how much too little of a
    /// resource there is, and how much of it is asked for.
    #[must_use]
    pub fn lacking(&self, quota: u32, takes: &[(Symbol, i64)]) -> Vec<(Verdict, i64, i64)> {
        let mut all = Vec::new();
        for (resource, wanted) in takes {
            let beyond = |at: u32, bounds: &Amounts| {
                let used = of(&self.all[at as usize].used, *resource).unwrap_or(0);
                of(bounds, *resource).map(|bound| used + wanted - bound)
            };
            let mut over = false;
            for at in self.up(quota) {
                let missing = beyond(at, &self.all[at as usize].max).unwrap_or(0);
                if missing > 0 {
                    over = true;
                    all.push((Verdict::Over(at, *resource), missing, *wanted));
                }
            }
            if over || self.guarantor(quota, *resource, *wanted) != Some(false) {
                continue;
            }
            let (used, guaranteed) = self.of_tree(quota, *resource);
            let borrowed = used + wanted - guaranteed;
            if borrowed > 0 {
                // Less of it could be guaranteed, or borrowed, whichever is more.
                let of_min = self.up(quota);
                let of_min = of_min.filter_map(|at| beyond(at, &self.all[at as usize].min));
                let missing = of_min.chain([borrowed]).min().unwrap_or(borrowed);
                let verdict = Verdict::NothingToBorrow(quota, *resource);
                all.push((verdict, missing, *wanted));
            }
        }
        all
    }

    /// Whether a quota on the way up guarantees so much more of a resource. `None`: the tree guarantees none of it.
    fn guarantor(&self, quota: u32, resource: Symbol, wanted: i64) -> Option<bool> {
        let guarantees = |at: u32| {
            let q = &self.all[at as usize];
            let used = of(&q.used, resource).unwrap_or(0);
            of(&q.min, resource).is_some_and(|min| used + wanted <= min)
        };
        if self.up(quota).any(guarantees) {
            return Some(true);
        }
        let (_, guaranteed) = self.of_tree(quota, resource);
        (guaranteed > 0).then_some(false)
    }

    /// What the tree of a quota uses of a resource, and what is guaranteed in it, all in all.
    fn of_tree(&self, quota: u32, resource: Symbol) -> (i64, i64) {
        let tree = self
            .up(quota)
            .last()
            .and_then(|at| self.all[at as usize].tree);
        let mut sum = (0, 0);
        for root in self
            .all
            .iter()
            .filter(|q| q.parent.is_none() && q.tree == tree)
        {
            sum.0 += of(&root.used, resource).unwrap_or(0);
            sum.1 += of(&root.min, resource).unwrap_or(0);
        }
        sum
    }

    /// Whether the quota uses more than it is guaranteed of one of these resources, among those that are guaranteed to
    /// anybody.
    fn exceeds(&self, quota: u32, takes: &[(Symbol, i64)]) -> bool {
        let q = &self.all[quota as usize];
        takes.iter().any(|(resource, _)| {
            let used = of(&q.used, *resource).unwrap_or(0);
            used > of(&q.min, *resource).unwrap_or(0) && self.of_tree(quota, *resource).1 > 0
        })
    }

    /// Whether a pod of `victim` may have to leave for one of `claimant` that is guaranteed what it `wants`: its quota
    /// borrows, and so does the largest part of the tree that holds it and not the claimant. Quotas of different trees
    /// have nothing to do with each other.
    #[must_use]
    pub fn reclaims(&self, claimant: u32, wants: &[(Symbol, i64)], victim: u32) -> bool {
        let above: Vec<u32> = self.up(claimant).collect();
        if above.contains(&victim) {
            return false;
        }
        let path: Vec<u32> = self
            .up(victim)
            .take_while(|at| !above.contains(at))
            .collect();
        let Some(top) = path.last() else {
            return false;
        };
        let root = |path: &[u32], of: u32| {
            let last = path.last().copied().unwrap_or(of);
            let last = self.up(last).last().unwrap_or(last);
            self.all[last as usize].tree
        };
        root(&above, claimant) == root(&path, victim)
            && self.exceeds(victim, wants)
            && self.exceeds(*top, wants)
    }

    /// Whether a pod of the quota may lose its place to one of another quota, or of none, by priority alone: only what
    /// is borrowed can be lost so.
    #[must_use]
    pub fn is_open(&self, victim: u32, takes: &[(Symbol, i64)], claimant: Option<u32>) -> bool {
        let guarded = |(resource, _): &(Symbol, i64)| self.of_tree(victim, *resource).1 > 0;
        claimant == Some(victim) || !takes.iter().any(guarded) || self.exceeds(victim, takes)
    }

    /// The top of the tree that a quota is in.
    fn top(&self, quota: u32) -> u32 {
        self.up(quota).last().unwrap_or(quota)
    }

    /// Whether the going of a pod of `victim` makes room where a verdict found none: it counts in the quota that is full,
    /// or in the tree of which nothing is left to borrow.
    #[must_use]
    pub fn relieves(&self, verdict: Verdict, victim: u32) -> bool {
        match verdict {
            Verdict::Guaranteed | Verdict::Borrows => false,
            Verdict::Over(full, _) => self.up(victim).any(|at| at == full),
            Verdict::NothingToBorrow(quota, _) => {
                let tree = |at: u32| self.all[self.top(at) as usize].tree;
                tree(victim) == tree(quota)
            }
        }
    }

    /// Whether there are pods of lower priority whose going would do so.
    #[must_use]
    pub fn may_yield(&self, verdict: Verdict, priority: i32) -> bool {
        let lower = |quota: &Quota| quota.pods.keys().next().is_some_and(|p| *p < priority);
        match verdict {
            Verdict::Guaranteed | Verdict::Borrows => false,
            Verdict::Over(full, _) => lower(&self.all[full as usize]),
            Verdict::NothingToBorrow(quota, _) => {
                let tree = self.all[self.top(quota) as usize].tree;
                let mut tops = self
                    .all
                    .iter()
                    .filter(|q| q.parent.is_none() && q.tree == tree);
                tops.any(lower)
            }
        }
    }

    /// Whether some tree is that of a pool.
    #[must_use]
    pub fn by_pool(&self) -> bool {
        !self.by_tree.is_empty()
    }
}

mod cluster;
mod words;

pub use words::amount_text;
#[cfg(test)]
mod tests;
