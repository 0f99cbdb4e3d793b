//! Extended resources that device classes stand for (KEP-5004, `DRAExtendedResource`): a pod that asks for
//! `example.com/gpu` of a node without such a resource is given devices of the class that names it, by a claim that the
//! scheduler makes for it. Each class also stands for `deviceclass.resource.kubernetes.io/NAME`.

use super::claim::{Amount, Ask, Claim};
use super::{Devices, Made};
use crate::core::nodes::Node;
use crate::core::symbols::{Symbol, Symbols};
use k8s_openapi::api::core::v1::ContainerExtendedResourceRequest as Mapping;
use k8s_openapi::api::resource::v1 as k8s;
use std::sync::OnceLock;

/// What a class is asked for by without naming a resource itself.
pub(super) const PREFIX: &str = "deviceclass.resource.kubernetes.io/";
/// As messages call the claim before it is made.
pub(super) const NAME: &str = "<extended-resources>";
/// Annotation of the claim that is made.
pub const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";

/// Whether a class can stand for the resource.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX) || name.contains('/') && !name.contains("kubernetes.io/")
}

/// What the containers of a pod ask for, init containers first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Extended {
    /// In the order of their names.
    pub resources: Vec<Symbol>,
    pub containers: Vec<Container>,
}

/// What one container asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Container {
    pub name: String,
    /// It runs as long as the pod: it is no init container, or a sidecar.
    pub stays: bool,
    pub wants: Vec<Want>,
}

/// So much of a resource.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Want {
    pub resource: Symbol,
    pub count: i64,
    /// Its place among the names of all that the container requests.
    pub place: usize,
}

/// What is asked of a class.
struct Request {
    name: String,
    class: Symbol,
    count: i64,
}

impl Extended {
    /// The requests of the claim for some of the resources, and which container uses which of them. An init container
    /// uses what those that come after it and stay have, and what is missing beside; of that, all init containers use
    /// the same.
    fn plan(&self, served: &[(Symbol, Symbol)], symbols: &Symbols) -> (Vec<Request>, Vec<Mapping>) {
        let (mut requests, mut mappings) = (Vec::new(), Vec::new());
        for (resource, class) in served {
            let wants = |at: usize| {
                self.containers[at]
                    .wants
                    .iter()
                    .find(|w| w.resource == *resource)
            };
            let request = |at: usize, want: &Want, count| Request {
                name: format!("container-{at}-request-{}", want.place),
                class: *class,
                count,
            };
            let mapping = |at: usize, request: &str| Mapping {
                container_name: self.containers[at].name.clone(),
                resource_name: symbols.text(*resource).to_owned(),
                request_name: request.to_owned(),
            };
            let all = 0..self.containers.len();
            let (stay, pass): (Vec<usize>, Vec<usize>) =
                all.partition(|at| self.containers[*at].stays);
            let mut lasting: Vec<(usize, Request)> = Vec::new();
            for at in stay {
                if let Some(want) = wants(at) {
                    let request = request(at, want, want.count);
                    mappings.push(mapping(at, &request.name));
                    lasting.push((at, request));
                }
            }
            let mut passing: Option<Request> = None;
            // By container: whether it uses that too.
            let mut beside = Vec::new();
            for at in pass {
                let Some(want) = wants(at) else { continue };
                let mut lacking = want.count;
                for (_, request) in lasting.iter().filter(|(of, _)| *of > at) {
                    if lacking <= 0 {
                        break;
                    }
                    lacking -= request.count;
                    beside.push((at, Some(request.name.clone())));
                }
                if lacking > 0 {
                    beside.push((at, None));
                    if passing.as_ref().is_none_or(|most| most.count < lacking) {
                        passing = Some(request(at, want, lacking));
                    }
                }
            }
            for (at, request) in beside {
                let name = request.or_else(|| passing.as_ref().map(|r| r.name.clone()));
                mappings.extend(name.map(|name| mapping(at, &name)));
            }
            requests.extend(passing);
            requests.extend(lasting.into_iter().map(|(_, request)| request));
        }
        requests.sort_by(|a, b| a.name.cmp(&b.name));
        (requests, mappings)
    }
}

/// What a pod asks for that classes stand for, and whose it is.
pub(super) struct Special<'a> {
    ask: &'a Extended,
    /// Resource and class.
    mapped: Vec<(Symbol, Symbol)>,
    namespace: &'a str,
    uid: &'a str,
    /// The claim, by the resources that the node lacks.
    variants: OnceLock<Box<Variant>>,
}

/// The claim for nodes that lack the same, and the next such. Nodes differ in few ways, and what was made stays.
struct Variant {
    served: Vec<(Symbol, Symbol)>,
    claim: (Claim, Made),
    next: OnceLock<Box<Variant>>,
}

impl<'a> Special<'a> {
    pub fn new(of: &Devices, ask: &'a Extended, namespace: &'a str, uid: &'a str) -> Self {
        let class = |resource: &Symbol| Some((*resource, *of.extended.get(resource)?));
        Self {
            ask,
            mapped: ask.resources.iter().filter_map(class).collect(),
            namespace,
            uid,
            variants: OnceLock::new(),
        }
    }

