//! The search for devices: claim by claim, request by request, one device after another, going back where it does not
//! work out. The first solution is taken.

use super::capacity::{Amounts, Held};
use super::claim::{Amount, Ask, Claim};
use super::slice::{Device, Pool, PoolKey, Reach, Slice};
use super::{Devices, InUse, MOST_RESULTS};
use crate::core::nodes::Node;
use crate::core::selector::NAME_FIELD;
use crate::core::symbols::Symbols;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::resource::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};

/// Devices that are tried for one pod on one node. Where Kubernetes bounds the time (`filterTimeout`), this bounds the
/// work, so that the outcome does not depend on the machine.
const MOST_STEPS: usize = 50_000;
/// Alternatives of one request.
const MOST_ALTERNATIVES: i64 = 8;

/// A device that a request can have.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    pool: &'a Pool,
    key: &'a PoolKey,
    slice: &'a Slice,
    device: &'a Device,
}

/// What one request can choose from.
struct Choices<'a> {
    ask: &'a Ask,
    /// In exactly this number; `None`: it cannot be had whatever else is chosen.
    count: Option<usize>,
    candidates: Vec<Candidate<'a>>,
    /// Of candidates of which selectors cannot tell, why: whoever comes to one of them goes no further.
    faults: FxHashMap<usize, String>,
}

/// A device that is given to a request.
#[derive(Clone)]
struct Pick<'a> {
    claim: usize,
    ask: &'a Ask,
    of: Candidate<'a>,
    /// Of a device that several may have: how much of it.
    share: Option<Amounts>,
}

/// The search for one pod on one node.
pub(super) struct Search<'a> {
    of: &'a Devices,
    /// The claims that are to be served.
    pub open: Vec<&'a Claim>,
    node: &'a Node,
    symbols: &'a Symbols,
    in_use: InUse,
    picks: Vec<Pick<'a>>,
    steps: usize,
}

/// By claim, request, alternative.
type Plan<'a> = Vec<Vec<Vec<Choices<'a>>>>;

impl<'a> Search<'a> {
    pub fn new(
        of: &'a Devices,
        open: Vec<&'a Claim>,
        node: &'a Node,
        symbols: &'a Symbols,
    ) -> Self {
        Self {
            of,
            open,
            node,
            symbols,
            in_use: InUse::default(),
            picks: Vec::new(),
            steps: 0,
        }
    }

    /// Whether all open claims can be served; what they get is in [`Search::result`].
    ///
    /// # Errors
    /// Why it cannot be told.
    pub fn run(&mut self) -> Result<bool, String> {
        let pools = self.pools();
        let mut plan: Plan<'a> = Vec::new();
        for claim in &self.open {
            let mut requests = Vec::new();
            let mut least = 0;
            for request in &claim.requests {
                let mut alternatives = Vec::new();
                for ask in request {
                    alternatives.push(self.choices(claim, ask, &pools)?);
                }
                let counts = alternatives.iter().filter_map(|c| c.count);
                let Some(fewest) = counts.min() else {
                    return Ok(false);
                };
                least += fewest;
                requests.push(alternatives);
            }
            if least > MOST_RESULTS {
                return Err(format!(
                    "claim {}: number of requested devices {least} exceeds the claim limit of {MOST_RESULTS}",
                    claim.key()
                ));
            }
            plan.push(requests);
        }
        let found = self.request(&plan, 0, 0)?;
        if !found && pools.iter().any(|(_, pool)| pool.invalid) {
            return Err("invalid resource pools were encountered".to_owned());
        }
        Ok(found)
    }

    /// The pools that the node can reach some of, in the order in which devices are taken of them.
    fn pools(&self) -> Vec<(&'a PoolKey, &'a Pool)> {
        let of = self.of;
        let local = of.local.get(&self.node.name).into_iter().flatten();
        let mut keys: Vec<&PoolKey> = local.chain(&of.wide).collect();
        keys.sort_unstable();
        keys.dedup();
        let pool = |key: &PoolKey| of.pools.get_key_value(key);
        let mut pools: Vec<_> = keys.into_iter().filter_map(pool).collect();
        // Devices that have to be made ready first are taken last.
        pools.sort_by_key(|(_, pool)| {
            let mut live = pool.live.iter();
            live.any(|slice| slice.awaited && slice.reach.includes(self.node, self.symbols))
        });
        pools
    }

