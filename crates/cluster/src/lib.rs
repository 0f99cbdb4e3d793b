//! A whole Kubernetes cluster in one process: API server and store, workload controllers,
//! scheduler and simulated nodes, composed from their crates.
//!
//! ```no_run
//! # async fn example() -> Result<(), gantry_cluster::StartError> {
//! let cluster = gantry_cluster::EmbeddedCluster::start().await?;
//! let client = cluster.client();          // an ordinary kube::Client, called in-process
//! // … create objects, run an operator under test …
//! cluster.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! [`EmbeddedCluster::start`] keeps everything in memory and is gone when dropped: each test can
//! have its own. [`Builder::data_dir`] makes it durable: started again on the same folder, it goes
//! on where it was, under the same address, certificate and token where they are free.

mod access;
mod builder;
mod supervise;

use std::net::SocketAddr;

use gantry_apiserver::Server;
use gantry_store::Store;
use kube::Client;
use kube::config::Kubeconfig;
use tokio_util::sync::CancellationToken;

pub use access::{Context, merge_contexts, write_private};
pub use builder::{Builder, DataFault, StartError};
pub use gantry_hollow::NodeGroup;

pub use supervise::Parts;

/// A running cluster. Dropping it stops it without waiting; [`EmbeddedCluster::shutdown`] waits
/// until every part has stopped and the store is closed.
pub struct EmbeddedCluster {
    name: String,
    server: Server,
    store: Store,
    token: String,
    stop: CancellationToken,
    parts: Parts,
}

impl EmbeddedCluster {
    /// A cluster in memory on a free loopback port, with workload controllers, scheduler and one
    /// simulated node.
    pub async fn start() -> Result<Self, StartError> {
        Self::builder().start().await
    }

    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client that calls the API server in-process, as a member of `system:masters`.
    pub fn client(&self) -> Client {
        self.server.client()
    }

    /// Where the API server listens (HTTPS).
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How to reach this cluster from outside the process, as administrator.
    pub fn context(&self) -> Context {
        Context {
            name: self.name.clone(),
            server: format!("https://{}", self.server.address()),
            ca_pem: self.server.ca_pem().to_owned(),
            token: self.token.clone(),
        }
    }

    /// A kubeconfig with this cluster as its only context.
    pub fn kubeconfig(&self) -> Kubeconfig {
        merge_contexts(&[self.context()])
    }

    /// Stops all parts, then the API server, then closes the store.
    pub async fn shutdown(self) {
        let EmbeddedCluster {
            server,
            store,
            stop,
            mut parts,
            ..
        } = self;
        stop.cancel();
        parts.stopped().await;
        server.shutdown().await;
        // The folder is free again when this returns.
        store.close().await;
    }
}
