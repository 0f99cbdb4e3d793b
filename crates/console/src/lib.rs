//! The web console and its HTTP API.
//!
//! Pages are rendered here, by `maud`, and work before any script has loaded; a page that stays open is
//! kept current over server-sent events, of which each carries only the parts that changed.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | reading models: what the fleet is, held in memory by watches, indexed |
//! | [`view`] | questions to the models: filtered by what the user may see, sorted, paged |
//! | [`page`] | one file a page: from a view to HTML |
//! | [`api`] | the same views as JSON, and their OpenAPI document |
//! | [`act`] | what changes something: each as the user, each with an audit line |
//! | [`enter`], [`oidc`] | logging in and out; with an identity provider |
//! | [`routes`] | every path there is, as patterns |
//! | [`session`], [`credential`], [`access`] | who is there, how they showed it, what they may see |
//! | [`live`] | rooms of pages that look at the same thing, and the stream of changed parts |
//! | [`messages`], [`prefs`] | texts in English and Chinese; language, theme, time zone |
//! | [`assets`], [`server`] | files of this binary; TLS and HTTP |
//!
//! Who may do what is not decided here. Reading is filtered by what the API server of the hub says that
//! the user may read (`SelfSubjectAccessReview`, remembered for seconds); what they may not see does not
//! exist for them. Writing is done with the user's own credential, on members by impersonation.

mod access;
mod act;
mod api;
mod app;
mod assets;
mod credential;
mod enter;
mod error;
mod live;
mod messages;
pub mod model;
pub mod oidc;
mod page;
mod prefs;
mod routes;
mod server;
mod session;
mod tls;
pub mod view;

use std::{net::SocketAddr, sync::Arc};

use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use app::API_PATHS;
pub use routes::{FORMS as FORM_PATHS, PAGES as PAGE_PATHS, STREAMS as STREAM_PATHS};
pub use tls::{Tls, TlsError};

/// What a console is started with.
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate.
    pub tls: Tls,
    /// The hub, with the console's own credential. Users' requests go to the same server with theirs.
    pub hub: Config,
    /// A client of the hub that is there already; else one is made from `hub`.
    pub client: Option<Client>,
    /// Whether to hand out a link that logs its first visitor in with the console's own credential: for
    /// who has that credential on this machine anyway.
    pub door: bool,
    /// Where records of what was done are kept, to be shown.
    pub records: Option<Arc<dyn gantry_records::Records>>,
    /// The identity provider that people may log in with.
    pub oidc: Option<oidc::Options>,
}

/// Why a console does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The certificate cannot be made or used.
    #[error("the console's certificate")]
    Tls(#[from] TlsError),
    /// The identity provider cannot be used.
    #[error("the identity provider")]
    Oidc(#[from] oidc::Error),
    /// No client can be made of the hub's configuration.
    #[error("making a client of the hub")]
    Client(#[source] Box<kube::Error>),
}

/// A running console.
pub struct Console {
    address: SocketAddr,
    door: Option<String>,
    model: Arc<model::Model>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Console {
    /// Starts watching and listening.
    ///
    /// # Errors
    /// If the address is taken, or certificate or configuration cannot be used.
    pub async fn start(options: Options) -> Result<Self, Error> {
        Self::start_with(options, None).await
    }

    /// The same over a model that nothing feeds, for benches.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[doc(hidden)]
    pub async fn start_with(options: Options, state: Option<model::State>) -> Result<Self, Error> {
        let client = match options.client {
            Some(client) => client,
            None => {
                Client::try_from(options.hub.clone()).map_err(|e| Error::Client(Box::new(e)))?
            }
        };
        let tls = options.tls.config()?;
        let oidc = options
            .oidc
            .map(oidc::Provider::new)
            .transpose()?
            .map(Arc::new);
        let address = options.address;
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let model = match state {
            Some(state) => model::Model::still(client, state),
            None => model::Model::start(client, options.hub.clone(), &stop, &tasks),
        };
        let (app, door) = app::App::new(
            model.clone(),
            options.hub,
            options.door,
            (options.records, oidc),
            stop.clone(),
            tasks.clone(),
        );
        let router = app::router(app);
        tasks.spawn(server::serve(
            listener,
            tls,
            router,
            stop.clone(),
            tasks.clone(),
        ));
        Ok(Self {
            address,
            door,
            model,
            stop,
            tasks,
        })
    }

    /// Its model, for benches that feed it.
    #[doc(hidden)]
    pub fn model(&self) -> &Arc<model::Model> {
        &self.model
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for a browser.
    pub fn url(&self) -> String {
        format!("https://{}/", self.address)
    }

    /// The link that logs its first visitor in, if one was asked for.
    pub fn door(&self) -> Option<String> {
        let code = self.door.as_ref()?;
        Some(format!("{}login?code={code}", self.url()))
    }

    /// Ends it.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
