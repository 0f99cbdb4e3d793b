//! The server: configuration, start and stop, sockets, in-process clients.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gantry_store::Store;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::RwLock;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{
    admission::PluginSettings,
    age,
    aggregate::{self, Aggregator},
    allocate,
    api::Api,
    audit::{Audit, AuditConfig, AuditError, Peer},
    authn::{
        Authentication, AuthenticationError, Authenticator, MASTERS, UserInfo, certificate::Shown,
    },
    authz::{Authorization, Authorizer, WebhookError},
    bootstrap,
    browsers::Browsers,
    crd, endpoints,
    handle::handle,
    in_process,
    proxy::{
        self,
        authority::{Authority, FRONT_PROXY, KUBELET_CLIENT},
        links::{Identity, Links, Network},
    },
    registry::Registry,
    reload::{self, Reload},
    runtime_config::RuntimeConfig,
    tls,
};

/// What `/version` tells.
#[derive(Debug, Clone)]
pub struct Version {
    pub major: String,
    pub minor: String,
    pub git_version: String,
    pub git_commit: String,
    /// RFC 3339, or empty.
    pub build_date: String,
}

impl Default for Version {
    fn default() -> Version {
        Version {
            major: "1".to_owned(),
            minor: "36".to_owned(),
            git_version: format!("v1.36.0+gantry-{}", env!("CARGO_PKG_VERSION")),
            git_commit: String::new(),
            build_date: String::new(),
        }
    }
}

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// The address that clients of the cluster reach the server at, where that is not `address`.
    pub advertise: Option<IpAddr>,
    /// Folder of the certificate authority, the serving certificate and the key of ServiceAccount
    /// tokens, made when absent; `None` keeps them in memory for this run.
    pub cert_dir: Option<PathBuf>,
    /// Serving certificate and private key to use instead of making one, PEM files.
    pub serving_certificate: Option<(PathBuf, PathBuf)>,
    pub authentication: Authentication,
    /// What is recorded of requests, if anything is.
    pub audit: Option<AuditConfig>,
    /// Authorizers, asked in this order.
    pub authorization: Vec<Authorization>,
    /// IPv4 range of Service addresses, `10.0.0.0/16`.
    pub service_cidr: (Ipv4Addr, u8),
    /// Range of node ports, both ends included.
    pub node_ports: (u16, u16),
    pub allow_privileged: bool,
    /// Certificate and private key, PEM files, that extension API servers know the server by, if not
    /// its own.
    pub proxy_client: Option<(PathBuf, PathBuf)>,
    /// Versions of built-in groups that are not served.
    pub runtime: RuntimeConfig,
    /// Admission steps left out, by Kubernetes' name (`ServiceAccount`, `LimitRanger`, …).
    pub disabled_admission: Vec<String>,
    /// Admission steps taken that are not by default, by Kubernetes' name (`AlwaysPullImages`, …).
    pub enabled_admission: Vec<String>,
    /// What is set of the others.
    pub admission: PluginSettings,
    pub version: Version,
    /// The oldest version of TLS that clients may speak.
    pub tls_least: tls::TlsVersion,
    pub tls_ciphers: tls::Ciphers,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// How old a state may be that a list begins or goes on with; what the store still has of older
    /// ones is not given. [`Duration::MAX`]: any.
    pub list_age: Duration,
    /// Requests worked on at a time, watches left out: the seats that priority levels share.
    pub seats: u32,
    /// What browsers are told.
    pub browsers: Browsers,
    /// Files that are read again when they change.
    pub reload: Reload,
    /// How kubelets are reached.
    pub kubelet: Kubelets,
    /// The network of simulated nodes and pods in this process.
    pub network: Option<Arc<dyn Network>>,
}

