//! Dynamic resource allocation (KEP-4381, structured parameters): which devices drivers offer (ResourceSlices), which
//! of them are taken (allocated ResourceClaims), and which a pod's claims would get on a node.
//!
//! What was allocated for a decided pod is *assumed* here until the API shows it, so that no device is given away twice.
//! Rules and words follow Kubernetes' DynamicResources plugin and its allocator of structured parameters; what was read
//! of them is not tied to one release. Not supported: attributes that are lists in constraints (never equal),
//! DeviceTaintRules (both are off by default in 1.36).

mod allocate;
mod capacity;
mod claim;
mod extended;
mod needs;
mod select;
mod slice;
mod totals;

use super::symbols::{Symbol, Symbols};
use capacity::{Held, Taken};
use claim::{Claim, Class};
pub use claim::{Readiness, how_ready};
pub use extended::{ANNOTATION, Container, Extended, Want, is_name};
use gantry_machinery::cel::Program;
use k8s_openapi::api::core::v1::ContainerExtendedResourceRequest;
use k8s_openapi::api::resource::v1 as k8s;
pub use needs::{DeviceNeeds, Misfit};
use rustc_hash::{FxHashMap, FxHashSet};
use slice::{Pool, PoolKey, Slice};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps a claim from being deleted while it is allocated.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Pods that one claim can be reserved for.
const MOST_CONSUMERS: usize = 256;
/// Devices of one claim.
const MOST_RESULTS: usize = 32;

/// A device: driver, pool, name.
type DeviceKey = (Symbol, Symbol, Symbol);

/// The claims of a pod.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PodClaims {
    pub uid: Arc<str>,
    /// `namespace/name` of the pod.
    pub pod: Arc<str>,
    pub claims: Vec<PodClaim>,
}

/// What a pod wants of devices.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub claims: Option<&'a PodClaims>,
    /// Resources that classes may stand for.
    pub extended: Option<&'a Extended>,
    pub namespace: &'a str,
    /// Of the pod; empty while only a node is looked for.
    pub uid: &'a str,
}

/// One claim of a pod.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PodClaim {
    /// Named by the pod: `namespace/name`.
    Named(Symbol),
    /// Made for the pod from a template.
    Made(Symbol),
    /// To be made from a template, and not there yet.
    Awaited,
}

/// What is to be written before a pod with claims is bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// What the claim gets; `None` if it is allocated already and only to be reserved for the pod.
    pub allocation: Option<k8s::AllocationResult>,
    /// Its devices are not ready for a pod before their drivers say so.
    pub waits: bool,
    /// The claim is to be made first, and has no name and no uid before.
    pub made: Option<Made>,
}

/// A claim for the extended resources of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    pub requests: Vec<k8s::DeviceRequest>,
    /// Which container uses which of them.
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

/// A claim that could be allocated elsewhere, since nobody uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleClaim {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub version: String,
}

/// What was decided for a claim and is not yet seen.
struct Assumed {
    pod: Arc<str>,
    node: Symbol,
    held: Vec<Held>,
}

/// A selector, or what is wrong with it.
type Compiled = Arc<Result<Program, String>>;
type Verdicts = Arc<[Result<bool, Arc<str>>]>;

/// All that is known of devices and claims to them.
#[derive(Default)]
pub struct Devices {
    claims: FxHashMap<Symbol, Claim>,
    classes: FxHashMap<Symbol, Class>,
    pools: BTreeMap<PoolKey, Pool>,
    /// The pool of each slice, by the slice's name.
    slices: FxHashMap<String, PoolKey>,
    /// Pools with devices of one node, and with devices that several can reach.
    local: FxHashMap<Symbol, BTreeSet<PoolKey>>,
    wide: BTreeSet<PoolKey>,
    taken: Taken,
    assumed: FxHashMap<Symbol, Assumed>,
    /// The same of claims that are still to be made, by the uid of the pod.
    special: FxHashMap<Arc<str>, Vec<Held>>,
    /// Claims that were made for extended resources, by the uid of the pod.
    specials: FxHashMap<String, Symbol>,
    /// Extended resources, by which class stands for them.
    extended: FxHashMap<Symbol, Symbol>,
    /// That has changed.
    remapped: bool,
    /// By pod: what is to be written for it.
    grants: FxHashMap<Arc<str>, Vec<Grant>>,
    /// The number of the next slice: what selectors say of a slice is known by it.
    next: u64,
    programs: Mutex<FxHashMap<Arc<str>, Compiled>>,
    verdicts: Mutex<FxHashMap<(u64, Arc<str>), Verdicts>>,
    words: Mutex<Words>,
    stale: totals::Stale,
}