    fn choices(
        &self,
        claim: &'a Claim,
        ask: &'a Ask,
        pools: &[(&'a PoolKey, &'a Pool)],
    ) -> Result<Choices<'a>, String> {
        let class = self.of.classes.get(&ask.class);
        let all = ask.amount == Amount::All;
        let mut candidates = Vec::new();
        let mut faults = FxHashMap::default();
        for (key, pool) in pools {
            if all && (pool.invalid || !pool.complete) {
                let why = if pool.complete {
                    "invalid"
                } else {
                    "being updated"
                };
                return Err(format!(
                    "claim {}, request {}: asks for all devices, but resource pool {}/{} is currently {why}",
                    claim.key(),
                    ask.name,
                    key.driver,
                    key.name
                ));
            }
            if !pool.complete || pool.invalid {
                continue;
            }
            for slice in &pool.live {
                if slice.devices.is_empty() || !slice.reach.includes(self.node, self.symbols) {
                    continue;
                }
                let class_name = class.map(|c| c.name.as_str()).unwrap_or_default();
                let of_class = class.map(|c| c.selectors.as_slice()).unwrap_or_default();
                let whose = [
                    ("class", class_name.to_owned(), of_class),
                    ("claim", claim.key(), ask.selectors.as_slice()),
                ];
                let whose = whose.map(|(kind, name, selectors)| {
                    let verdicts = selectors.iter();
                    let verdicts = verdicts.map(|text| self.of.verdicts(slice, text));
                    (kind, name, verdicts.collect::<Vec<_>>())
                });
                for (at, device) in slice.devices.iter().enumerate() {
                    // Cheap things first: an exact number is of devices that are free.
                    if !all && (self.taken(ask, device) || tainted(ask, device)) {
                        continue;
                    }
                    // Of all devices, those that are too small are none.
                    if self.share(ask, device).is_none() {
                        continue;
                    }
                    let verdicts = whose.iter().flat_map(|(kind, name, verdicts)| {
                        let numbered = verdicts.iter().enumerate();
                        numbered.map(move |(number, verdict)| (kind, name, number, &verdict[at]))
                    });
                    let mut decisive =
                        verdicts.filter(|(.., verdict)| !matches!(verdict, Ok(true)));
                    let fault = match decisive.next() {
                        None => None,
                        Some((.., Ok(_))) => continue,
                        Some((kind, name, number, Err(error))) => Some(format!(
                            "{kind} {name}: selector #{number} on device {}/{}/{}: {error}",
                            key.driver, key.name, device.name
                        )),
                    };
                    if slice.reach_of(device).includes(self.node, self.symbols) {
                        if let Some(fault) = fault {
                            if all {
                                return Err(fault);
                            }
                            faults.insert(candidates.len(), fault);
                        }
                        candidates.push(Candidate {
                            pool,
                            key,
                            slice,
                            device,
                        });
                    }
                }
            }
        }
        let count = match ask.amount {
            Amount::Exactly(count) => (candidates.len() >= count).then_some(count),
            Amount::All => {
                let lost = |c: &Candidate<'_>| self.taken(ask, c.device) || tainted(ask, c.device);
                let whole = !candidates.is_empty() && !candidates.iter().any(lost);
                whole.then_some(candidates.len())
            }
        };
        Ok(Choices {
            ask,
            count,
            candidates,
            faults,
        })
    }

    fn taken(&self, ask: &Ask, device: &Device) -> bool {
        !ask.admin && self.of.taken.whole(device.key)
    }

    /// What a request would take of a device, beside what is taken of it; `None` if there is not so much of it.
    fn share(&self, ask: &Ask, device: &Device) -> Option<Amounts> {
        let taken = &self.of.taken;
        let given = taken.share(device.key).filter(|_| device.shared);
        let picks = self.picks.iter().filter(|p| p.of.device.key == device.key);
        let beside = given
            .into_iter()
            .chain(picks.filter_map(|p| p.share.as_ref()));
        device.capacities.take(&ask.capacity, beside)
    }

    /// Serves a request of a claim, and all that come after it.
    fn request(&mut self, plan: &Plan<'a>, claim: usize, request: usize) -> Result<bool, String> {
        let Some(requests) = plan.get(claim) else {
            return Ok(true);
        };
        let Some(alternatives) = requests.get(request) else {
            return self.request(plan, claim + 1, 0);
        };
        for choices in alternatives {
            let Some(count) = choices.count else { continue };
            let so_far = self.picks.iter().filter(|p| p.claim == claim).count();
            if so_far + count <= MOST_RESULTS
                && self.devices(plan, (claim, request), choices, count, 0)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives a request so many devices more, of those from a place in the list on.
    fn devices(
        &mut self,
        plan: &Plan<'a>,
        (claim, request): (usize, usize),
        choices: &Choices<'a>,
        left: usize,
        from: usize,
    ) -> Result<bool, String> {
        if left == 0 {
            return self.request(plan, claim, request + 1);
        }
        for at in from..=choices.candidates.len() - left.min(choices.candidates.len()) {
            let Some(candidate) = choices.candidates.get(at) else {
                break;
            };
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err("timed out trying to allocate devices".to_owned());
            }
            if let Some(fault) = choices.faults.get(&at) {
                return Err(fault.clone());
            }
            let device = candidate.device;
            let share = self.share(choices.ask, device);
            let fits = share.is_some();
            let pick = Pick {
                claim,
                ask: choices.ask,
                of: *candidate,
                share: share.filter(|_| device.shared),
            };
            if fits && self.allows(&pick) {
                let key = device.key;
                if !device.shared {
                    self.in_use.insert((key, claim));
                }
                self.picks.push(pick);
                if self.devices(plan, (claim, request), choices, left - 1, at + 1)? {
                    return Ok(true);
                }
                self.picks.pop();
                self.in_use.remove(&(key, claim));
            }
            if choices.ask.amount == Amount::All {
                // One that cannot be had is enough.
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Whether a device can be given beside those that are given already.
    fn allows(&self, pick: &Pick<'a>) -> bool {
        let device = pick.of.device;
        let used = |claim: usize| self.in_use.contains(&(device.key, claim));
        let is_used = if pick.ask.admin {
            used(pick.claim)
        } else {
            (0..self.open.len()).any(used)
        };
        // Who shares a device takes nothing more of what devices of the pool share.
        let mut picks = self.picks.iter();
        let joins = device.shared
            && (self.of.taken.share(device.key).is_some()
                || picks.any(|p| p.of.device.key == device.key));
        !is_used && (joins || self.has_counters(&pick.of)) && self.keeps_constraints(pick)
    }

    /// Whether what devices of a pool share is enough for one more.
    fn has_counters(&self, of: &Candidate<'_>) -> bool {
        of.device.counters.iter().all(|(set, wanted)| {
            wanted.iter().all(|(counter, amount)| {
                let there = of.pool.sets.get(set).and_then(|set| set.get(counter));
                let Some(there) = there else { return false };
                let mut used = *amount;
                let mut add = |device: &Device| {
                    let of_set = device.counters.iter().filter(|(name, _)| name == set);
                    let counters = of_set.flat_map(|(_, counters)| counters);
                    for (_, amount) in counters.filter(|(name, _)| name == counter) {
                        used = used.saturating_add(*amount);
                    }
                };
                let devices = of.pool.live.iter().flat_map(|slice| &slice.devices);
                let taken = &self.of.taken;
                devices.filter(|d| taken.any(d.key)).for_each(&mut add);
                let first = |at: usize, pick: &Pick<'_>| {
                    let before = self.picks[..at].iter();
                    before
                        .into_iter()
                        .all(|p| p.of.device.key != pick.of.device.key)
                };
                let picks = self.picks.iter().enumerate();
                picks
                    .filter(|(at, p)| {
                        p.of.key == of.key && !taken.any(p.of.device.key) && first(*at, p)
                    })
                    .for_each(|(_, p)| add(p.of.device));
                used.cmp(there).is_le()
            })
        })
    }

    fn keeps_constraints(&self, pick: &Pick<'a>) -> bool {
        let claim = self.open[pick.claim];
        claim.constraints.iter().all(|constraint| {
            if !constraint.covers(pick.ask) {
                return true;
            }
            let find = |device: &'a Device| {
                let found = device.seen.attributes.find(&constraint.attribute);
                found.filter(|value| !value.is_list())
            };
            let Some(own) = find(pick.of.device) else {
                return false;
            };
            let others = self.picks.iter();
            let mut others = others.filter(|p| p.claim == pick.claim && constraint.covers(p.ask));
            others.all(|p| (find(p.of.device) == Some(own)) != constraint.distinct)
        })
    }

    /// How good the alternatives are that were found.
    pub fn rank(&self) -> i64 {
        let mut rank = 0;
        for (at, claim) in self.open.iter().enumerate() {
            for alternatives in &claim.requests {
                let chosen = |ask: &Ask| {
                    let mut picks = self.picks.iter().filter(|p| p.claim == at);
                    ask.is_alternative() && picks.any(|p| p.ask.name == ask.name)
                };
                let place = alternatives.iter().position(chosen);
                let place = place.and_then(|place| i64::try_from(place).ok());
                rank += place.map_or(0, |place| (MOST_ALTERNATIVES - place).max(0));
            }
        }
        rank
    }

    /// What an open claim gets, with the devices that it then holds.
    pub fn result(&self, at: usize, claim: &Claim) -> (k8s::AllocationResult, Vec<Held>) {
        let picks: Vec<&Pick<'a>> = self.picks.iter().filter(|p| p.claim == at).collect();
        let told = |list: &Vec<String>| Some(list.clone()).filter(|list| !list.is_empty());
        let results = picks.iter().map(|pick| k8s::DeviceRequestAllocationResult {
            request: pick.ask.name.clone(),
            driver: pick.of.key.driver.to_string(),
            pool: pick.of.key.name.to_string(),
            device: pick.of.device.name.clone(),
            admin_access: pick.ask.admin.then_some(true),
            tolerations: Some(pick.ask.tolerations.clone()).filter(|t| !t.is_empty()),
            binding_conditions: told(&pick.of.device.conditions[0]),
            binding_failure_conditions: told(&pick.of.device.conditions[1]),
            share_id: pick.share.is_some().then(|| share_id(claim, pick)),
            consumed_capacity: pick.share.as_ref().filter(|s| !s.is_empty()).map(|share| {
                let amounts = share.iter();
                amounts
                    .map(|(name, amount)| (name.clone(), Quantity(amount.to_string())))
                    .collect()
            }),
        });
        let held = picks.iter().filter(|pick| !pick.ask.admin);
        let held = held.map(|pick| Held {
            key: pick.of.device.key,
            share: pick.share.clone(),
        });
        let held = held.collect();
        let config = self.config(claim, &picks);
        let allocation = k8s::AllocationResult {
            devices: Some(k8s::DeviceAllocationResult {
                results: Some(results.collect()),
                config: Some(config).filter(|c| !c.is_empty()),
            }),
            node_selector: self.reachable(&picks),
            allocation_timestamp: None,
        };
        (allocation, held)
    }

    /// Configuration of the classes that were chosen, then of the claim.
    fn config(
        &self,
        claim: &Claim,
        picks: &[&Pick<'a>],
    ) -> Vec<k8s::DeviceAllocationConfiguration> {
        let mut chosen: Vec<&Ask> = Vec::new();
        for alternatives in &claim.requests {
            let picked = |ask: &&Ask| picks.iter().any(|p| p.ask.name == ask.name);
            chosen.extend(alternatives.iter().find(picked));
        }
        let mut all: Vec<k8s::DeviceAllocationConfiguration> = Vec::new();
        let mut classes = Vec::new();
        for ask in &chosen {
            if classes.contains(&ask.class) {
                continue;
            }
            classes.push(ask.class);
            let class = self.of.classes.get(&ask.class);
            let of_class = chosen.iter().filter(|other| other.class == ask.class);
            let requests: Vec<String> = of_class.map(|ask| ask.name.clone()).collect();
            for config in class.iter().flat_map(|class| &class.config) {
                all.push(k8s::DeviceAllocationConfiguration {
                    opaque: config.opaque.clone(),
                    requests: Some(requests.clone()),
                    source: "FromClass".to_owned(),
                });
            }
        }
        for config in &claim.config {
            let requests = config.requests.as_deref().unwrap_or_default();
            let named =
                |ask: &&Ask| requests.contains(&ask.request) || requests.contains(&ask.name);
            if requests.is_empty() || chosen.iter().any(named) {
                all.push(k8s::DeviceAllocationConfiguration {
                    opaque: config.opaque.clone(),
                    requests: config.requests.clone(),
                    source: "FromClaim".to_owned(),
                });
            }
        }
        for config in &mut all {
            // None means all.
            let of_all = config.requests.as_ref().map(Vec::len) == Some(claim.requests.len());
            config.requests = config
                .requests
                .take()
                .filter(|requests| !of_all && !requests.is_empty());
        }
        all
    }

    /// The nodes that can reach all of the devices.
    fn reachable(&self, picks: &[&Pick<'a>]) -> Option<core::NodeSelector> {
        let mut expressions: Vec<core::NodeSelectorRequirement> = Vec::new();
        let mut fields: Vec<core::NodeSelectorRequirement> = Vec::new();
        for pick in picks {
            let (slice, device) = (pick.of.slice, pick.of.device);
            let reach = slice.reach_of(device);
            if device.binds || matches!(reach, Reach::Node(_)) {
                return Some(selector(core::NodeSelectorTerm {
                    match_fields: Some(vec![core::NodeSelectorRequirement {
                        key: NAME_FIELD.to_owned(),
                        operator: "In".to_owned(),
                        values: Some(vec![self.symbols.text(self.node.name).to_owned()]),
                    }]),
                    match_expressions: None,
                }));
            }
            match reach {
                Reach::Selected(_) => {
                    let selector = match slice.reach {
                        Reach::PerDevice => device.selector.as_ref(),
                        _ => slice.selector.as_ref(),
                    };
                    // The API lets a slice have one term.
                    for term in selector.iter().flat_map(|s| &s.node_selector_terms) {
                        merge(&mut expressions, term.match_expressions.as_ref());
                        merge(&mut fields, term.match_fields.as_ref());
                    }
                }
                Reach::Node(_) | Reach::All | Reach::PerDevice | Reach::None => {}
            }
        }
        (!expressions.is_empty() || !fields.is_empty()).then(|| {
            selector(core::NodeSelectorTerm {
                match_expressions: Some(expressions).filter(|e| !e.is_empty()),
                match_fields: Some(fields).filter(|f| !f.is_empty()),
            })
        })
    }
}

/// The id of a share: of the claim in this form, the request and the device, so that the same decision gives the same id.
fn share_id(claim: &Claim, pick: &Pick<'_>) -> String {
    let half = |salt: u8| {
        let mut hasher = FxHasher::default();
        let of = (&pick.of.key.driver, &pick.of.key.name, &pick.of.device.name);
        (salt, &claim.uid, &claim.version, &pick.ask.name, of).hash(&mut hasher);
        hasher.finish()
    };
    let (high, low) = (half(1), half(2));
    let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xfff);
    let (d, e) = (0x8000 | ((low >> 48) & 0x3fff), low & 0xffff_ffff_ffff);
    // Marked as made up by its maker (version 8).
    format!("{a:08x}-{b:04x}-8{c:03x}-{d:04x}-{e:012x}")
}

fn merge(
    all: &mut Vec<core::NodeSelectorRequirement>,
    more: Option<&Vec<core::NodeSelectorRequirement>>,
) {
    for requirement in more.into_iter().flatten() {
        if !all.contains(requirement) {
            all.push(requirement.clone());
        }
    }
}

fn selector(term: core::NodeSelectorTerm) -> core::NodeSelector {
    core::NodeSelector {
        node_selector_terms: vec![term],
    }
}

/// Whether a taint keeps the device from the request.
fn tainted(ask: &Ask, device: &Device) -> bool {
    let keeps = |taint: &&k8s::DeviceTaint| matches!(&*taint.effect, "NoSchedule" | "NoExecute");
    let tolerated = |taint: &k8s::DeviceTaint| ask.tolerations.iter().any(|t| tolerates(t, taint));
    device.taints.iter().filter(keeps).any(|t| !tolerated(t))
}

fn tolerates(toleration: &k8s::DeviceToleration, taint: &k8s::DeviceTaint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match &*text(&toleration.operator) {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}
