//! Figures of a running scheduler, as Prometheus reads them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// All figures. Counters only grow; gauges are as of the last look.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Counter: pods given a node.
    pub placed: AtomicU64,
    /// Counter: times that a pod was found to fit nowhere.
    pub unschedulable: AtomicU64,
    /// Counter: bindings that failed.
    pub failed_binds: AtomicU64,
    /// Counter: preemptions begun.
    pub preemptions: AtomicU64,
    /// Counter: rounds in which several workers decided.
    pub rounds: AtomicU64,
    /// Counter: pods that workers found a node for.
    pub decided_together: AtomicU64,
    /// Counter: those of them that were decided anew, as another worker had taken what they relied on.
    pub conflicts: AtomicU64,
    /// Gauge: pods that wait for a node.
    pub pending: AtomicU64,
    /// Gauge: nodes whose usage is looked at and not known, or was measured too long ago.
    pub stale_nodes: AtomicU64,
    /// Counter: measurements that became too old.
    pub stale_measurements: AtomicU64,
    /// All objects have been seen once: pods are decided.
    pub synced: AtomicBool,
}

impl Metrics {
    /// The exposition format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let all = [
            (
                "pods_placed_total",
                "counter",
                "Pods given a node.",
                &self.placed,
            ),
            (
                "unschedulable_attempts_total",
                "counter",
                "Times that a pod was found to fit nowhere.",
                &self.unschedulable,
            ),
            (
                "failed_binds_total",
                "counter",
                "Bindings that failed.",
                &self.failed_binds,
            ),
            (
                "preemptions_total",
                "counter",
                "Preemptions begun.",
                &self.preemptions,
            ),
            (
                "rounds_total",
                "counter",
                "Rounds in which several workers decided.",
                &self.rounds,
            ),
            (
                "decided_together_total",
                "counter",
                "Pods that workers of a round found a node for.",
                &self.decided_together,
            ),
            (
                "conflicts_total",
                "counter",
                "Pods decided anew, as another worker had taken what they relied on.",
                &self.conflicts,
            ),
            (
                "pending_pods",
                "gauge",
                "Pods that wait for a node.",
                &self.pending,
            ),
            (
                "nodes_without_fresh_usage",
                "gauge",
                "Nodes whose usage is looked at and not known, or too old.",
                &self.stale_nodes,
            ),
            (
                "stale_measurements_total",
                "counter",
                "Measurements of nodes that became too old.",
                &self.stale_measurements,
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in all {
            let name = format!("gantry_scheduler_{name}");
            let value = value.load(Relaxed);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        }
        text
    }
}

/// Requests answered at a time, and how long one may take.
const AT_A_TIME: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers `GET /metrics`, and probes, on an address until `stop`.
///
/// # Errors
/// If the address cannot be had.
pub async fn serve(
    metrics: Arc<Metrics>,
    address: SocketAddr,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let places = Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the metrics did not come about");
                    continue;
                }
            },
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _place = place;
            // Whoever asks and goes away misses the answer only.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &metrics)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> std::io::Result<()> {
    let mut request = [0_u8; 4096];
    let mut len = 0;
    while len < request.len() && !request[..len].windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut request[len..]).await? {
            0 => break,
            read => len += read,
        }
    }
    let line = String::from_utf8_lossy(&request[..len]);
    let path = line.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = match path {
        "/metrics" => ("200 OK", metrics.text()),
        "/readyz" if !metrics.synced.load(Relaxed) => (
            "500 Internal Server Error",
            "not all objects have been seen yet\n".to_owned(),
        ),
        // As kube-scheduler's probes ask.
        "/healthz" | "/livez" | "/readyz" => ("200 OK", "ok".to_owned()),
        _ => (
            "404 Not Found",
            "there are /metrics, /healthz, /livez and /readyz\n".to_owned(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn figures_are_served() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let metrics = Arc::new(Metrics::default());
        metrics.placed.store(7, Relaxed);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(metrics.clone(), address, stop.clone()));
        let ask = async |path: &str| {
            let mut stream = loop {
                match TcpStream::connect(address).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let told = ask("/metrics").await;
        assert!(
            told.contains("\ngantry_scheduler_pods_placed_total 7\n"),
            "{told}"
        );
        assert!(ask("/readyz").await.starts_with("HTTP/1.1 500"));
        metrics.synced.store(true, Relaxed);
        for probe in ["/healthz", "/livez", "/readyz"] {
            assert!(ask(probe).await.ends_with("\r\n\r\nok"), "{probe}");
        }
        assert!(ask("/other").await.starts_with("HTTP/1.1 404"));
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
