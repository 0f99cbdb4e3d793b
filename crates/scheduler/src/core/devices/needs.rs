//! What a pod's claims ask of its node.

use super::allocate::Search;
use super::capacity::Held;
use super::claim::{Ask, Claim, Readiness};
use super::extended::Special;
use super::{Devices, Grant, IdleClaim, MOST_CONSUMERS, PodClaim, PodClaims, Wanted, slice};
use crate::core::nodes::Node;
use crate::core::symbols::{Symbol, Symbols};

/// Why a node cannot serve a pod's claims.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Misfit {
    /// A claim has devices that cannot be reached from there.
    Elsewhere,
    /// Not enough devices.
    None,
    /// It cannot be told: a message by its number.
    Error(u32),
}

/// The claim (none if it is still to be made), what is to be written, and the devices that it holds then.
pub(super) type Granted = (Option<Symbol>, Grant, Vec<Held>);

/// The claims of a pod, found.
pub struct DeviceNeeds<'a> {
    pub(super) of: &'a Devices,
    /// What is wrong with the claims, each, and what to do about it: messages by number.
    troubles: Vec<[u32; 2]>,
    /// Allocated already.
    given: Vec<&'a Claim>,
    /// Assumed for this pod, with the node.
    assumed: Vec<Symbol>,
    pub(super) open: Vec<(Symbol, &'a Claim)>,
    /// The extended resources that classes stand for.
    special: Option<Special<'a>>,
    uid: &'a str,
}

impl Devices {
    /// Finds the claims of a pod.
    #[must_use]
    pub fn needs<'a>(&'a self, pod: Wanted<'a>, symbols: &Symbols) -> DeviceNeeds<'a> {
        let mut needs = DeviceNeeds {
            of: self,
            troubles: Vec::new(),
            given: Vec::new(),
            assumed: Vec::new(),
            open: Vec::new(),
            special: None,
            uid: pod.claims.map_or(pod.uid, |claims| &claims.uid),
        };
        for wanted in pod.claims.iter().flat_map(|pod| &pod.claims) {
            let found = pod.claims.map(|pod| needs.find(wanted, pod, symbols));
            if let Some(Err(trouble)) = found {
                needs.troubles.push(trouble.map(|text| self.word(text)));
            }
        }
        let special = pod.extended.filter(|extended| self.serves(extended));
        needs.special = special.map(|ask| Special::new(self, ask, pod.namespace, pod.uid));
        needs
    }
}