/// Messages, by number. They name pods and claims: the oldest are forgotten, long after they were told.
#[derive(Default)]
struct Words {
    by_text: FxHashMap<Arc<str>, u32>,
    texts: VecDeque<Arc<str>>,
    /// The number of the oldest that is kept.
    first: u32,
}

impl Words {
    fn number(&mut self, text: String) -> u32 {
        if let Some(known) = self.by_text.get(&*text) {
            return *known;
        }
        if self.texts.len() >= MOST_WORDS
            && let Some(oldest) = self.texts.pop_front()
        {
            self.by_text.remove(&oldest);
            self.first = self.first.wrapping_add(1);
        }
        let after = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let number = self.first.wrapping_add(after);
        let text: Arc<str> = text.into();
        self.texts.push_back(text.clone());
        self.by_text.insert(text, number);
        number
    }

    fn text(&self, number: u32) -> Option<&Arc<str>> {
        self.texts.get(number.wrapping_sub(self.first) as usize)
    }
}

/// Answers of selectors kept; beyond, all are forgotten.
const MOST_VERDICTS: usize = 1 << 17;
/// Selectors kept that were read; beyond, all are forgotten.
const MOST_PROGRAMS: usize = 1 << 12;
/// Messages kept: more than there are pods that wait for devices at once.
const MOST_WORDS: usize = 1 << 16;

impl Devices {
    /// A claim came or changed. Returns whether that may let a pod fit.
    pub fn set_claim(&mut self, claim: &k8s::ResourceClaim, symbols: &mut Symbols) -> bool {
        let key = symbols.intern(&key(&claim.metadata));
        let fresh = Claim::compile(claim, symbols);
        if fresh.allocation.is_some() {
            self.let_go(key);
        }
        if let Some(owner) = fresh.owner.as_ref().filter(|_| fresh.special) {
            self.specials.insert(owner.clone(), key);
            if fresh.allocation.is_some() {
                let owner: &str = owner;
                if let Some(held) = self.special.remove(owner) {
                    self.give_back(&held);
                }
            }
        }
        let old = self.claims.remove(&key);
        if let Some(allocation) = old.as_ref().and_then(|c| c.allocation.as_ref()) {
            self.give_back(&allocation.held);
        }
        if let Some(allocation) = &fresh.allocation {
            self.take(&allocation.held);
        }
        let changed = old.is_none_or(|old| old.tells_apart(&fresh));
        self.claims.insert(key, fresh);
        changed
    }

    /// A claim went.
    pub fn remove_claim(&mut self, namespace: &str, name: &str, symbols: &Symbols) -> bool {
        let Some(key) = symbols.known(&format!("{namespace}/{name}")) else {
            return false;
        };
        self.let_go(key);
        let Some(old) = self.claims.remove(&key) else {
            return false;
        };
        if let Some(allocation) = &old.allocation {
            self.give_back(&allocation.held);
        }
        let owner = old.owner.filter(|_| old.special);
        if let Some(owner) = owner.filter(|owner| self.specials.get(owner) == Some(&key)) {
            self.specials.remove(&owner);
        }
        true
    }

    /// The claim that was made for extended resources of a pod, if there is one.
    #[must_use]
    pub fn special_of(&self, pod: &str) -> Option<IdleClaim> {
        let claim = self.claims.get(self.specials.get(pod)?)?;
        Some(IdleClaim {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            version: claim.version.clone(),
        })
    }

    /// A class came or changed.
    pub fn set_class(&mut self, class: &k8s::DeviceClass, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(class.metadata.name.as_deref().unwrap_or_default());
        let fresh = Class::compile(class, symbols);
        let changed = self.classes.get(&name) != Some(&fresh);
        self.classes.insert(name, fresh);
        self.remap();
        changed
    }

