//! May they: the authorizers that are asked one after the other, as `--authorization-mode` or
//! `--authorization-config` names them. The first that allows has the say, and the first that denies:
//! of those here, only webhooks deny; the others have no opinion on what they do not allow. They can be
//! [replaced](Authorizer::replace) while the server runs.

mod abac;
mod config;
mod node;
mod rbac;
pub mod references;
mod review;
mod webhook;

use std::sync::Arc;

use gantry_store::Store;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authn::{MASTERS, UserInfo},
    metrics::authorization::{self as metrics, Tally},
};
use webhook::{Begun, Hook, Question};

pub use abac::{Policy as AbacPolicy, parse as parse_policies};
pub use config::parse as parse_config;
pub use node::Kind as NodeReference;
pub use rbac::{GROUP, Rule, rules_of, uncovered};
pub use review::{Spoken, selectors};
pub use webhook::{WebhookAuthorization, WebhookError};

/// How requests are authorized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// Nodes by what their pods need.
    Node,
    Rbac,
    /// Everybody may do everything.
    AlwaysAllow,
    /// Nobody may do anything, but `system:masters`.
    AlwaysDeny,
    /// By the policies of a file.
    Abac(Arc<[AbacPolicy]>),
    /// By what another server says.
    Webhook(Box<WebhookAuthorization>),
}

impl Authorization {
    /// Its name in `--authorization-mode`.
    pub fn name(&self) -> &'static str {
        match self {
            Authorization::Node => "Node",
            Authorization::Rbac => "RBAC",
            Authorization::AlwaysAllow => "AlwaysAllow",
            Authorization::AlwaysDeny => "AlwaysDeny",
            Authorization::Abac(_) => "ABAC",
            Authorization::Webhook(_) => "Webhook",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for requests that are not about resources.
    pub path: Option<&'a str>,
    /// Fields that the objects of a list must have, with their values.
    pub fields: &'a [(String, String)],
    /// `fieldSelector` and `labelSelector` as a SubjectAccessReview names them: for webhooks.
    pub selectors: Option<&'a Value>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Allow,
    /// Nobody else is asked.
    Deny,
    NoOpinion,
}

/// What one authorizer says.
#[derive(Debug)]
struct Verdict {
    decision: Decision,
    reason: String,
    /// What went wrong in finding out.
    error: Option<String>,
}

impl Verdict {
    fn none() -> Verdict {
        Verdict {
            decision: Decision::NoOpinion,
            reason: String::new(),
            error: None,
        }
    }
}

impl From<Result<String, String>> for Verdict {
    fn from(said: Result<String, String>) -> Verdict {
        let decision = match said {
            Ok(_) => Decision::Allow,
            Err(_) => Decision::NoOpinion,
        };
        let (Ok(reason) | Err(reason)) = said;
        Verdict {
            decision,
            reason,
            error: None,
        }
    }
}

/// Why something may not be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// The authorizers' reasons; may be empty.
    pub reason: String,
    /// What kept authorizers from finding out: they might have allowed it.
    pub error: Option<String>,
}

/// What has been said so far.
#[derive(Default)]
struct Said {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Said {
    /// Hears one more; gives the outcome where there is no more to hear.
    fn hear(&mut self, verdict: Verdict) -> Option<Result<String, Refused>> {
        let Verdict {
            decision,
            reason,
            error,
        } = verdict;
        match decision {
            Decision::Allow => return Some(Ok(reason)),
            Decision::Deny => return Some(Err(Refused { reason, error })),
            Decision::NoOpinion => {}
        }
        self.reasons.extend(Some(reason).filter(|r| !r.is_empty()));
        self.errors.extend(error);
        None
    }