/// How kubelets are reached, in the words of kube-apiserver's `--kubelet-…` flags.
#[derive(Clone, Debug)]
pub struct Kubelets {
    /// Certificate and key that kubelets know the server by. Without, one that the cluster's authority
    /// of clients has signed, where its key is here; else one that only kubelets know that run beside
    /// the server ([`Server::node_link`]).
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Bundle of authorities that kubelets' certificates are verified with. Without, they are not
    /// verified, as kube-apiserver does.
    pub certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses is taken: the first of these types that it has.
    pub address_types: Vec<String>,
}

impl Default for Kubelets {
    fn default() -> Kubelets {
        Kubelets {
            client_certificate: None,
            certificate_authority: None,
            address_types: [
                "Hostname",
                "InternalDNS",
                "InternalIP",
                "ExternalDNS",
                "ExternalIP",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }
}

/// What a kubelet needs to serve this server.
#[derive(Clone)]
pub struct NodeLink {
    /// What it shows.
    pub serving: Identity,
    /// The authority that signed what the server shows, PEM.
    pub client_ca: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            advertise: None,
            cert_dir: None,
            serving_certificate: None,
            authentication: Authentication::default(),
            audit: None,
            authorization: vec![Authorization::Node, Authorization::Rbac],
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 12),
            node_ports: (30_000, 32_767),
            allow_privileged: true,
            proxy_client: None,
            runtime: RuntimeConfig::default(),
            disabled_admission: vec![],
            enabled_admission: vec![],
            admission: PluginSettings::default(),
            version: Version::default(),
            tls_least: tls::TlsVersion::default(),
            tls_ciphers: tls::Ciphers::default(),
            event_ttl: Duration::from_secs(3600),
            list_age: Duration::from_secs(600),
            seats: 600,
            browsers: Browsers::default(),
            reload: Reload::default(),
            kubelet: Kubelets::default(),
            network: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("listening on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("preparing certificates")]
    Tls(#[from] tls::TlsError),
    #[error("preparing the audit log")]
    Audit(#[from] AuditError),
    #[error("preparing authorization")]
    Authorization(#[from] WebhookError),
    #[error("preparing authentication")]
    Authentication(#[from] AuthenticationError),
    #[error("writing the first objects: {0}")]
    Bootstrap(gantry_machinery::status::Failure),
}

/// A running API server. It ends by [`Server::shutdown`], or abruptly when dropped.
pub struct Server {
    address: SocketAddr,
    api: Arc<Api>,
    authority: Authority,
    /// The authority by which kubelets know the server, PEM.
    kubelets_know_by: String,
    connections: TaskTracker,
    accepting: Option<JoinHandle<()>>,
    ca_key: Option<String>,
}

/// How long [`Server::shutdown`] waits for requests that are under way.
const GRACE: Duration = Duration::from_secs(5);

impl Server {
    /// Starts to serve the objects of a store; returns when the first request can be answered.
    pub async fn start(config: Config, store: Store) -> Result<Server, StartError> {
        let listener =
            TcpListener::bind(config.address)
                .await
                .map_err(|source| StartError::Listen {
                    address: config.address,
                    source,
                })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.address,
            source,
        })?;
        let service = allocate::first_address(config.service_cidr);
        let files = tls::Files {
            dir: config.cert_dir.clone(),
            serving: config.serving_certificate.clone(),
        };
        let mut addresses = vec![IpAddr::V4(service), address.ip()];
        addresses.extend(config.advertise);
        let identity = tls::identity(&files, &addresses)?;
        let authenticator = Authenticator::new(
            &config.authentication,
            &identity.account_key,
            identity.client_ca(),
        )?;
        let tls = identity.config(
            authenticator.asked_for(),
            config.tls_least,
            &config.tls_ciphers,
        )?;
        let authority = Authority::new().map_err(tls::TlsError::from)?;
        let audit = match &config.audit {
            Some(audit) => Some(Arc::new(Audit::start(audit)?)),
            None => None,
        };
        let (links, kubelets_know_by) = links(&config, &identity, &authority)?;
        let links = Arc::new(links);
        let front = match &config.proxy_client {
            Some((cert, key)) => Identity {
                cert: file(cert)?,
                key: file(key)?,
            },
            None => authority
                .client(FRONT_PROXY, &[])
                .map_err(tls::TlsError::from)?,
        };
        let aggregator =
            Aggregator::new(store.clone(), links.clone(), front, authority.cert.clone());
        aggregator.load(&store);
        let client_ca = match &config.authentication.client_ca {
            Some(path) => Some(file(path)?),
            None => identity.client_ca().map(str::to_owned),
        };
        let authorizer = Authorizer::new(&config.authorization, &bootstrap::roles()).await?;
        let api = Arc::new(Api {
            links,
            aggregator,
            client_ca,
            audit,
            authorizer,
            hooks: crate::admission::Hooks::default(),
            event_limits: crate::admission::EventLimits::new(&config.admission.event_limits),
            callers: crate::webhook::Callers::new(store.clone(), config.network.clone()),
            frames: crate::rest::frames::Recent::default(),
            services: allocate::Services::load(&config, &store),
            registry: RwLock::new(Arc::new(Registry::new(vec![], 0))),
            redefined: tokio::sync::watch::Sender::new(()),
            authenticator,
            stop: CancellationToken::new(),
            ca_pem: identity.ca_pem.clone(),
            external: SocketAddr::new(config.advertise.unwrap_or(address.ip()), address.port()),
            reachable: endpoints::reachable(config.advertise, address.ip())
                .map(|ip| SocketAddr::new(ip, address.port())),
            aged: Default::default(),
            definitions: tokio::sync::Mutex::new(()),
            openapi: crate::openapi::Cache::default(),
            metrics: Arc::default(),
            flow: crate::flow::Flow::new(config.seats),
            config,
            store,
        });
        // The state before the first object is known to no client: a watch from there is one from
        // before this cluster, and is told so.
        let fresh = api.store.revision();
        crd::reload(&api);
        api.flow.reload(&api.store);
        crd::resume(&api).await;
        bootstrap::run(&api).await.map_err(StartError::Bootstrap)?;
        if fresh == 1 {
            api.store.compact(fresh + 1);
        }
        crate::admission::policies::status::resume(&api);
        let connections = TaskTracker::new();
        connections.spawn(bootstrap::expire_events(api.clone()));
        connections.spawn(age::run(api.clone()));
        connections.spawn(endpoints::run(api.clone()));
        connections.spawn(allocate::repair::run(api.clone()));
        api.authenticator.start(&connections, &api.stop);
        api.authorizer.start(&api.store, &connections, &api.stop);
        reload::start(&api, &connections);
        connections.spawn(aggregate::register::run(api.clone()));
        connections.spawn(aggregate::watchman::run(api.clone()));
        connections.spawn(crate::flow::lend(api.clone()));
        let accepting = tokio::spawn(accept(
            listener,
            TlsAcceptor::from(tls),
            api.clone(),
            connections.clone(),
        ));
        Ok(Server {
            address,
            api,
            authority,
            kubelets_know_by,
            connections,
            accepting: Some(accepting),
            ca_key: identity.ca_key,
        })
    }

    /// The address that is listened on, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Certificate of the authority that signed the serving certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.api.ca_pem
    }

    /// Certificate and private key, PEM, of the authority that client certificates are known by,
    /// where it was made here.
    pub fn authority(&self) -> Option<(&str, &str)> {
        let own = self.api.config.authentication.client_ca.is_none();
        let key = self.ca_key.as_deref().filter(|_| own)?;
        Some((&self.api.ca_pem, key))
    }

    /// Signs the tokens without an end that Secrets keep, for the controller that fills them: from
    /// namespace, name and uid of a ServiceAccount and the name of the Secret.
    pub fn sign_account_token(
        &self,
    ) -> impl Fn((&str, &str, &str), &str) -> Option<String> + Send + Sync + use<> {
        let api = self.api.clone();
        move |account, secret| {
            let accounts = &api.authenticator.accounts;
            accounts.issue_legacy(account, secret)
        }
    }

    /// A client in this process, without a socket, as a member of `system:masters`.
    pub fn client(&self) -> kube::Client {
        self.client_as("system:admin", &[MASTERS])
    }

    /// A client in this process as this user. What it may do is decided as for any other.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        let user = Arc::new(UserInfo::new(user, groups).authenticated());
        let api = self.api.clone();
        let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
            let (api, user) = (api.clone(), user.clone());
            async move {
                if proxy::forward::upgrade(request.headers()).is_some() {
                    return in_process::upgraded(api, user, request).await;
                }
                request.extensions_mut().insert(user);
                Ok(handle(api, request).await)
            }
        });
        kube::Client::new(service, "default")
    }