impl<'a> DeviceNeeds<'a> {
    /// What is wrong and what to do about it, if something is.
    fn find(
        &mut self,
        wanted: &'a PodClaim,
        pod: &'a PodClaims,
        symbols: &Symbols,
    ) -> Result<(), [String; 2]> {
        let trouble = |what: String, remedy: String| Err([what, remedy]);
        let (key, made) = match wanted {
            PodClaim::Named(key) => (key, false),
            PodClaim::Made(key) => (key, true),
            PodClaim::Awaited => {
                let remedy = "see that its ResourceClaimTemplates are there, and that a controller makes claims of them";
                let what = format!("pod \"{}\": ResourceClaim not created yet", pod.pod);
                return trouble(what, remedy.to_owned());
            }
        };
        let Some(claim) = self.of.claims.get(key) else {
            let key = symbols.text(*key);
            let name = key.rsplit('/').next().unwrap_or_default();
            let what = format!("resourceclaim.resource.k8s.io \"{name}\" not found");
            return trouble(what, format!("create ResourceClaim {key}"));
        };
        if claim.leaving {
            let what = format!("resourceclaim \"{}\" is being deleted", claim.name);
            let remedy = format!("create ResourceClaim {} anew once it is gone", claim.key());
            return trouble(what, remedy);
        }
        if made && claim.owner.as_deref() != Some(&*pod.uid) {
            let what = format!(
                "ResourceClaim {} was not created for pod {} (pod is not owner)",
                claim.key(),
                pod.pod
            );
            let remedy = format!(
                "delete ResourceClaim {}: the pod's own is made then",
                claim.key()
            );
            return trouble(what, remedy);
        }
        if claim.allocation.is_some() {
            let ours = claim.reserved.iter().any(|uid| **uid == *pod.uid);
            if !ours && claim.reserved.len() >= MOST_CONSUMERS {
                let remedy = format!(
                    "end one of the {MOST_CONSUMERS} pods that share ResourceClaim {}",
                    claim.key()
                );
                return trouble("resourceclaim in use".to_owned(), remedy);
            }
            self.given.push(claim);
            return Ok(());
        }
        if let Some(assumed) = self.of.assumed.get(key) {
            if assumed.pod != pod.uid {
                let what = format!(
                    "resource claim {} is in the process of being allocated",
                    claim.key()
                );
                let remedy = "wait until the pod that shares the claim is bound";
                return trouble(what, remedy.to_owned());
            }
            self.assumed.push(assumed.node);
            return Ok(());
        }
        if let Some((request, unknown)) = claim.unsupported() {
            let what = format!(
                "resource claim {}, request {request}: gantry-scheduler does not support {unknown}",
                claim.key()
            );
            let remedy = format!("ask in ResourceClaim {} without {unknown}", claim.key());
            return trouble(what, remedy);
        }
        for ask in claim.requests.iter().flatten() {
            if !self.of.classes.contains_key(&ask.class) {
                let what = format!(
                    "request {}: device class {} does not exist",
                    ask.name, ask.class_name
                );
                return trouble(what, format!("create DeviceClass {}", ask.class_name));
            }
        }
        self.open.push((*key, claim));
        Ok(())
    }

    /// What keeps the pod from any node at all, by the number of the message.
    #[must_use]
    pub fn blocked(&self) -> Option<u32> {
        self.troubles.first().map(|[what, _]| *what)
    }