    fn end(self) -> Refused {
        Refused {
            reason: self.reasons.join("\n"),
            error: match self.errors.as_slice() {
                [] => None,
                [one] => Some(one.clone()),
                many => Some(format!("[{}]", many.join(", "))),
            },
        }
    }
}

/// One of the authorizers, ready to be asked.
enum Mode {
    Node,
    Rbac,
    AlwaysAllow,
    AlwaysDeny,
    Abac(Arc<[AbacPolicy]>),
    Webhook(Box<Hook>),
}

/// One of the authorizers, and what is counted of it.
struct Asked {
    mode: Mode,
    tally: Arc<Tally>,
}

/// Why the authorizers cannot be replaced by these.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    #[error("an authorizer of type {0} must stay: the server was started with it")]
    Gone(&'static str),
    #[error("an authorizer of type {0} cannot come in: the server was not started with it")]
    New(&'static str),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

pub struct Authorizer {
    modes: RwLock<Arc<[Asked]>>,
    rbac: rbac::Rbac,
    nodes: Option<node::Nodes>,
    pub metrics: Arc<metrics::Authorization>,
}

impl Authorizer {
    /// `roles` is the table of the roles that are there from the start.
    ///
    /// # Errors
    /// A webhook cannot be asked as configured.
    pub async fn new(modes: &[Authorization], roles: &Value) -> Result<Authorizer, WebhookError> {
        let nodes = modes.contains(&Authorization::Node).then(|| {
            let all = roles.get("clusterroles").and_then(Value::as_array);
            let mut all = all.into_iter().flatten();
            let role = all.find(|r| crate::object::name(r) == "system:node");
            node::Nodes::new(role.map(rules_of).unwrap_or_default())
        });
        let metrics = Arc::<metrics::Authorization>::default();
        Ok(Authorizer {
            modes: RwLock::new(ready(modes, &metrics).await?),
            rbac: rbac::Rbac::default(),
            nodes,
            metrics,
        })
    }

    /// Asks these from the next request on. Those of webhooks may be others than before; what is built
    /// in may change its place only, for it is prepared when the server starts. Nothing that webhooks
    /// said before is remembered.
    ///
    /// # Errors
    /// Another built-in one comes in or one goes, or a webhook cannot be asked as configured: those from
    /// before are asked on.
    pub async fn replace(&self, modes: &[Authorization]) -> Result<(), ReplaceError> {
        let built_in = |name: &&'static str| *name != "Webhook";
        let now: Vec<_> = self.asked().iter().map(|a| a.mode.name()).collect();
        let then: Vec<_> = modes.iter().map(Authorization::name).collect();
        let gone = now
            .iter()
            .copied()
            .filter(built_in)
            .find(|n| !then.contains(n));
        let new = then
            .iter()
            .copied()
            .filter(built_in)
            .find(|n| !now.contains(n));
        match (gone, new) {
            (Some(gone), _) => return Err(ReplaceError::Gone(gone)),
            (None, Some(new)) => return Err(ReplaceError::New(new)),
            (None, None) => {}
        }
        *self.modes.write() = ready(modes, &self.metrics).await?;
        Ok(())
    }

    fn asked(&self) -> Arc<[Asked]> {
        self.modes.read().clone()
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

    /// Whether somebody else is asked, who is told of selectors.
    pub fn asks(&self) -> bool {
        let asked = self.modes.read();
        asked.iter().any(|a| matches!(a.mode, Mode::Webhook(_)))
    }

    /// Why it is allowed, or why it is not; reasons may be empty.
    ///
    /// # Errors
    /// It is not allowed.
    pub async fn decide(
        &self,
        store: &Store,
        user: &UserInfo,
        a: &Attributes<'_>,
    ) -> Result<String, Refused> {
        if user.in_group(MASTERS) {
            return Ok(String::new());
        }
        let mut said = Said::default();
        for asked in self.asked().iter() {
            let verdict = match self.say(&asked.mode, store, user, a) {
                (Begun::Known(verdict), _) => verdict,
                (Begun::Ask(question), hook) => ask(hook, question).await,
            };
            asked.count(verdict.decision);
            if let Some(outcome) = said.hear(verdict) {
                return outcome;
            }
        }
        Err(said.end())
    }

    /// The same where nothing can be waited for: in expressions and in what is asked beside a request.
    /// Whoever has to be asked over the network is, while this thread stands still; that is rare, for
    /// answers are remembered. On a runtime of one thread, where nobody would be there to hear the
    /// answer, it counts as one that did not come.
    ///
    /// # Errors
    /// It is not allowed.
    pub fn decide_now(
        &self,
        store: &Store,
        user: &UserInfo,
        a: &Attributes<'_>,
    ) -> Result<String, Refused> {
        if user.in_group(MASTERS) {
            return Ok(String::new());
        }
        let mut said = Said::default();
        for asked in self.asked().iter() {
            let verdict = match self.say(&asked.mode, store, user, a) {
                (Begun::Known(verdict), _) => verdict,
                (Begun::Ask(question), hook) => standing(hook, question),
            };
            asked.count(verdict.decision);
            if let Some(outcome) = said.hear(verdict) {
                return outcome;
            }
        }
        Err(said.end())
    }

    /// What an authorizer says, or whom to ask.
    fn say<'m>(
        &self,
        mode: &'m Mode,
        store: &Store,
        user: &UserInfo,
        a: &Attributes<'_>,
    ) -> (Begun, Option<&'m Hook>) {
        let said = match mode {
            Mode::AlwaysAllow => Ok(String::new()),
            Mode::AlwaysDeny => Err("Everything is forbidden.".to_owned()),
            Mode::Rbac => self.rbac.authorize(store, user, a),
            Mode::Node => match (&self.nodes, user.node()) {
                (Some(_), Some("")) => Err(format!("unknown node for user {:?}", user.name)),
                (Some(nodes), Some(node)) => {
                    nodes.authorize(store, node, a).map(|()| String::new())
                }
                _ => Err(String::new()),
            },
            Mode::Abac(policies) => match policies.iter().any(|p| p.allows(user, a)) {
                true => Ok(String::new()),
                false => Err("No policy matched.".to_owned()),
            },
            Mode::Webhook(hook) => return (hook.begin(user, a), Some(hook)),
        };
        (Begun::Known(said.into()), None)
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
        for asked in self.asked().iter() {
            match &asked.mode {
                Mode::AlwaysAllow => rules.extend([all(), all_urls()]),
                Mode::Rbac => {
                    let (held, missing) = self.rbac.rules(store, user, namespace);
                    rules.extend(held);
                    unsure.extend(missing);
                }
                Mode::Abac(policies) => {
                    rules.extend(policies.iter().flat_map(|p| p.rules(user, namespace)));
                }
                Mode::Webhook(_) => unsure
                    .push("webhook authorizer does not support user rule resolution".to_owned()),
                Mode::Node if user.node().is_some() => {
                    unsure.push("node authorizer does not support user rule resolution".to_owned());
                }
                Mode::Node | Mode::AlwaysDeny => {}
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
    ) -> Option<Arc<Vec<Rule>>> {
        self.rbac.role(store, namespace, kind, name)
    }
}

impl Mode {
    /// Its type, as [`Authorization::name`] has it.
    fn name(&self) -> &'static str {
        match self {
            Mode::Node => "Node",
            Mode::Rbac => "RBAC",
            Mode::AlwaysAllow => "AlwaysAllow",
            Mode::AlwaysDeny => "AlwaysDeny",
            Mode::Abac(_) => "ABAC",
            Mode::Webhook(_) => "Webhook",
        }
    }
}

impl Asked {
    fn count(&self, decision: Decision) {
        match decision {
            Decision::Allow => self.tally.allowed(),
            Decision::Deny => self.tally.denied(),
            Decision::NoOpinion => {}
        }
    }
}

/// The authorizers as they are asked.
async fn ready(
    modes: &[Authorization],
    metrics: &Arc<metrics::Authorization>,
) -> Result<Arc<[Asked]>, WebhookError> {
    let mut ready = vec![];
    for given in modes {
        let mode = match given {
            Authorization::Node => Mode::Node,
            Authorization::Rbac => Mode::Rbac,
            Authorization::AlwaysAllow => Mode::AlwaysAllow,
            Authorization::AlwaysDeny => Mode::AlwaysDeny,
            Authorization::Abac(policies) => Mode::Abac(policies.clone()),
            Authorization::Webhook(hook) => {
                let hook = Hook::new((**hook).clone(), metrics.clone()).await?;
                Mode::Webhook(Box::new(hook))
            }
        };
        // What is built in is counted under its type in small letters, as kube-apiserver does where
        // flags name it.
        let name = match &mode {
            Mode::Webhook(hook) => hook.config.name.clone(),
            built_in => built_in.name().to_ascii_lowercase(),
        };
        let tally = metrics.tally(mode.name(), &name);
        ready.push(Asked { mode, tally });
    }
    Ok(ready.into())
}

async fn ask(hook: Option<&Hook>, question: Question) -> Verdict {
    match hook {
        Some(hook) => hook.ask(question).await,
        None => Verdict::none(),
    }
}

fn standing(hook: Option<&Hook>, question: Question) -> Verdict {
    let Some(hook) = hook else {
        return Verdict::none();
    };
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(hook.ask(question)))
        }
        _ => hook.failed("there is no thread to wait for the webhook on".to_owned()),
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
