//! Keeps the parts of a cluster running: a part that fails is started again, with growing pauses.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// The longest pause before a failed part is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The running parts; dropping it aborts them.
#[derive(Default)]
pub struct Parts {
    tasks: JoinSet<()>,
}

impl Parts {
    /// Runs `part` until `stop`. The parts keep no state but what the API holds, so one that ends
    /// with an error is simply started anew.
    pub fn run<F, E>(
        &mut self,
        cluster: &str,
        name: &'static str,
        stop: CancellationToken,
        part: impl Fn(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send,
        E: std::error::Error + Send,
    {
        let cluster = cluster.to_owned();
        self.tasks.spawn(async move {
            let mut pause = Duration::from_millis(250);
            while !stop.is_cancelled() {
                match part(stop.child_token()).await {
                    Ok(()) if stop.is_cancelled() => break,
                    Ok(()) => error!(%cluster, part = name, "ended without being asked to"),
                    Err(e) => error!(%cluster, part = name, error = %chain(&e), "failed"),
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                info!(%cluster, part = name, "starting again");
            }
        });
    }

    /// Waits until every part has stopped.
    pub async fn stopped(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// An error with all that caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failed_part_is_started_again_until_stopped() {
        let starts = Arc::new(AtomicU32::new(0));
        let stop = CancellationToken::new();
        let mut parts = Parts::default();
        let (counted, stopping) = (starts.clone(), stop.clone());
        parts.run("c", "part", stop, move |stop| {
            let (counted, stopping) = (counted.clone(), stopping.clone());
            async move {
                if counted.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(std::io::Error::other("broken"));
                }
                stopping.cancel();
                stop.cancelled().await;
                Ok(())
            }
        });
        parts.stopped().await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}
