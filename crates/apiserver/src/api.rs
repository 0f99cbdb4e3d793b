//! What a server has without its sockets, and what is known of a request about a resource.

use std::sync::Arc;

use gantry_machinery::{resource::Resource, status::Failure};
use gantry_store::{Store, Stored};
use http::{HeaderMap, header};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    aggregate::Aggregator,
    allocate,
    audit::{self, Audit},
    authn::{Authenticator, UserInfo},
    authz::{Attributes, Authorizer},
    errors,
    flow::Flow,
    metrics::Metrics,
    ownership::Conversions,
    proxy,
    registry::{Entry, Registry},
    request::{Query, Target},
    respond::Output,
    route::refused,
    sealed::Pieces,
};

/// The server without its sockets.
pub struct Api {
    pub store: Store,
    pub config: Config,
    pub registry: RwLock<Arc<Registry>>,
    /// Rings when definitions have been read again.
    pub redefined: tokio::sync::watch::Sender<()>,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub audit: Option<Arc<Audit>>,
    pub hooks: crate::admission::Hooks,
    pub event_limits: crate::admission::EventLimits,
    pub callers: crate::webhook::Callers,
    /// What watchers were sent last.
    pub frames: crate::rest::frames::Recent,
    pub services: allocate::Services,
    pub stop: CancellationToken,
    pub ca_pem: String,
    /// Address and port that clients reach the server at.
    pub external: std::net::SocketAddr,
    /// Where the `kubernetes` Service leads, if others can reach the server; see `endpoints`.
    pub reachable: Option<std::net::SocketAddr>,
    /// States before this revision are too old to be listed; see `age`.
    pub aged: std::sync::atomic::AtomicU64,
    /// Writes of definitions are applied one after the other.
    pub definitions: tokio::sync::Mutex<()>,
    pub openapi: crate::openapi::Cache,
    pub metrics: Arc<Metrics>,
    pub flow: Flow,
    /// Connections to kubelets and pods.
    pub links: Arc<proxy::links::Links>,
    /// Group versions that other servers serve.
    pub aggregator: Aggregator,
    /// The authorities that client certificates are known by, PEM.
    pub client_ca: Option<String>,
}

impl Api {
    /// Tells what is served at one time from what is at another.
    pub fn generation(&self, registry: &Registry) -> (u64, u64) {
        (registry.generation, self.aggregator.state().generation)
    }

    /// Whether an object is kept on disk in another way than it would be if it were written now: then
    /// writing it again is worth it though nothing changes.
    pub fn kept_otherwise(&self, stored: &Stored) -> bool {
        stored.stale || self.config.reload.outdates(stored)
    }
}

/// One request about a resource, understood and allowed.
pub struct Cx {
    pub api: Arc<Api>,
    pub entry: Arc<Entry>,
    pub target: Target,
    pub query: Query,
    pub user: Arc<UserInfo>,
    pub headers: HeaderMap,
    pub output: Output,
    pub now: jiff::Timestamp,
    pub warnings: Vec<String>,
    /// What the audit log is told beside.
    pub notes: audit::Notes,
    /// The server's own request: webhooks and policies are not asked about it.
    pub own: bool,
    /// What of the object that is being changed was not opened.
    pub pieces: Pieces,
    /// The object in versions in which managers wrote it.
    pub conversions: Conversions,
}

impl Cx {
    pub fn resource(&self) -> &Arc<Resource> {
        &self.entry.resource
    }

    pub fn store(&self) -> &Store {
        &self.api.store
    }

    pub fn dry_run(&self) -> bool {
        self.query.all("dryRun").any(|v| v == "All")
    }

    /// The field manager: as given, else the client's name from its User-Agent.
    pub fn manager(&self) -> String {
        match self.query.text("fieldManager") {
            "" => {
                let agent = self
                    .headers
                    .get(header::USER_AGENT)
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or_default();
                let name = agent.split('/').next().unwrap_or_default();
                let clean: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
                if clean.is_empty() {
                    "unknown".to_owned()
                } else {
                    clean
                }
            }
            given => given.to_owned(),
        }
    }

    /// Adds warnings to the answer, each once however often the work was tried again.
    pub fn warn(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    /// Notes something for the audit log; what was noted first under a name stays.
    pub fn annotate(&self, name: &str, value: String) {
        self.notes.add(name.to_owned(), value);
    }

    pub fn key(&self, name: &str) -> gantry_store::Key {
        crate::object::key(&self.entry, &self.target.namespace, name)
    }

    pub fn not_found(&self) -> Failure {
        errors::not_found(self.resource(), &self.target.name)
    }

    /// Refuses with 403 when the user may not do something else that this needs.
    pub fn demand(&self, a: &Attributes<'_>) -> Result<(), Failure> {
        let authorizer = &self.api.authorizer;
        match authorizer.decide_now(&self.api.store, &self.user, a) {
            Ok(_) => Ok(()),
            Err(no) => Err(refused(&self.user, a, &no.reason)),
        }
    }

    /// Whether the user may do something else too, in the namespace of the request.
    pub fn may(&self, a: &Attributes<'_>) -> bool {
        self.api
            .authorizer
            .decide_now(&self.api.store, &self.user, a)
            .is_ok()
    }
}