    /// What the node does not have itself: the claim for it, and what is to be written; `None` if it has all.
    pub fn on<'s>(
        &'s self,
        node: &Node,
        of: &Devices,
        symbols: &Symbols,
    ) -> Option<&'s (Claim, Made)> {
        let lacks = |(resource, _): &&(Symbol, Symbol)| {
            let there = node.other.iter().find(|(name, ..)| name == resource);
            there.is_none_or(|(_, all, _)| *all <= 0)
        };
        let served: Vec<_> = self.mapped.iter().filter(lacks).copied().collect();
        if served.is_empty() {
            return None;
        }
        let mut place = &self.variants;
        loop {
            let variant = place.get_or_init(|| {
                Box::new(Variant {
                    served: served.clone(),
                    claim: self.variant(&served, of, symbols),
                    next: OnceLock::new(),
                })
            });
            if variant.served == served {
                return Some(&variant.claim);
            }
            place = &variant.next;
        }
    }

    fn variant(
        &self,
        served: &[(Symbol, Symbol)],
        of: &Devices,
        symbols: &Symbols,
    ) -> (Claim, Made) {
        let (requests, mappings) = self.ask.plan(served, symbols);
        let class_name = |class: Symbol| {
            let class = of.classes.get(&class);
            class.map(|class| class.name.clone()).unwrap_or_default()
        };
        let ask = |request: &Request| {
            vec![Ask {
                name: request.name.clone(),
                request: request.name.clone(),
                class: request.class,
                class_name: class_name(request.class),
                selectors: Vec::new(),
                amount: Amount::Exactly(usize::try_from(request.count).unwrap_or_default()),
                admin: false,
                tolerations: Vec::new(),
                capacity: Default::default(),
                unsupported: None,
            }]
        };
        let told = |request: &Request| k8s::DeviceRequest {
            name: request.name.clone(),
            exactly: Some(k8s::ExactDeviceRequest {
                device_class_name: class_name(request.class),
                allocation_mode: Some("ExactCount".to_owned()),
                count: Some(request.count),
                ..Default::default()
            }),
            first_available: None,
        };
        let claim = Claim::special(self.namespace, self.uid, requests.iter().map(ask).collect());
        let made = Made {
            requests: requests.iter().map(told).collect(),
            mappings,
        };
        (claim, made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Containers as `name stays count`, of one resource.
    #[rstest]
    #[case::one("main + 2", &["container-0-request-0=2"], &["main:container-0-request-0"])]
    #[case::two("a + 1, b + 2", &["container-0-request-0=1", "container-1-request-0=2"],
        &["a:container-0-request-0", "b:container-1-request-0"])]
    #[case::init_uses_what_comes_after("init - 1, main + 2", &["container-1-request-0=2"],
        &["main:container-1-request-0", "init:container-1-request-0"])]
    #[case::init_needs_more("init - 3, a + 1, b + 1",
        &["container-0-request-0=1", "container-1-request-0=1", "container-2-request-0=1"],
        &["a:container-1-request-0", "b:container-2-request-0", "init:container-1-request-0",
            "init:container-2-request-0", "init:container-0-request-0"])]
    #[case::init_containers_share("x - 2, y - 4, main + 1",
        &["container-1-request-0=3", "container-2-request-0=1"],
        &["main:container-2-request-0", "x:container-2-request-0", "x:container-1-request-0",
            "y:container-2-request-0", "y:container-1-request-0"])]
    #[case::of_a_sidecar_before_nothing_is_used("side + 1, init - 1, main + 0",
        &["container-0-request-0=1", "container-1-request-0=1"],
        &["side:container-0-request-0", "init:container-1-request-0"])]
    fn containers_share_what_is_asked_for(
        #[case] containers: &str,
        #[case] want: &[&str],
        #[case] maps: &[&str],
    ) {
        let mut symbols = Symbols::default();
        let resource = symbols.intern("example.com/gpu");
        let class = symbols.intern("gpu");
        let container = |text: &str| {
            let parts: Vec<&str> = text.split(' ').collect();
            let count = parts[2].parse().unwrap();
            let want = Want {
                resource,
                count,
                place: 0,
            };
            Container {
                name: parts[0].to_owned(),
                stays: parts[1] == "+",
                wants: Some(want).filter(|w| w.count > 0).into_iter().collect(),
            }
        };
        let extended = Extended {
            resources: vec![resource],
            containers: containers.split(", ").map(container).collect(),
        };
        let (requests, mappings) = extended.plan(&[(resource, class)], &symbols);
        let requests: Vec<String> = requests
            .iter()
            .map(|r| format!("{}={}", r.name, r.count))
            .collect();
        assert_eq!(requests, want);
        let mappings: Vec<String> = mappings
            .iter()
            .map(|m| format!("{}:{}", m.container_name, m.request_name))
            .collect();
        assert_eq!(mappings, maps);
    }

    #[rstest]
    #[case("example.com/gpu", true)]
    #[case("deviceclass.resource.kubernetes.io/gpu", true)]
    #[case("cpu", false)]
    #[case("hugepages-2Mi", false)]
    #[case("kubernetes.io/x", false)]
    fn classes_stand_for_resources_that_are_not_kubernetes_own(
        #[case] name: &str,
        #[case] want: bool,
    ) {
        assert_eq!(is_name(name), want);
    }
}
