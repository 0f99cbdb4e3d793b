//! One watch of all pods that keeps count: how many there are, how many run, how long each took.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::AsyncBufReadExt;
use kube::Client;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use tokio::sync::{mpsc, watch};

use crate::failure::{Exit, Failure, Result};

/// What has been seen up to now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods that there are.
    pub there: usize,
    /// Of them, those that run and are not about to go.
    pub running: usize,
    pub events: u64,
}

/// The pods as the events tell them: pure, fed a line and a time at a time.
#[derive(Debug, Default)]
pub struct Pods {
    by_name: FxHashMap<String, Pod>,
    running: usize,
    events: u64,
    /// From the first event of each pod to the one that says it runs.
    took: Vec<Duration>,
}

#[derive(Debug)]
struct Pod {
    since: Instant,
    /// It ran at some time.
    ran: bool,
    runs: bool,
    node: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: Kind,
    object: Object,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object {
    metadata: Metadata,
    spec: Spec,
    status: Phase,
    message: String,
}

/// The phase of a status; nothing else of it is read.
#[derive(Default)]
struct Phase(String);

impl<'de> Deserialize<'de> for Phase {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Phase, D::Error> {
        struct Status;

        impl<'de> Visitor<'de> for Status {
            type Value = Phase;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the status of a pod, or the word that an error has instead")
            }