    /// What a kubelet at these names and addresses needs so that the server and it know each other.
    pub fn node_link(&self, hosts: &[String]) -> Result<NodeLink, tls::TlsError> {
        Ok(NodeLink {
            serving: self.authority.serving(hosts)?,
            client_ca: self.kubelets_know_by.clone(),
        })
    }

    /// Stops accepting, lets requests end (watches are ended), waits up to five seconds.
    pub async fn shutdown(mut self) {
        self.api.stop.cancel();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.await;
        }
        self.connections.close();
        if tokio::time::timeout(GRACE, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!("connections still open at shutdown are dropped");
        }
        if let Some(audit) = &self.api.audit {
            audit.flush().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.api.stop.cancel();
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

fn file(path: &Path) -> Result<String, tls::TlsError> {
    std::fs::read_to_string(path).map_err(|source| tls::TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// The connections that the server opens, and the authority by which kubelets know it.
fn links(
    config: &Config,
    identity: &tls::Identity,
    authority: &Authority,
) -> Result<(Links, String), tls::TlsError> {
    let kubelet = &config.kubelet;
    // Kubelets know clients as the server does: by the cluster's authority, where its key is here.
    let own = match config.authentication.client_ca {
        None => identity.client(KUBELET_CLIENT, &[MASTERS])?,
        Some(_) => None,
    };
    let (shown, known_by) = match (&kubelet.client_certificate, own) {
        (Some((cert, key)), _) => {
            let identity = Identity {
                cert: file(cert)?,
                key: file(key)?,
            };
            (identity, authority.cert.clone())
        }
        (None, Some(own)) => own,
        (None, None) => {
            let identity = authority.client(KUBELET_CLIENT, &[MASTERS])?;
            (identity, authority.cert.clone())
        }
    };
    let roots = match &kubelet.certificate_authority {
        Some(path) => Some(file(path)?),
        None => None,
    };
    let links = Links::new(Some(&shown), roots.as_deref(), config.network.clone())?;
    Ok((links, known_by))
}

/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Time for the head of a request, and between requests of a connection that is kept.
const HEAD_TIME: Duration = Duration::from_secs(90);

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, api: Arc<Api>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let _ = socket.set_nodelay(true);
                tasks.spawn(connection(socket, peer, acceptor.clone(), api.clone()));
            }
            Err(e) => {
                // Out of file descriptors or the like: wait a little instead of spinning.
                tracing::warn!(error = %e, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    socket: tokio::net::TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    api: Arc<Api>,
) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => {
            api.metrics.tls_errors.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, error = %e, "TLS handshake");
            return;
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            return;
        }
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(30));
    let stop = api.stop.clone();
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|chain| Shown::new(chain.iter().map(|c| c.clone().into_owned()).collect()));
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        if let Some(shown) = &shown {
            request.extensions_mut().insert(shown.clone());
        }
        let api = api.clone();
        async move { Ok::<_, Infallible>(handle(api, request).await) }
    });
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%peer, error = %e, "connection");
    }
}
