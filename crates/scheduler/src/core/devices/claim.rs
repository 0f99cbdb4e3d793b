//! Claims and classes: what is asked for.

use super::capacity::{Amounts, Held, amounts};
use super::extended::{ANNOTATION, NAME, PREFIX};
use super::slice::terms;
use crate::core::selector::NodeTerm;
use crate::core::symbols::{Symbol, Symbols};
use k8s_openapi::api::resource::v1 as k8s;
use std::sync::Arc;

/// A selector, and where it stands: its place in the list.
pub(super) type Selectors = Vec<Arc<str>>;

fn selectors(list: Option<&Vec<k8s::DeviceSelector>>) -> Selectors {
    let expression = |s: &k8s::DeviceSelector| match &s.cel {
        Some(cel) => cel.expression.as_str().into(),
        // What is of another kind selects nothing: it does not compile.
        None => "".into(),
    };
    list.into_iter().flatten().map(expression).collect()
}

/// A device class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Class {
    pub name: String,
    pub selectors: Selectors,
    pub config: Vec<k8s::DeviceClassConfiguration>,
    /// The extended resources that it stands for.
    pub resources: Vec<Symbol>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

impl Class {
    pub fn compile(class: &k8s::DeviceClass, symbols: &mut Symbols) -> Self {
        let name = class.metadata.name.clone().unwrap_or_default();
        let created = class.metadata.creation_timestamp.as_ref();
        let named = class.spec.extended_resource_name.iter();
        let resources = named.map(|name| symbols.intern(name));
        let mut resources: Vec<Symbol> = resources.collect();
        resources.push(symbols.intern(&format!("{PREFIX}{name}")));
        Self {
            name,
            resources,
            created: created.map_or(0, |t| t.0.as_second()),
            selectors: selectors(class.spec.selectors.as_ref()),
            config: class.spec.config.clone().unwrap_or_default(),
        }
    }
}

/// How many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    Exactly(usize),
    All,
}

/// What one request, or one of its alternatives, asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    /// As results name it: `request`, or `request/alternative`.
    pub name: String,
    /// The request's own name.
    pub request: String,
    pub class: Symbol,
    pub class_name: String,
    pub selectors: Selectors,
    pub amount: Amount,
    pub admin: bool,
    pub tolerations: Vec<k8s::DeviceToleration>,
    /// How large a device, or a part of one, has to be.
    pub capacity: Amounts,
    /// Asks for something that is not supported here.
    pub unsupported: Option<&'static str>,
}

impl Ask {
    /// It is one of several, or could be.
    pub fn is_alternative(&self) -> bool {
        self.name != self.request
    }
}

fn amount(mode: Option<&str>, count: Option<i64>) -> Amount {
    match mode {
        Some("All") => Amount::All,
        _ => Amount::Exactly(usize::try_from(count.unwrap_or(1)).unwrap_or_default()),
    }
}

fn unsupported(mode: Option<&str>) -> Option<&'static str> {
    match mode {
        None | Some("" | "All" | "ExactCount") => None,
        Some(_) => Some("its allocationMode"),
    }
}

fn sizes(capacity: Option<&k8s::CapacityRequirements>) -> Amounts {
    amounts(capacity.and_then(|c| c.requests.as_ref()))
}

fn asks(request: &k8s::DeviceRequest, symbols: &mut Symbols) -> Vec<Ask> {
    if let Some(exactly) = &request.exactly {
        let mode = exactly.allocation_mode.as_deref();
        return vec![Ask {
            name: request.name.clone(),
            request: request.name.clone(),
            class: symbols.intern(&exactly.device_class_name),
            class_name: exactly.device_class_name.clone(),
            selectors: selectors(exactly.selectors.as_ref()),
            amount: amount(mode, exactly.count),
            admin: exactly.admin_access == Some(true),
            tolerations: exactly.tolerations.clone().unwrap_or_default(),
            capacity: sizes(exactly.capacity.as_ref()),
            unsupported: unsupported(mode),
        }];
    }
    let alternatives = request.first_available.iter().flatten();
    let alternative = |sub: &k8s::DeviceSubRequest| Ask {
        name: format!("{}/{}", request.name, sub.name),
        request: request.name.clone(),
        class: symbols.intern(&sub.device_class_name),
        class_name: sub.device_class_name.clone(),
        selectors: selectors(sub.selectors.as_ref()),
        amount: amount(sub.allocation_mode.as_deref(), sub.count),
        admin: false,
        tolerations: sub.tolerations.clone().unwrap_or_default(),
        capacity: sizes(sub.capacity.as_ref()),
        unsupported: unsupported(sub.allocation_mode.as_deref()),
    };
    alternatives.map(alternative).collect()
}

/// What devices of a claim must have in common, or must differ in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constraint {
    pub attribute: String,
    pub distinct: bool,
    /// Of these requests; none means all.
    requests: Vec<String>,
}

impl Constraint {
    /// Whether it is about the devices of a request (or alternative).
    pub fn covers(&self, ask: &Ask) -> bool {
        self.requests.is_empty()
            || self
                .requests
                .iter()
                .any(|r| *r == ask.request || *r == ask.name)
    }
}

/// What a claim has been given.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Allocation {
    /// Where it can be used; `None` is everywhere.
    pub nodes: Option<Vec<NodeTerm>>,
    /// The devices, or shares of them, that nobody else can have.
    pub held: Vec<Held>,
    pub binding: Readiness,
}

/// How far drivers are with devices that have to be made ready before a pod is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Waiting,
    Failed,
}

