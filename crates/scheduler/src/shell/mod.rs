//! The shell: watches feed the core, decisions become bindings. One task owns the core; decoding, binding and
//! reporting run beside it.

mod calls;
mod driver;
mod inputs;
mod objects;

use objects::{Input, follow};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pods with this `spec.schedulerName` are placed; all others are left alone.
    pub scheduler_name: String,
    /// Bindings in flight at most.
    pub parallel_binds: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            parallel_binds: 64,
        }
    }
}

/// Why the scheduler ended.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// An option makes no sense.
    #[error("option {0} must be above zero")]
    Option(&'static str),
}

/// Objects decoded and not yet taken in, at most; beyond that the watches wait.
const WAITING_INPUT: usize = 4096;

/// Schedules pods until `stop` is cancelled. All state is rebuilt from watches; nothing is decided before all
/// initial lists are complete. While the API server is away the watches are tried again and again.
///
/// # Errors
/// If an option makes no sense.
pub async fn run(
    client: kube::Client,
    options: Options,
    stop: CancellationToken,
) -> Result<(), Error> {
    if options.parallel_binds == 0 {
        return Err(Error::Option("parallel_binds"));
    }
    let (send, receive) = mpsc::channel(WAITING_INPUT);
    let relist_pods = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    let never = || Arc::new(Notify::new());
    watches.spawn(follow(client.clone(), Input::Node, send.clone(), never()));
    watches.spawn(follow(
        client.clone(),
        Input::Namespace,
        send.clone(),
        never(),
    ));
    watches.spawn(follow(
        client.clone(),
        Input::Service,
        send.clone(),
        never(),
    ));
    watches.spawn(follow(
        client.clone(),
        Input::ReplicaSet,
        send.clone(),
        never(),
    ));
    watches.spawn(follow(
        client.clone(),
        Input::StatefulSet,
        send.clone(),
        never(),
    ));
    watches.spawn(follow(client.clone(), Input::Claim, send.clone(), never()));
    watches.spawn(follow(client.clone(), Input::Budget, send.clone(), never()));
    watches.spawn(follow(
        client.clone(),
        Input::Pod,
        send,
        relist_pods.clone(),
    ));
    driver::Driver::new(client, options, relist_pods)
        .drive(receive, stop)
        .await;
    watches.shutdown().await;
    Ok(())
}
