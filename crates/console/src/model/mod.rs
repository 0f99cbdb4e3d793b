//! Reading models: what the fleet is, held in memory by watches. One watch a kind, work proportional to
//! change; who reads takes a short lock and copies what it shows.

mod feed;
pub mod limits;
pub mod machines;
mod member;
pub mod rows;
pub mod state;
pub mod usage;

use std::{collections::HashMap, sync::Arc};

use kube::{Client, Config};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use member::Member;
pub use rows::{Instance, Key, Load, Node};
pub use state::{Health, State, Topic};

/// Changes that may wait for a slow listener; one that falls behind further looks at everything anew.
const BACKLOG: usize = 1024;

/// The fleet as it is known, and who is told of changes.
pub struct Model {
    state: RwLock<State>,
    changes: broadcast::Sender<Topic>,
    /// How members are reached; `None`: as the hub.
    access: Mutex<HashMap<String, Config>>,
    /// What instances really use, of Groups that somebody looks at.
    pub usage: usage::Usage,
    /// What nodes really use, while somebody looks.
    pub machines: machines::Machines,
    /// The hub, as the console itself.
    pub client: Client,
}

impl Model {
    /// A model that nothing feeds, for tests and benches.
    pub fn still(client: Client, state: State) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(state),
            changes: broadcast::channel(BACKLOG).0,
            access: Mutex::default(),
            usage: usage::Usage::default(),
            machines: machines::Machines::default(),
            client,
        })
    }

    /// Starts the watches.
    pub fn start(
        client: Client,
        hub: Config,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let model = Self::still(client, State::default());
        feed::start(&model, hub, stop, tasks);
        model
    }

    /// The fleet as it is known now. Not to be held over an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Topic> {
        self.changes.subscribe()
    }

    /// How a member is reached, with the console's own credential.
    pub fn access(&self, member: &str) -> Option<Config> {
        self.access.lock().get(member).cloned()
    }

    /// Makes a change and tells of it.
    pub fn change(&self, change: impl FnOnce(&mut State) -> Vec<Topic>) {
        let topics = change(&mut self.state.write());
        for topic in topics {
            // Nobody listening is no failure.
            let _ = self.changes.send(topic);
        }
    }
}
