//! How much a pod asks for: of its node, and of single NUMA nodes.

use super::{Compiler, Shape};
use crate::core::numa::{Ask, Asks};
use crate::core::object::{Container, ContainerStatus, Pod, PodSpec};
use crate::core::profile::Rules;
use crate::core::quantity::{milli, units};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What Kubernetes' scores assume of a container that requests no CPU (millicores) or no memory (bytes).
const ASSUMED: [i64; 2] = [100, 200 << 20];

impl Compiler {
    /// Effective request, by the rules of Kubernetes' resource helpers: sidecars run beside everything after them,
    /// other init containers one at a time before the rest; pod-level requests replace the sum; overhead is added.
    /// While a resize goes on, what is asked for, what the node has allotted and what is in force count by their
    /// maximum; what was asked for in vain does not count.
    pub fn shape(&mut self, pod: &Pod, rules: &Rules) -> Shape {
        let spec = &pod.spec;
        let in_vain = pod
            .status
            .conditions
            .iter()
            .any(|c| c.kind == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
        let told = pod
            .status
            .resources
            .as_ref()
            .and_then(|r| r.requests.as_ref());
        let resizing = resizes(pod);
        let mut total = if in_vain && resizing {
            Tally::default()
        } else {
            Tally::over(spec, |c| Some(Tally::of(c)))
        };
        if resizing {
            if let (Some(applied), Some(allotted)) = (told, &pod.status.allocated_resources) {
                total.max(&Tally::from(applied));
                total.max(&Tally::from(allotted));
            } else {
                let fallback = |c| (!in_vain).then(|| Tally::of(c));
                let status = |c: &Container| statuses(pod).find(|s| s.name == c.name);
                total.max(&Tally::over(spec, |c| {
                    let allotted = status(c).and_then(|s| s.allocated_resources.as_ref());
                    allotted.map(Tally::from).or_else(|| fallback(c))
                }));
                total.max(&Tally::over(spec, |c| {
                    let of = status(c);
                    let applied = of.and_then(|s| s.resources.as_ref()?.requests.as_ref());
                    let allotted = of.and_then(|s| s.allocated_resources.as_ref());
                    applied
                        .or(allotted)
                        .map(Tally::from)
                        .or_else(|| fallback(c))
                }));
            }
        }
        for (name, quantity) in spec.resources.iter().flat_map(|r| &r.requests) {
            if !matches!(name.as_str(), "cpu" | "memory") && !name.starts_with("hugepages-") {
                continue;
            }
            let overhead = spec.overhead.get(name).map_or(0, |q| amount(name, q));
            let of_status = |list: Option<&BTreeMap<String, Quantity>>| {
                list.and_then(|l| l.get(name))
                    .map(|q| amount(name, q) - overhead)
            };
            let all = [
                of_status(told),
                of_status(pod.status.allocated_resources.as_ref()),
            ];
            // What was asked for in vain counts only where the node has said nothing else.
            let vain = in_vain && all.iter().any(Option::is_some);
            let asked = (!vain).then(|| amount(name, quantity));
            let all = all.into_iter().chain([asked]);
            total.set(name, all.flatten().max().unwrap_or_default());
        }
        for (name, quantity) in &spec.overhead {
            let amount = amount(name, quantity);
            let slot = total.real.entry(name).or_default();
            *slot = slot.saturating_add(amount);
            match name.as_str() {
                "cpu" => total.assumed[0] = total.assumed[0].saturating_add(amount),
                "memory" => total.assumed[1] = total.assumed[1].saturating_add(amount),
                _ => {}
            }
        }
        let mut shape = Shape {
            assumed: total.assumed,
            ..Shape::default()
        };
        for (name, amount) in total.real {
            match name {
                "cpu" => shape.base.cpu = amount,
                "memory" => shape.base.memory = amount,
                "ephemeral-storage" => shape.base.storage = amount,
                _ if amount == 0 || rules.ignores(name) => {}
                _ => shape.other.push((self.symbols.intern(name), amount)),
            }
        }
        shape.other.sort_unstable();
        shape
    }

    /// What the kubelet would align: whole cores and memory of Guaranteed pods, devices of all.
    pub(super) fn asks(&mut self, pod: &Pod) -> Option<Arc<Asks>> {
        let spec = &pod.spec;
        let guaranteed = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .all(guaranteed);
        let mut ask = |container: &Container| {
            let mut ask = Ask::default();
            for (name, quantity) in container.resources.iter().flat_map(|r| &r.requests) {
                let amount = amount(name, quantity);
                match name.as_str() {
                    "cpu" if guaranteed && amount % 1000 == 0 => ask.cpu = amount,
                    "memory" if guaranteed => ask.memory = amount,
                    "cpu" | "memory" | "ephemeral-storage" => {}
                    other if amount > 0 => ask.other.push((self.symbols.intern(other), amount)),
                    _ => {}
                }
            }
            ask
        };
        let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
        let init = spec.init_containers.iter().filter(|c| !sidecar(c));
        let init: Vec<Ask> = init.map(&mut ask).collect();
        let beside = spec.init_containers.iter().filter(sidecar);
        let containers: Vec<Ask> = beside.chain(&spec.containers).map(&mut ask).collect();
        let none = init.iter().chain(&containers).all(Ask::is_empty);
        (!none).then(|| Arc::new(Asks { init, containers }))
    }
}

/// Whether a container has CPU and memory, and limits of the same size: the Guaranteed class asks that of all.
fn guaranteed(container: &Container) -> bool {
    container.resources.as_ref().is_some_and(|resources| {
        ["cpu", "memory"].iter().all(|name| {
            let of = |map: &BTreeMap<String, Quantity>| map.get(*name).map(|q| amount(name, q));
            let limit = of(&resources.limits);
            limit.is_some_and(|l| l > 0) && limit == of(&resources.requests)
        })
    })
}

/// A quantity in the unit that its resource is counted in; what is no quantity counts as nothing.
#[must_use]
pub fn amount(name: &str, quantity: &Quantity) -> i64 {
    let value = if name == "cpu" {
        milli(&quantity.0)
    } else {
        units(&quantity.0)
    };
    value.unwrap_or_default()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let (main, init) = (
        &pod.status.container_statuses,
        &pod.status.init_container_statuses,
    );
    main.iter().chain(init)
}

/// Whether the node has said anything of resources: before, only the spec counts.
fn resizes(pod: &Pod) -> bool {
    pod.status.allocated_resources.is_some()
        || pod.status.resources.is_some()
        || statuses(pod).any(|s| s.allocated_resources.is_some() || s.resources.is_some())
}

/// Requests being summed, by resource name.
#[derive(Clone, Default)]
struct Tally<'a> {
    real: BTreeMap<&'a str, i64>,
    assumed: [i64; 2],
}

