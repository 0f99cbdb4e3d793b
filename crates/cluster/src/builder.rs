//! How a cluster is set up: what it consists of, where it keeps its data, where it listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use gantry_apiserver::{
    AuditConfig, Authentication, Config, Network, OidcIssuer, Server, StaticToken, Stream,
};
use gantry_controllers::certificates::Authority;
use gantry_controllers::tokens::TokenSigner;
use gantry_hollow::{NodeGroup, Scenario};
use gantry_store::Store;
use tokio_util::sync::CancellationToken;

use crate::EmbeddedCluster;
use crate::access::write_private;
use crate::supervise::Parts;

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("could not open the store of cluster {cluster}")]
    Store {
        cluster: String,
        source: gantry_store::OpenError,
    },
    #[error("could not start the API server of cluster {cluster}")]
    Server {
        cluster: String,
        source: gantry_apiserver::StartError,
    },
    #[error("could not write {}", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("could not read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// What is wrong with a data folder, for callers that tell these apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFault {
    InUse,
    Unwritable,
    /// Written by a newer version.
    Newer,
    Damaged,
}

impl StartError {
    /// Whether the address to listen on is taken.
    pub fn address_in_use(&self) -> bool {
        matches!(
            self,
            StartError::Server { source: gantry_apiserver::StartError::Listen { source, .. }, .. }
                if source.kind() == std::io::ErrorKind::AddrInUse
        )
    }

    /// What is wrong with the data folder, where that is the reason.
    pub fn data_fault(&self) -> Option<DataFault> {
        use gantry_store::OpenError;
        match self {
            StartError::Store {
                source: OpenError::InUse { .. },
                ..
            } => Some(DataFault::InUse),
            StartError::Store {
                source: OpenError::Unwritable { .. },
                ..
            }
            | StartError::Write { .. } => Some(DataFault::Unwritable),
            StartError::Store {
                source: OpenError::Newer { .. },
                ..
            } => Some(DataFault::Newer),
            StartError::Store {
                source: OpenError::Corrupt { .. },
                ..
            } => Some(DataFault::Damaged),
            _ => None,
        }
    }
}

/// Sets up an [`EmbeddedCluster`].
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    data_dir: Option<PathBuf>,
    address: SocketAddr,
    controllers: bool,
    scheduler: bool,
    nodes: Vec<NodeGroup>,
    seed: u64,
    scenario: Option<Arc<Scenario>>,
    ranges: Option<(String, String)>,
    store: gantry_store::Options,
    issuers: Vec<OidcIssuer>,
    audit: Option<AuditConfig>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            name: "gantry".into(),
            data_dir: None,
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            controllers: true,
            scheduler: true,
            nodes: vec![NodeGroup {
                count: 1,
                ..NodeGroup::default()
            }],
            seed: 0,
            scenario: None,
            ranges: None,
            store: gantry_store::Options::default(),
            issuers: vec![],
            audit: None,
        }
    }
}

