//! What a user may do, as the hub's API server says; remembered for some seconds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};
use parking_lot::Mutex;

use kube::Client;

use crate::{model::Model, session::Session};

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(10);
/// How many questions are asked at once.
const AT_ONCE: usize = 16;

/// A question: may they do this?
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Right {
    /// `get`, `list`, `patch` …
    pub verb: &'static str,
    /// API group; empty for Kubernetes' core.
    pub group: &'static str,
    /// Resource, in plural.
    pub resource: &'static str,
    /// Subresource, if any.
    pub sub: &'static str,
    /// Namespace; empty: all of them, or the resource has none.
    pub namespace: String,
    /// Name; empty: any.
    pub name: String,
}

impl Right {
    /// On one of Gantry's resources.
    pub fn gantry(verb: &'static str, resource: &'static str, namespace: &str) -> Self {
        Self {
            verb,
            group: gantry_api::GROUP,
            resource,
            namespace: namespace.to_owned(),
            ..Self::default()
        }
    }

    /// On one of Kubernetes' core resources.
    pub fn core(verb: &'static str, resource: &'static str, namespace: &str) -> Self {
        Self {
            verb,
            resource,
            namespace: namespace.to_owned(),
            ..Self::default()
        }
    }

    /// On one object.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// On a subresource.
    pub fn sub(mut self, sub: &'static str) -> Self {
        self.sub = sub;
        self
    }
}

/// Answers, and when they were given.
#[derive(Default)]
pub struct Rights {
    /// By the place that was asked (the hub: empty) and what for.
    answers: Mutex<HashMap<(String, Right), (bool, Instant)>>,
}

impl Rights {
    fn known(&self, asked: &(String, Right)) -> Option<bool> {
        let answers = self.answers.lock();
        let (yes, at) = answers.get(asked)?;
        (at.elapsed() < FRESH).then_some(*yes)
    }

    fn keep(&self, asked: (String, Right), yes: bool) {
        let mut answers = self.answers.lock();
        if answers.len() > 20_000 {
            answers.retain(|_, (_, at)| at.elapsed() < FRESH);
        }
        answers.insert(asked, (yes, Instant::now()));
    }
}

impl Session {
    /// Whether they may. What cannot be found out is a no, and is asked again next time.
    pub async fn may(&self, right: Right) -> bool {
        self.may_at("", &self.client, right).await
    }

    /// The same of a member, asked as they.
    pub async fn may_at(&self, place: &str, client: &Client, right: Right) -> bool {
        let asked = (place.to_owned(), right);
        if let Some(known) = self.rights.known(&asked) {
            return known;
        }
        let right = &asked.1;
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: text(right.verb),
                    group: text(right.group),
                    resource: text(right.resource),
                    subresource: text(right.sub),
                    namespace: text(&right.namespace),
                    name: text(&right.name),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => {
                let yes = answer.status.is_some_and(|s| s.allowed);
                self.rights.keep(asked, yes);
                yes
            }
            Err(_) => false,
        }
    }

    /// In which of these tenants they may list a resource of Gantry.
    async fn tenants(&self, resource: &'static str, tenants: &BTreeSet<String>) -> Tenants {
        let all = Right::gantry("list", resource, "");
        let in_one = |tenant: &str| Right::gantry("list", resource, tenant);
        self.which(all, tenants, in_one).await
    }

    /// Of which of these names they may do what is asked: of all, or of some.
    pub async fn which(
        &self,
        all: Right,
        names: &BTreeSet<String>,
        of_one: impl Fn(&str) -> Right,
    ) -> Tenants {
        if self.may(all).await {
            return Tenants::All;
        }
        let asked = stream::iter(names.iter().cloned().map(|name| {
            let right = of_one(&name);
            async move { self.may(right).await.then_some(name) }
        }));
        let some = asked
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        Tenants::Some(some)
    }
}

/// Tenants that someone sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tenants {
    /// All there are and will be.
    All,
    /// These.
    Some(BTreeSet<String>),
}

impl Tenants {
    /// Whether a tenant is among them.
    pub fn see(&self, tenant: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(some) => some.contains(tenant),
        }
    }
}

/// What someone sees of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// Tenants whose Groups (and instances) they see.
    pub groups: Tenants,
    /// Tenants whose Releases they see.
    pub releases: Tenants,
    /// Whether they see Clusters.
    pub clusters: bool,
    /// Whether they see nodes.
    pub nodes: bool,
    /// Whether they see stopped lines.
    pub lines: bool,
    /// Whether they see the placement policies of members.
    pub policies: bool,
}

impl Sight {
    /// Asks for all of it; what was asked some seconds ago is not asked again.
    pub async fn of(session: &Session, model: &Model) -> Arc<Self> {
        let tenants: BTreeSet<String> = model
            .read()
            .tenants()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let (groups, releases, clusters, nodes, lines, policies) = futures::join!(
            session.tenants("groups", &tenants),
            session.tenants("releases", &tenants),
            session.may(Right::gantry("list", "clusters", "")),
            session.may(Right::core("list", "nodes", "")),
            session.may(Right::gantry("list", "stoplines", "")),
            session.may(Right::gantry("list", "placementpolicies", "")),
        );
        Arc::new(Self {
            groups,
            releases,
            clusters,
            nodes,
            lines,
            policies,
        })
    }

    /// Everything, for benches.
    pub fn everything() -> Self {
        Self {
            groups: Tenants::All,
            releases: Tenants::All,
            clusters: true,
            nodes: true,
            lines: true,
            policies: true,
        }
    }
}