/// How far drivers are with what a claim was given; `None` if it was given nothing.
#[must_use]
pub fn how_ready(status: &k8s::ResourceClaimStatus) -> Option<Readiness> {
    status.allocation.as_ref().map(|_| Readiness::of(status))
}

impl Readiness {
    fn of(status: &k8s::ResourceClaimStatus) -> Self {
        let told = |result: &k8s::DeviceRequestAllocationResult, kind: &String| {
            let mut devices = status.devices.iter().flatten();
            let same = |d: &&k8s::AllocatedDeviceStatus| {
                (&d.driver, &d.pool, &d.device, &d.share_id)
                    == (
                        &result.driver,
                        &result.pool,
                        &result.device,
                        &result.share_id,
                    )
            };
            let conditions = devices.find(same).and_then(|d| d.conditions.as_ref());
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|c| c.type_ == *kind && c.status == "True")
        };
        let devices = status.allocation.as_ref().and_then(|a| a.devices.as_ref());
        let results = devices.and_then(|d| d.results.as_ref());
        let mut binding = Self::Ready;
        for result in results.into_iter().flatten() {
            let mut conditions = result.binding_conditions.iter().flatten();
            let mut failures = result.binding_failure_conditions.iter().flatten();
            if failures.any(|kind| told(result, kind)) {
                return Self::Failed;
            }
            if conditions.any(|kind| !told(result, kind)) {
                binding = Self::Waiting;
            }
        }
        binding
    }
}

/// A claim.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub version: String,
    pub leaving: bool,
    /// The uid of its controlling owner.
    pub owner: Option<String>,
    /// One list of alternatives for each request.
    pub requests: Vec<Vec<Ask>>,
    pub constraints: Vec<Constraint>,
    pub config: Vec<k8s::DeviceClaimConfiguration>,
    pub allocation: Option<Allocation>,
    /// The uids of those that may use it.
    pub reserved: Vec<String>,
    /// A scheduler has made it for the extended resources of its owner.
    pub special: bool,
}

impl Claim {
    pub fn compile(claim: &k8s::ResourceClaim, symbols: &mut Symbols) -> Self {
        let meta = &claim.metadata;
        let owners = meta.owner_references.iter().flatten();
        let mut owners = owners.filter(|o| o.controller == Some(true));
        let devices = claim.spec.devices.as_ref();
        let requests = devices.and_then(|d| d.requests.as_ref());
        let constraints = devices.and_then(|d| d.constraints.as_ref());
        let status = claim.status.as_ref();
        let allocation = status.and_then(|s| s.allocation.as_ref());
        let allocation = allocation.map(|allocation| {
            let results = allocation.devices.iter().flat_map(|d| &d.results).flatten();
            let held = results.filter(|r| r.admin_access != Some(true)).map(|r| {
                let key = (
                    symbols.intern(&r.driver),
                    symbols.intern(&r.pool),
                    symbols.intern(&r.device),
                );
                let shared = r.share_id.is_some();
                let share = shared.then(|| amounts(r.consumed_capacity.as_ref()));
                Held { key, share }
            });
            let held = held.collect();
            let nodes = allocation.node_selector.as_ref();
            let nodes = nodes.map(|selector| terms(selector, symbols));
            let binding = status.map_or(Readiness::Ready, Readiness::of);
            Allocation {
                nodes,
                held,
                binding,
            }
        });
        let constraint = |c: &k8s::DeviceConstraint| Constraint {
            attribute: c
                .match_attribute
                .clone()
                .or_else(|| c.distinct_attribute.clone())
                .unwrap_or_default(),
            distinct: c.match_attribute.is_none(),
            requests: c.requests.clone().unwrap_or_default(),
        };
        let reserved = status.and_then(|s| s.reserved_for.as_ref());
        let annotations = meta.annotations.as_ref();
        Self {
            special: annotations
                .is_some_and(|all| all.get(ANNOTATION).is_some_and(|v| v == "true")),
            name: meta.name.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            leaving: meta.deletion_timestamp.is_some(),
            owner: owners.next().map(|o| o.uid.clone()),
            requests: requests
                .into_iter()
                .flatten()
                .map(|r| asks(r, symbols))
                .collect(),
            constraints: constraints.into_iter().flatten().map(constraint).collect(),
            config: devices.and_then(|d| d.config.clone()).unwrap_or_default(),
            allocation,
            reserved: reserved
                .into_iter()
                .flatten()
                .map(|r| r.uid.clone())
                .collect(),
        }
    }

    /// One that is still to be made, for extended resources of a pod.
    pub fn special(namespace: &str, pod: &str, requests: Vec<Vec<Ask>>) -> Self {
        Self {
            name: NAME.to_owned(),
            namespace: namespace.to_owned(),
            uid: pod.to_owned(),
            version: String::new(),
            leaving: false,
            owner: Some(pod.to_owned()),
            requests,
            constraints: Vec::new(),
            config: Vec::new(),
            allocation: None,
            reserved: Vec::new(),
            special: true,
        }
    }

    /// Whether another form of it may decide otherwise.
    pub fn tells_apart(&self, other: &Self) -> bool {
        self.uid != other.uid
            || self.leaving != other.leaving
            || self.owner != other.owner
            || self.allocation != other.allocation
            || self.reserved != other.reserved
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// What of a claim is not supported here: the request, and what it is.
    pub fn unsupported(&self) -> Option<(&str, &'static str)> {
        let mut asks = self.requests.iter().flatten();
        asks.find_map(|ask| Some((ask.name.as_str(), ask.unsupported?)))
    }
}
