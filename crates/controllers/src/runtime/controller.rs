//! A controller is a function of a key; this module runs it: queue, workers, back-off.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::{Api, ApiError};
use super::events::Recorder;
use super::informer::Informers;
use super::queue::Queue;
use crate::model::Key;

/// What every controller works with.
#[derive(Clone)]
pub struct Context {
    pub api: Api,
    pub informers: Arc<Informers>,
    pub recorder: Recorder,
    pub stop: CancellationToken,
    pub node_timing: crate::nodelifecycle::Timing,
    pub autoscaling: crate::autoscaler::Timing,
    /// How long a Job waits after the first failure of a pod.
    pub job_backoff: Duration,
    /// The certificate (PEM) by which the API server is known, where it is given.
    pub root_ca: Option<Arc<str>>,
}

/// What is left to do for a key after it was worked on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until something changes.
    #[default]
    Done,
    /// Look again after this long.
    After(Duration),
}

pub trait Controller: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    fn reconcile(&self, key: &Key) -> impl Future<Output = Result<Outcome, ApiError>> + Send;
}

/// Starts `workers` workers of a controller on its queue.
pub fn spawn<C: Controller>(
    controller: Arc<C>,
    queue: &Arc<Queue<Key>>,
    workers: usize,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) {
    for _ in 0..workers {
        let (controller, queue, stop) = (controller.clone(), queue.clone(), stop.clone());
        tasks.spawn(async move {
            while let Some(key) = queue.next(&stop).await {
                let result = tokio::select! {
                    result = controller.reconcile(&key) => result,
                    () = stop.cancelled() => return,
                };
                match result {
                    Ok(Outcome::Done) => queue.done(&key),
                    Ok(Outcome::After(delay)) => {
                        queue.add_after(key.clone(), delay);
                        queue.done(&key);
                    }
                    Err(error) => {
                        if error.conflict() || error.namespace_terminating() {
                            tracing::debug!(controller = controller.name(), %key, error = &error as &dyn std::error::Error, "trying again");
                        } else {
                            tracing::warn!(controller = controller.name(), %key, error = &error as &dyn std::error::Error, message = error.message(), "reconcile failed; trying again");
                        }
                        queue.failed(&key);
                    }
                }
            }
        });
    }
}

/// Requests of one burst that may be under way together. With all workers busy that is as many as fill a server; more
/// of them only wait there, each with its memory, before the requests of those who bind and run what was made.
const IN_FLIGHT: usize = 24;

/// Runs `count` requests in batches of 1, 2, 4, … as long as all go well, so that a request that
/// cannot succeed (no quota, say) is made once and not a thousand times. How many succeeded, and
/// the first error.
pub async fn slow_start<F, Fut>(count: usize, request: F) -> (usize, Option<ApiError>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), ApiError>>,
{
    let mut next = 0;
    let mut batch = 1;
    let mut succeeded = 0;
    while next < count {
        let end = count.min(next + batch);
        let (good, error) = together(next..end, &request).await;
        succeeded += good;
        if error.is_some() {
            return (succeeded, error);
        }
        next = end;
        batch *= 2;
    }
    (succeeded, None)
}

/// Runs requests side by side, all of them whatever fails. How many succeeded, and the first error.
pub async fn together<F, Fut>(range: Range<usize>, request: F) -> (usize, Option<ApiError>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), ApiError>>,
{
    let Range {
        start: mut next,
        end,
    } = range;
    let mut flight = FuturesUnordered::new();
    let mut succeeded = 0;
    let mut first_error = None;
    loop {
        while next < end && flight.len() < IN_FLIGHT {
            flight.push(request(next));
            next += 1;
        }
        match flight.next().await {
            Some(Ok(())) => succeeded += 1,
            Some(Err(error)) => {
                first_error.get_or_insert(error);
            }
            None => return (succeeded, first_error),
        }
    }
}