    /// A class went.
    pub fn remove_class(&mut self, name: &str, symbols: &Symbols) -> bool {
        let name = symbols.known(name);
        let gone = name.is_some_and(|name| self.classes.remove(&name).is_some());
        self.remap();
        gone
    }

    /// Finds anew which class stands for which extended resource: of two the younger, of two of the same age the first
    /// by name.
    fn remap(&mut self) {
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by(|(_, a), (_, b)| a.created.cmp(&b.created).then(b.name.cmp(&a.name)));
        let mut extended = FxHashMap::default();
        for (id, class) in classes {
            extended.extend(class.resources.iter().map(|resource| (*resource, *id)));
        }
        self.remapped |= extended != self.extended;
        self.stale.everywhere();
        self.extended = extended;
    }

    /// The extended resources that classes stand for, if that has changed since they were last asked for.
    pub fn take_remapped(&mut self) -> Option<FxHashSet<Symbol>> {
        let resources = || self.extended.keys().copied().collect();
        std::mem::take(&mut self.remapped).then(resources)
    }

    /// Whether classes stand for something of this.
    #[must_use]
    pub fn serves(&self, extended: &Extended) -> bool {
        !self.extended.is_empty()
            && extended
                .resources
                .iter()
                .any(|r| self.extended.contains_key(r))
    }

    /// A slice came or changed.
    pub fn set_slice(&mut self, slice: &k8s::ResourceSlice, symbols: &mut Symbols) -> bool {
        let name = slice.metadata.name.clone().unwrap_or_default();
        self.next += 1;
        let fresh = Arc::new(Slice::compile(slice, self.next, symbols));
        let pool = PoolKey::of(slice);
        if let Some(old) = self.slices.insert(name.clone(), pool.clone()) {
            if old == pool
                && let Some(there) = self.pools.get(&pool)
                && there.slices.get(&name).is_some_and(|old| old.same(&fresh))
            {
                return false;
            }
            self.take_from_pool(&old, &name);
        }
        self.change_pool(&pool, |pool| {
            pool.slices.insert(name, fresh);
        });
        true
    }

    /// A slice went.
    pub fn remove_slice(&mut self, name: &str) -> bool {
        let Some(pool) = self.slices.remove(name) else {
            return false;
        };
        self.take_from_pool(&pool, name);
        true
    }

    fn take_from_pool(&mut self, key: &PoolKey, name: &str) {
        self.change_pool(key, |pool| {
            pool.slices.remove(name);
        });
        if self.pools.get(key).is_some_and(|p| p.slices.is_empty()) {
            self.pools.remove(key);
        }
    }

    fn change_pool(&mut self, key: &PoolKey, change: impl FnOnce(&mut Pool)) {
        let pool = self.pools.entry(key.clone()).or_default();
        self.stale.nodes(&pool.nodes);
        let mut wide = pool.wide;
        for node in &pool.nodes {
            if let Some(pools) = self.local.get_mut(node) {
                pools.remove(key);
                if pools.is_empty() {
                    self.local.remove(node);
                }
            }
        }
        self.wide.remove(key);
        change(pool);
        pool.settle();
        for node in &pool.nodes {
            self.local.entry(*node).or_default().insert(key.clone());
        }
        if pool.wide {
            self.wide.insert(key.clone());
        }
        self.stale.nodes(&pool.nodes);
        wide |= pool.wide;
        if wide {
            self.stale.everywhere();
        }
    }

    // Decisions.

    /// Holds devices for a pod that was decided for a node, and notes what is to be written for it. Returns whether they
    /// can be served there (still).
    pub fn assume(&mut self, of: Wanted<'_>, node: &super::nodes::Node, symbols: &Symbols) -> bool {
        let pod: Arc<str> = of
            .claims
            .map_or_else(|| of.uid.into(), |claims| claims.uid.clone());
        self.release(&pod);
        let needs = self.needs(of, symbols);
        if needs.blocked().is_some() {
            return false;
        }
        let Ok(granted) = needs.grant(node, symbols) else {
            return false;
        };
        let mut grants = Vec::new();
        for (key, grant, held) in granted {
            if grant.allocation.is_some() {
                self.take(&held);
                match key {
                    Some(key) => {
                        let (pod, node) = (pod.clone(), node.name);
                        self.assumed.insert(key, Assumed { pod, node, held });
                    }
                    None => {
                        self.special.insert(pod.clone(), held);
                    }
                }
            }
            grants.push(grant);
        }
        self.grants.insert(pod, grants);
        true
    }

