//! Features that nodes declare (`status.declaredFeatures`, KEP-5328) and pods may need: kube-scheduler's
//! NodeDeclaredFeatures, which is on by default since Kubernetes 1.36. Of the features that 1.36 knows, two are asked
//! of a node before a pod comes to it; the others only matter to changes of running pods.

use crate::core::object::{Container, Pod};

/// Their names, sorted.
const NAMES: [&str; 2] = [
    "RestartAllContainersOnContainerExits",
    "UserNamespacesHostNetworkSupport",
];

/// Some of the features that pods can need, by their place among the names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Features(u8);

impl Features {
    /// What a pod needs.
    #[must_use]
    pub fn needed(pod: &Pod) -> Self {
        let spec = &pod.spec;
        let restarts_all = |c: &Container| {
            let mut rules = c.restart_policy_rules.iter();
            rules.any(|rule| rule.action == "RestartAllContainers")
        };
        let mut containers = spec.containers.iter().chain(&spec.init_containers);
        let restarts = containers.any(restarts_all);
        let mapped = spec.host_network == Some(true) && spec.host_users == Some(false);
        Self(u8::from(restarts) | u8::from(mapped) << 1)
    }

    /// What a node declares.
    #[must_use]
    pub fn declared(names: &[String]) -> Self {
        let bit = |(at, known): (usize, &&str)| u8::from(names.iter().any(|n| n == known)) << at;
        Self(NAMES.iter().enumerate().map(bit).sum())
    }

    /// Those that a node does not have.
    #[must_use]
    pub const fn without(self, declared: Self) -> Self {
        Self(self.0 & !declared.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names, joined.
    #[must_use]
    pub fn names(self) -> String {
        let names = NAMES.iter().enumerate();
        let names = names.filter(|(at, _)| self.0 & (1 << at) != 0);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        names.join(", ")
    }
}