impl<'a> Tally<'a> {
    fn of(container: &'a Container) -> Self {
        Self::sum(container.resources.iter().flat_map(|r| &r.requests))
    }

    fn from(requests: &'a BTreeMap<String, Quantity>) -> Self {
        Self::sum(requests)
    }

    fn sum(requests: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Self {
        let requests = requests.into_iter();
        let real: BTreeMap<&str, i64> = requests.map(|(k, q)| (k.as_str(), amount(k, q))).collect();
        let assumed = |i: usize, name: &str| real.get(name).copied().unwrap_or(ASSUMED[i]);
        let assumed = [assumed(0, "cpu"), assumed(1, "memory")];
        Self { real, assumed }
    }

    /// What all containers take at once at most, each as `of` says.
    fn over(spec: &'a PodSpec, of: impl Fn(&'a Container) -> Option<Self>) -> Self {
        let of = |container| of(container).unwrap_or_default();
        let mut total = Self::default();
        for container in &spec.containers {
            total.add(&of(container));
        }
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in &spec.init_containers {
            let own = of(container);
            if container.restart_policy.as_deref() == Some("Always") {
                total.add(&own);
                sidecars.add(&own);
                peak.max(&sidecars);
            } else {
                let mut step = sidecars.clone();
                step.add(&own);
                peak.max(&step);
            }
        }
        total.max(&peak);
        total
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.real {
            let slot = self.real.entry(name).or_default();
            *slot = slot.saturating_add(*amount);
        }
        for (slot, amount) in self.assumed.iter_mut().zip(other.assumed) {
            *slot = slot.saturating_add(amount);
        }
    }

    fn max(&mut self, other: &Self) {
        for (name, amount) in &other.real {
            let slot = self.real.entry(name).or_default();
            *slot = (*slot).max(*amount);
        }
        for (slot, amount) in self.assumed.iter_mut().zip(other.assumed) {
            *slot = (*slot).max(amount);
        }
    }

    fn set(&mut self, name: &'a str, amount: i64) {
        self.real.insert(name, amount);
        match name {
            "cpu" => self.assumed[0] = amount,
            "memory" => self.assumed[1] = amount,
            _ => {}
        }
    }
}