    /// What to do about all that is wrong, likewise.
    pub fn remedies(&self) -> impl Iterator<Item = u32> + '_ {
        self.troubles.iter().map(|[_, remedy]| *remedy)
    }

    /// Whether a node of its own must have devices for the pod.
    #[must_use]
    pub fn wants_devices(&self) -> bool {
        self.open
            .iter()
            .any(|(_, claim)| !claim.requests.is_empty())
    }

    /// Whether it matters which alternatives a node can serve.
    #[must_use]
    pub fn prefers(&self) -> bool {
        let requests = self.open.iter().flat_map(|(_, claim)| &claim.requests);
        let mut alternatives = requests.flatten();
        alternatives.any(Ask::is_alternative)
    }

    /// How good the alternatives are that a node would serve: the first of a request counts 8, each further one less.
    #[must_use]
    pub fn rank(&self, node: &Node, symbols: &Symbols) -> i64 {
        let search = self.serve(node, symbols).ok().flatten();
        search.map_or(0, |search| search.rank())
    }

    /// The only nodes that can serve what is allocated already, where that names nodes.
    #[must_use]
    pub fn pins(&self) -> Option<Vec<Symbol>> {
        if let Some(node) = self.assumed.first() {
            return Some(vec![*node]);
        }
        let nodes = self.given.iter().filter_map(|claim| {
            let terms = claim.allocation.as_ref()?.nodes.as_ref()?;
            let mut names = Vec::new();
            for term in terms {
                names.extend(term.pins()?);
            }
            Some(names)
        });
        nodes.min_by_key(Vec::len)
    }

    /// Whether what a claim has is of use on the node: of none, if it cannot be made ready.
    fn reached(claim: &Claim, node: &Node, symbols: &Symbols) -> bool {
        let allocation = claim.allocation.as_ref();
        if allocation.is_some_and(|a| a.binding == Readiness::Failed) {
            return false;
        }
        let nodes = allocation.and_then(|a| a.nodes.as_ref());
        nodes.is_none_or(|terms| slice::any(terms, node, symbols))
    }

    /// Why the node cannot serve the claims, if it cannot.
    #[must_use]
    pub fn reject(&self, node: &Node, symbols: &Symbols) -> Option<Misfit> {
        self.serve(node, symbols).err()
    }

    /// The search that has found devices for the open claims; `None` if there are none.
    fn serve<'s>(
        &'s self,
        node: &'s Node,
        symbols: &'s Symbols,
    ) -> Result<Option<Search<'s>>, Misfit> {
        let elsewhere = |claim: &&Claim| !Self::reached(claim, node, symbols);
        if self.given.iter().any(elsewhere) || self.assumed.iter().any(|at| *at != node.name) {
            return Err(Misfit::Elsewhere);
        }
        let special = self.special.as_ref();
        let special = special.and_then(|special| special.on(node, self.of, symbols));
        let open = self.open.iter().map(|(_, claim)| *claim);
        let open: Vec<&Claim> = open.chain(special.map(|(claim, _)| claim)).collect();
        if open.is_empty() {
            return Ok(None);
        }
        let mut search = Search::new(self.of, open, node, symbols);
        match search.run() {
            Ok(true) => Ok(Some(search)),
            Ok(false) => Err(Misfit::None),
            Err(message) => Err(Misfit::Error(self.of.word(message))),
        }
    }

    /// What is to be written so that the pod can run on the node, with the devices that each claim holds then.
    pub(super) fn grant(&self, node: &Node, symbols: &Symbols) -> Result<Vec<Granted>, Misfit> {
        let search = self.serve(node, symbols)?;
        let grant = |claim: &Claim| Grant {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            allocation: None,
            waits: {
                let given = claim.allocation.as_ref();
                given.is_some_and(|a| a.binding != Readiness::Ready)
            },
            made: None,
        };
        let mut grants = Vec::new();
        for claim in &self.given {
            let reserved = claim.reserved.iter().any(|uid| **uid == *self.uid);
            if !reserved || grant(claim).waits {
                let key = symbols.known(&claim.key()).ok_or(Misfit::None)?;
                grants.push((Some(key), grant(claim), Vec::new()));
            }
        }
        let found = search.iter().flat_map(|search| {
            let open = search.open.iter().enumerate();
            open.map(move |(at, claim)| (search, at, *claim))
        });
        for (search, at, claim) in found {
            let (allocation, held) = search.result(at, claim);
            let mut grant = grant(claim);
            let devices = allocation.devices.as_ref();
            let results = devices.and_then(|d| d.results.as_ref());
            grant.waits = results
                .into_iter()
                .flatten()
                .any(|r| r.binding_conditions.is_some());
            grant.allocation = Some(allocation);
            let key = self.open.get(at).map(|(key, _)| *key);
            if key.is_none() {
                let special = self.special.as_ref();
                let special = special.and_then(|special| special.on(node, self.of, symbols));
                grant.made = special.map(|(_, made)| made.clone());
                (grant.name, grant.uid) = (String::new(), String::new());
            }
            grants.push((key, grant, held));
        }
        Ok(grants)
    }

    /// A claim that holds the pod away from some node although nobody uses it.
    #[must_use]
    pub fn idle<'n>(
        &self,
        nodes: impl Iterator<Item = &'n Node> + Clone,
        symbols: &Symbols,
    ) -> Option<IdleClaim> {
        let unused = |claim: &Claim| claim.reserved.iter().all(|uid| **uid == *self.uid);
        let mut idle = self.given.iter().filter(|claim| unused(claim));
        let idle = idle.find(|claim| {
            let mut nodes = nodes.clone();
            nodes.any(|node| !Self::reached(claim, node, symbols))
        })?;
        Some(IdleClaim {
            namespace: idle.namespace.clone(),
            name: idle.name.clone(),
            uid: idle.uid.clone(),
            version: idle.version.clone(),
        })
    }
}