impl Builder {
    /// Name of the cluster in kubeconfigs, logs and errors.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Keeps objects, certificates and token in this folder, which is made where it is missing.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(folder.into());
        self
    }

    /// How much of the past is kept: what lists and watches may begin at.
    pub fn store_options(mut self, options: gantry_store::Options) -> Self {
        self.store = options;
        self
    }

    /// Where the API server listens; port 0 takes a free one.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Whether workload controllers run in the cluster.
    pub fn controllers(mut self, on: bool) -> Self {
        self.controllers = on;
        self
    }

    /// Whether pods are scheduled.
    pub fn scheduler(mut self, on: bool) -> Self {
        self.scheduler = on;
        self
    }

    /// The simulated nodes; none leaves the cluster without.
    pub fn nodes(mut self, groups: Vec<NodeGroup>) -> Self {
        self.nodes = groups;
        self
    }

    /// Seed of all that is random about the simulated nodes.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What happens on the simulated nodes; its own nodes only if they are among [`Builder::nodes`].
    pub fn scenario(mut self, scenario: Option<Arc<Scenario>>) -> Self {
        self.scenario = scenario;
        self
    }

    /// Address ranges of the simulated pods and nodes, as CIDRs.
    pub fn ranges(mut self, (pods, nodes): (String, String)) -> Self {
        self.ranges = Some((pods, nodes));
        self
    }

    /// Outside issuers of ID tokens, whose users are known here.
    pub fn issuers(mut self, issuers: Vec<OidcIssuer>) -> Self {
        self.issuers = issuers;
        self
    }

    /// What its API server's audit log records, and where that is kept.
    pub fn audit(mut self, audit: Option<AuditConfig>) -> Self {
        self.audit = audit;
        self
    }

    pub async fn start(self) -> Result<EmbeddedCluster, StartError> {
        let store = match &self.data_dir {
            None => Store::in_memory(self.store.clone()),
            Some(folder) => {
                let folder = folder.join("store");
                let mut options = self.store.clone();
                // Nothing is encrypted here; what was encrypted elsewhere is said to be.
                options
                    .keeper
                    .get_or_insert_with(|| Arc::new(gantry_apiserver::Encryption::default()));
                let opened = tokio::task::spawn_blocking(move || Store::open(&folder, options))
                    .await
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                opened.map_err(|source| StartError::Store {
                    cluster: self.name.clone(),
                    source,
                })?
            }
        };
        let token = self.token()?;
        let network = gantry_hollow::Network::default();
        let config = Config {
            address: self.address,
            cert_dir: self.data_dir.as_ref().map(|d| d.join("pki")),
            authentication: Authentication {
                tokens: vec![StaticToken {
                    token: token.clone(),
                    user: "admin".into(),
                    uid: String::new(),
                    groups: vec!["system:masters".into()],
                }],
                oidc: self.issuers.clone(),
                ..Authentication::default()
            },
            network: Some(Arc::new(SimulatedNetwork(network.clone()))),
            audit: self.audit.clone(),
            list_age: self.store.history_age,
            ..Config::default()
        };
        let server = Server::start(config, store.clone())
            .await
            .map_err(|source| StartError::Server {
                cluster: self.name.clone(),
                source,
            })?;
        let stop = CancellationToken::new();
        let parts = self.parts(&server, network, &stop);
        Ok(EmbeddedCluster {
            name: self.name,
            server,
            store,
            token,
            stop,
            parts,
        })
    }

    fn parts(
        &self,
        server: &Server,
        network: gantry_hollow::Network,
        stop: &CancellationToken,
    ) -> Parts {
        let mut parts = Parts::default();
        if self.controllers {
            let client = server.client();
            let options = gantry_controllers::Options {
                root_ca: Some(server.ca_pem().to_owned()),
                default_class: Some("standard".to_owned()),
                authority: server
                    .authority()
                    .and_then(|(certificate, key)| Authority::new(certificate, key).ok())
                    .map(Arc::new),
                tokens: Some(TokenSigner::new(server.sign_account_token())),
                ..Default::default()
            };
            parts.run(&self.name, "controllers", stop.clone(), move |stop| {
                gantry_controllers::run(client.clone(), options.clone(), stop)
            });
        }
        if self.scheduler {
            let client = server.client();
            parts.run(&self.name, "scheduler", stop.clone(), move |stop| {
                gantry_scheduler::run(client.clone(), gantry_scheduler::Options::default(), stop)
            });
        }
        if !self.nodes.is_empty() {
            let client = server.client();
            let mut options = gantry_hollow::Options {
                groups: self.nodes.clone(),
                seed: self.seed,
                network: Some(network),
                ..Default::default()
            };
            if let Some(scenario) = &self.scenario {
                scenario.apply(&mut options);
            }
            if let Some((pods, nodes)) = &self.ranges {
                options.pod_cidr.clone_from(pods);
                options.node_cidr.clone_from(nodes);
            }
            parts.run(&self.name, "simulated nodes", stop.clone(), move |stop| {
                gantry_hollow::run(client.clone(), options.clone(), stop)
            });
        }
        parts
    }

    /// The administrator's token: kept in the data folder, so that a kubeconfig written once stays
    /// good after a restart.
    fn token(&self) -> Result<String, StartError> {
        let Some(folder) = &self.data_dir else {
            return Ok(new_token());
        };
        let path = folder.join("token");
        match std::fs::read_to_string(&path) {
            Ok(token) if !token.trim().is_empty() => return Ok(token.trim().to_owned()),
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StartError::Read { path, source });
            }
            _ => {}
        }
        let token = new_token();
        store_token(&path, &token)?;
        Ok(token)
    }
}

/// The network of the simulated nodes, as the API server reaches it.
#[derive(Debug)]
struct SimulatedNetwork(gantry_hollow::Network);

impl Network for SimulatedNetwork {
    fn covers(&self, host: &str) -> bool {
        self.0.covers(host)
    }

    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, std::io::Result<Stream>> {
        let network = self.0.clone();
        Box::pin(async move {
            let pipe = network.connect(&host, port).await?;
            Ok(Box::new(pipe) as Stream)
        })
    }
}

fn store_token(path: &Path, token: &str) -> Result<(), StartError> {
    write_private(path, token.as_bytes()).map_err(|source| StartError::Write {
        path: path.to_owned(),
        source,
    })
}

/// 128 bits from the operating system, in hexadecimal.
fn new_token() -> String {
    uuid::Uuid::new_v4().simple().to_string() + &uuid::Uuid::new_v4().simple().to_string()
}