    /// What is to be written for a pod that was decided.
    #[must_use]
    pub fn grants(&self, pod: &str) -> Option<&[Grant]> {
        self.grants.get(pod).map(Vec::as_slice)
    }

    /// Takes what is to be written for a pod. From then on it is held, whatever becomes of the pod, until its claims show
    /// it or [`Devices::unwritten`] says that they never will.
    pub fn send(&mut self, pod: &str) -> Vec<Grant> {
        self.grants.remove(pod).unwrap_or_default()
    }

    /// These grants of a pod were not written. Returns whether anything was held for them.
    pub fn unwritten(&mut self, pod: &str, grants: &[Grant], symbols: &Symbols) -> bool {
        let mut any = false;
        for grant in grants {
            if grant.made.is_some() {
                any |= self.let_special_go(pod);
                continue;
            }
            let key = symbols.known(&format!("{}/{}", grant.namespace, grant.name));
            let ours = |key: &Symbol| self.assumed.get(key).is_some_and(|a| &*a.pod == pod);
            if let Some(key) = key.filter(ours) {
                self.let_go(key);
                any = true;
            }
        }
        any
    }

    /// The pod is not to be bound after all. Returns whether anything was held for it that is not being written.
    pub fn release(&mut self, pod: &str) -> bool {
        if self.grants.remove(pod).is_none() {
            return false;
        }
        let held = self.assumed.iter().filter(|(_, a)| &*a.pod == pod);
        let held: Vec<Symbol> = held.map(|(key, _)| *key).collect();
        for key in held {
            self.let_go(key);
        }
        self.let_special_go(pod);
        true
    }

    fn let_special_go(&mut self, pod: &str) -> bool {
        let held = self.special.remove(pod);
        if let Some(held) = &held {
            self.give_back(held);
        }
        held.is_some()
    }

    fn let_go(&mut self, claim: Symbol) {
        if let Some(assumed) = self.assumed.remove(&claim) {
            self.give_back(&assumed.held);
        }
    }

    fn take(&mut self, held: &[Held]) {
        self.stale.held(held);
        self.taken.add(held);
    }

    fn give_back(&mut self, held: &[Held]) {
        self.stale.held(held);
        self.taken.remove(held);
    }

    /// Nodes that have devices of their own, if there are no others; `None` if any node may be able to reach some.
    #[must_use]
    pub fn nodes_with_devices(&self) -> Option<impl Iterator<Item = Symbol> + '_> {
        self.wide.is_empty().then(|| self.local.keys().copied())
    }

    // Words.

    fn word(&self, text: String) -> u32 {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.number(text)
    }

    /// A message by its number.
    #[must_use]
    pub fn text(&self, word: u32) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.text(word).map(|t| t.to_string()).unwrap_or_default()
    }

    // Selectors.

    /// What a selector says of each device of a slice.
    fn verdicts(&self, slice: &Slice, expression: &Arc<str>) -> Verdicts {
        let key = (slice.number, expression.clone());
        let lock = || self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return known.clone();
        }
        let program = self.program(expression);
        let verdict = |device: &slice::Device| match &*program {
            Ok(program) => device
                .seen
                .selected(program)
                .map_err(|e| format!("CEL runtime error: {e}").into()),
            Err(error) => Err(format!("CEL compile error: {error}").into()),
        };
        let verdicts: Verdicts = slice.devices.iter().map(verdict).collect();
        let mut all = lock();
        if all.len() >= MOST_VERDICTS {
            all.clear();
        }
        all.insert(key, verdicts.clone());
        verdicts
    }

    fn program(&self, expression: &Arc<str>) -> Compiled {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = programs.get(expression) {
            return known.clone();
        }
        if programs.len() >= MOST_PROGRAMS {
            programs.clear();
        }
        let program = Arc::new(select::compile(expression));
        programs.insert(expression.clone(), program.clone());
        program
    }
}

fn key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", text(&meta.namespace), text(&meta.name))
}

/// Devices that are being given to a pod's claims: device, claim.
type InUse = FxHashSet<(DeviceKey, usize)>;

#[cfg(test)]
mod tests;