            fn visit_str<E>(self, _: &str) -> std::result::Result<Phase, E> {
                Ok(Phase::default())
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Phase, A::Error> {
                let mut phase = Phase::default();
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    match &*name {
                        "phase" => phase.0 = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(phase)
            }
        }

        from.deserialize_any(Status)
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

impl Pods {
    /// Takes one line of a watch in.
    fn take(&mut self, line: &str, now: Instant) -> anyhow::Result<()> {
        let frame: Frame = serde_json::from_str(line).context("cannot read an event of pods")?;
        let Object {
            metadata,
            spec,
            status,
            message,
        } = frame.object;
        match frame.kind {
            Kind::Bookmark => return Ok(()),
            Kind::Error => anyhow::bail!("the watch of pods ended: {message}"),
            _ => self.events += 1,
        }
        let key = format!("{}/{}", metadata.namespace, metadata.name);
        if frame.kind == Kind::Deleted {
            let gone = self.by_name.remove(&key);
            self.running -= usize::from(gone.is_some_and(|pod| pod.runs));
            return Ok(());
        }
        let pod = self.by_name.entry(key).or_insert_with(|| Pod {
            since: now,
            ran: false,
            runs: false,
            node: None,
        });
        let runs = status.0 == "Running" && metadata.deletion_timestamp.is_none();
        if runs && !pod.ran {
            pod.ran = true;
            self.took.push(now.duration_since(pod.since));
        }
        if pod.node.is_none() {
            pod.node = spec.node_name.map(Into::into);
        }
        self.running = self.running - usize::from(pod.runs) + usize::from(runs);
        pod.runs = runs;
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts {
            there: self.by_name.len(),
            running: self.running,
            events: self.events,
        }
    }

    /// How long pods took from creation to running, shortest first.
    fn times(&self) -> Vec<Duration> {
        let mut times = self.took.clone();
        times.sort_unstable();
        times
    }

    /// The node with the most running pods, and how many.
    fn busiest(&self) -> Option<(String, usize)> {
        let mut nodes: FxHashMap<&str, usize> = FxHashMap::default();
        for pod in self.by_name.values().filter(|pod| pod.runs) {
            if let Some(node) = &pod.node {
                *nodes.entry(node).or_default() += 1;
            }
        }
        let most = nodes
            .into_iter()
            .max_by_key(|(name, count)| (*count, *name));
        most.map(|(name, count)| (name.to_owned(), count))
    }
}

/// What a watcher is asked.
enum Question {
    Times(tokio::sync::oneshot::Sender<Vec<Duration>>),
    Busiest(tokio::sync::oneshot::Sender<Option<(String, usize)>>),
}

/// A running watch.
pub struct Watcher {
    counts: watch::Receiver<Counts>,
    questions: mpsc::Sender<Question>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// Events are counted one by one; whoever waits hears of them in steps this long.
const STEP: Duration = Duration::from_millis(10);

impl Watcher {
    /// Watches from the present state on.
    pub async fn start(client: &Client) -> Result<Watcher> {
        let request = http::Request::get("/api/v1/pods?watch=1&timeoutSeconds=86400")
            .body(vec![])
            .context("cannot build a request")?;
        let stream = client.request_stream(request).await;
        let mut lines = stream.context("cannot watch pods")?.lines();
        let (told, counts) = watch::channel(Counts::default());
        let (questions, mut asked) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut pods = Pods::default();
            let mut step = tokio::time::interval(STEP);
            loop {
                tokio::select! {
                    line = futures::StreamExt::next(&mut lines) => match line {
                        Some(line) => {
                            let line = line.context("the watch of pods ended")?;
                            pods.take(&line, Instant::now())?;
                        }
                        None => anyhow::bail!("the watch of pods ended"),
                    },
                    _ = step.tick() => {
                        told.send_if_modified(|counts| {
                            let new = pods.counts();
                            std::mem::replace(counts, new) != new
                        });
                    }
                    question = asked.recv() => match question {
                        Some(Question::Times(answer)) => { let _ = answer.send(pods.times()); }
                        Some(Question::Busiest(answer)) => { let _ = answer.send(pods.busiest()); }
                        None => return Ok(()),
                    },
                }
            }
        });
        Ok(Watcher {
            counts,
            questions,
            task,
        })
    }

    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until this holds, for so long at most; the counts when it does.
    pub async fn until(
        &mut self,
        what: &str,
        within: Duration,
        holds: impl FnMut(&Counts) -> bool,
    ) -> Result<Counts> {
        let waiting = tokio::time::timeout(within, self.counts.wait_for(holds));
        let outcome = waiting.await.map(|seen| seen.map(|counts| *counts).ok());
        match outcome {
            Ok(Some(counts)) => Ok(counts),
            Ok(None) => Err(self.ended().await),
            Err(_) => {
                let seen = self.counts();
                let message = format!(
                    "{what} took more than {}s: {} pods are there, {} of them run",
                    within.as_secs(),
                    seen.there,
                    seen.running
                );
                Err(Failure::new(Exit::Failure, message).hint("give it longer with --timeout"))
            }
        }
    }

    /// How long pods took from creation to running, shortest first.
    pub async fn times(&mut self) -> Result<Vec<Duration>> {
        let (answer, times) = tokio::sync::oneshot::channel();
        let _ = self.questions.send(Question::Times(answer)).await;
        match times.await {
            Ok(times) => Ok(times),
            Err(_) => Err(self.ended().await),
        }
    }

    /// The node with the most running pods, and how many.
    pub async fn busiest(&mut self) -> Result<Option<(String, usize)>> {
        let (answer, node) = tokio::sync::oneshot::channel();
        let _ = self.questions.send(Question::Busiest(answer)).await;
        match node.await {
            Ok(node) => Ok(node),
            Err(_) => Err(self.ended().await),
        }
    }

    async fn ended(&mut self) -> Failure {
        let why = match (&mut self.task).await {
            Ok(Err(why)) => why,
            _ => anyhow::anyhow!("the watch of pods ended"),
        };
        why.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(kind: &str, name: &str, phase: &str, node: &str, deleting: bool) -> String {
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        json!({"type": kind, "object": {
            "metadata": {"namespace": "n", "name": name, "deletionTimestamp": deleted},
            "spec": {"nodeName": node}, "status": {"phase": phase},
        }})
        .to_string()
    }

    #[test]
    fn pods_are_counted_from_creation_to_deletion() {
        let start = Instant::now();
        let mut pods = Pods::default();
        let mut see = |seconds, line: String| {
            pods.take(&line, start + Duration::from_secs(seconds))
                .unwrap();
            let seen = pods.counts();
            (seen.there, seen.running)
        };
        assert_eq!(see(0, line("ADDED", "a", "Pending", "x", false)), (1, 0));
        assert_eq!(see(1, line("ADDED", "b", "Pending", "x", false)), (2, 0));
        assert_eq!(see(3, line("MODIFIED", "a", "Running", "x", false)), (2, 1));
        assert_eq!(see(4, line("MODIFIED", "a", "Running", "x", false)), (2, 1));
        assert_eq!(see(6, line("MODIFIED", "b", "Running", "x", false)), (2, 2));
        assert_eq!(see(7, line("MODIFIED", "b", "Running", "x", true)), (2, 1));
        assert_eq!(see(8, line("DELETED", "b", "Running", "x", true)), (1, 1));
        assert_eq!(see(9, line("DELETED", "b", "Running", "x", true)), (1, 1));
        assert_eq!(pods.busiest(), Some(("x".to_owned(), 1)));
        assert_eq!(pods.times(), [3, 5].map(Duration::from_secs));
        assert_eq!(pods.counts().events, 8);
    }

    #[test]
    fn an_error_of_the_watch_ends_it() {
        let line = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure",
            "message": "too old resource version"}});
        let error = Pods::default().take(&line.to_string(), Instant::now());
        assert!(error.unwrap_err().to_string().contains("too old"));
    }
}
