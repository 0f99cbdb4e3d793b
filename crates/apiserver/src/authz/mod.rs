//! May they: the authorizers that are asked one after the other, as `--authorization-mode` names
//! them. The first that allows has the say; none of them forbids what another allows.

mod node;
mod rbac;
pub mod references;

use gantry_store::Store;
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::authn::{MASTERS, UserInfo};

pub use node::Kind as NodeReference;
pub use rbac::{GROUP, Rule, rules_of, uncovered};

/// How requests are authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Nodes by what their pods need.
    Node,
    Rbac,
    /// Everybody may do everything.
    AlwaysAllow,
    /// Nobody may do anything, but `system:masters`.
    AlwaysDeny,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for requests that are not about resources.
    pub path: Option<&'a str>,
    /// Fields that the objects of a list must have, with their values.
    pub fields: &'a [(String, String)],
}

impl Attributes<'_> {
    /// Whether only objects with this value of a field are asked for.
    pub fn selects(&self, field: &str, value: &str) -> bool {
        self.fields.iter().any(|(f, v)| f == field && v == value)
    }
}

/// The rules that hold for a user.
pub struct Rules {
    pub rules: Vec<Rule>,
    /// Why these may not be all.
    pub incomplete: Option<String>,
}

pub struct Authorizer {
    modes: Vec<Authorization>,
    rbac: rbac::Rbac,
    nodes: Option<node::Nodes>,
}

impl Authorizer {
    /// `roles` is the table of the roles that are there from the start.
    pub fn new(modes: &[Authorization], roles: &Value) -> Authorizer {
        let nodes = modes.contains(&Authorization::Node).then(|| {
            let all = roles.get("clusterroles").and_then(Value::as_array);
            let mut all = all.into_iter().flatten();
            let role = all.find(|r| crate::object::name(r) == "system:node");
            node::Nodes::new(role.map(rules_of).unwrap_or_default())
        });
        Authorizer {
            modes: modes.to_vec(),
            rbac: rbac::Rbac::default(),
            nodes,
        }
    }

    /// Starts what follows the store.
    pub fn start(&self, store: &Store, tasks: &TaskTracker, stop: &CancellationToken) {
        if let Some(nodes) = &self.nodes {
            nodes.start(store, tasks, stop);
        }
    }

    /// A role or binding was written.
    pub fn changed(&self) {
        self.rbac.changed();
    }

    /// Why it is allowed, `None` when it is not.
    pub fn authorize(&self, store: &Store, user: &UserInfo, a: &Attributes<'_>) -> Option<String> {
        self.decide(store, user, a).ok()
    }

    /// Why it is allowed, or why it is not; either may be empty.
    pub fn decide(
        &self,
        store: &Store,
        user: &UserInfo,
        a: &Attributes<'_>,
    ) -> Result<String, String> {
        if user.in_group(MASTERS) {
            return Ok(String::new());
        }
        let mut reasons: Vec<String> = vec![];
        for mode in &self.modes {
            let verdict = match mode {
                Authorization::AlwaysAllow => Ok(String::new()),
                Authorization::AlwaysDeny => Err("Everything is forbidden.".to_owned()),
                Authorization::Rbac => self.rbac.authorize(store, user, a),
                Authorization::Node => match (&self.nodes, user.node()) {
                    (Some(_), Some("")) => Err(format!("unknown node for user {:?}", user.name)),
                    (Some(nodes), Some(node)) => {
                        nodes.authorize(store, node, a).map(|()| String::new())
                    }
                    _ => Err(String::new()),
                },
            };
            match verdict {
                Ok(reason) => return Ok(reason),
                Err(reason) if reason.is_empty() => {}
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("\n"))
    }

    /// All rules that hold for a user in a namespace.
    pub fn rules(&self, store: &Store, user: &UserInfo, namespace: &str) -> Rules {
        let all = || Rule {
            verbs: vec!["*".to_owned()],
            groups: vec!["*".to_owned()],
            resources: vec!["*".to_owned()],
            ..Rule::default()
        };
        let all_urls = || Rule {
            verbs: vec!["*".to_owned()],
            urls: vec!["*".to_owned()],
            ..Rule::default()
        };
        let (mut rules, mut unsure) = (vec![], vec![]);
        if user.in_group(MASTERS) {
            rules.extend([all(), all_urls()]);
        }
        for mode in &self.modes {
            match mode {
                Authorization::AlwaysAllow => rules.extend([all(), all_urls()]),
                Authorization::Rbac => {
                    let (held, missing) = self.rbac.rules(store, user, namespace);
                    rules.extend(held);
                    unsure.extend(missing);
                }
                Authorization::Node if user.node().is_some() => {
                    unsure.push("node authorizer does not support user rule resolution".to_owned());
                }
                Authorization::Node | Authorization::AlwaysDeny => {}
            }
        }
        Rules {
            rules,
            incomplete: (!unsure.is_empty()).then(|| unsure.join(", ")),
        }
    }

    /// The rules that RBAC gives a user in a namespace: what he may pass on.
    pub fn held(&self, store: &Store, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.rbac.rules(store, user, namespace).0
    }

    /// The rules of a named role, `None` when there is none.
    pub fn role(
        &self,
        store: &Store,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Option<std::sync::Arc<Vec<Rule>>> {
        self.rbac.role(store, namespace, kind, name)
    }
}

/// The sentence that a refusal ends with, but for the authorizers' own reason.
pub fn refusal(user: &UserInfo, a: &Attributes<'_>) -> String {
    if let Some(path) = a.path {
        return format!("User \"{}\" cannot {} path \"{path}\"", user.name, a.verb);
    }
    let resource = if a.subresource.is_empty() {
        a.resource.to_owned()
    } else {
        format!("{}/{}", a.resource, a.subresource)
    };
    let place = if a.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", a.namespace)
    };
    format!(
        "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, a.verb, a.group
    )
}
