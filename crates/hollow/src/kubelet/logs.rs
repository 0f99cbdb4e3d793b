//! Logs of simulated containers: made up, the same each time they are read, and saying so.
//!
//! Where the container's process can be run ([`crate::program`]), its log is what that prints. Else a run
//! says once that it is simulated, then that it still is every ten seconds, then
//! how it ended. What is told follows from the pod's status alone.

use super::{
    Answer, Network,
    found::{Found, Run, find},
    plain,
    query::Query,
    scene::{Scene, scene},
    streamed,
    usage::subject,
};
use crate::{behaviour::Prints, truth::Truth};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, runtime::watcher::watch_object};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::mpsc;

/// Between two lines of a running container.
const BEAT: SignedDuration = SignedDuration::from_secs(10);
/// Milliseconds between two looks at what a process has printed.
const LOOK: u64 = 500;
/// Lines that are kept of a run, as by a log that is rotated.
const KEPT: i64 = 10_000;

/// A line and its time.
type Line = (Timestamp, String);

/// What a container has to say.
pub struct Voice {
    /// Its process, where that can be run.
    scene: Option<Scene>,
    /// Lines that a scenario gives it.
    prints: Option<Arc<Prints>>,
    truth: Truth,
    /// Where requests reach it.
    network: Option<Network>,
}

impl Voice {
    /// That of a container: the scenario's lines, else what its process prints, else signs of life.
    pub async fn of(network: &Network, client: &Client, pod: &Pod, container: &str) -> Self {
        let truth = network.truth();
        let prints = told(&truth, pod, container);
        let scene = match prints {
            Some(_) => None,
            None => scene(network, client, pod, container).await,
        };
        Self {
            scene,
            prints,
            truth,
            network: Some(network.clone()),
        }
    }

    /// The time, for it.
    pub fn now(&self) -> Timestamp {
        self.truth.clock.now().timestamp()
    }

    /// Milliseconds between two lines.
    #[expect(clippy::cast_possible_truncation, reason = "at most some hours")]
    fn beat(&self) -> i64 {
        let Some(prints) = &self.prints else {
            return i64::try_from(BEAT.as_millis()).unwrap_or(10_000);
        };
        let scale = if self.truth.scale > 0.0 {
            self.truth.scale
        } else {
            1.0
        };
        ((prints.every.as_secs_f64() * 1e3 / scale) as i64).max(1)
    }

    /// The nth line, from 1 on.
    fn line(&self, nth: i64) -> Option<String> {
        let lines = &self.prints.as_ref()?.lines;
        let index = usize::try_from(nth - 1).ok()? % lines.len().max(1);
        Some(lines.get(index)?.replace("{n}", &nth.to_string()))
    }
}

/// The lines that the scenario gives a container.
fn told(truth: &Truth, pod: &Pod, container: &str) -> Option<Arc<Prints>> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let container = all.find(|it| it.name == container)?;
    truth.prints(&subject(pod, container, None))
}

/// The lines of a run up to an instant, in order: its own, and what it prints of requests.
fn lines(
    pod: &Pod,
    container: &Found<'_>,
    run: &Run,
    until: Timestamp,
    voice: &Voice,
) -> Vec<Line> {
    let mut all = own_lines(pod, container, run, until, voice);
    let Some(network) = &voice.network else {
        return all;
    };
    // Times in the status are whole seconds.
    let second = SignedDuration::from_secs(1);
    let end = run.finished.as_ref().map_or(until, |it| it.0 + second);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let heard = network.printed(uid, container.name);
    let heard = heard
        .into_iter()
        .filter(|it| it.0 >= run.started && it.0 <= end.min(until));
    let before = all.len();
    all.extend(heard);
    if all.len() > before {
        all.sort_by_key(|it| it.0);
    }
    all
}

fn own_lines(
    pod: &Pod,
    container: &Found<'_>,
    run: &Run,
    until: Timestamp,
    voice: &Voice,
) -> Vec<Line> {
    let name = container.name;
    let end = run.finished.as_ref().map_or(until, |it| it.0).min(until);
    if let Some(scene) = &voice.scene {
        // Times in the status are whole seconds.
        return scene.lines(run, end + SignedDuration::from_millis(999));
    }
    let mut all = vec![];
    let beat_millis = voice.beat();
    let beats =
        i64::try_from(end.duration_since(run.started).as_millis()).unwrap_or(0) / beat_millis;
    let first = (beats - KEPT).max(0);
    if first == 0 && end >= run.started {
        let meta = &pod.metadata;
        let text = format!(
            "simulated by Gantry: container {name} ({}) of pod {}/{}, run {}: nothing runs here",
            container.image,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            run.attempt,
        );
        all.push((run.started, text));
    }
    for beat in first.max(1)..=beats {
        let after = SignedDuration::from_millis(beat.saturating_mul(beat_millis));
        let Ok(at) = run.started.checked_add(after) else {
            break;
        };
        all.push((
            at,
            voice.line(beat).unwrap_or_else(|| {
                format!(
                    "simulated by Gantry: container {name} has run for {} s",
                    after.as_secs()
                )
            }),
        ));
    }
    if let Some((at, code, why)) = run.finished.as_ref().filter(|it| it.0 <= until) {
        all.push((
            *at,
            format!(
                "simulated by Gantry: container {name} has ended with exit code {code} ({why})"
            ),
        ));
    }
    all
}

/// What is asked of a log.
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
    limit: Option<usize>,
    /// Standard error of a simulated container is empty.
    errors_only: bool,
}

impl Options {
    fn read(query: &Query, now: Timestamp) -> Result<Options, String> {
        let number = |name: &str| match query.first(name) {
            None => Ok(None),
            Some(text) => text
                .parse::<u32>()
                .map(Some)
                .map_err(|_| format!("invalid {name}: {text:?}")),
        };
        let seconds = number("sinceSeconds")?.map(|it| now - SignedDuration::from_secs(it.into()));
        let time = match query.first("sinceTime") {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| format!("invalid sinceTime: {text:?}"))?,
            ),
        };
        Ok(Options {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since: seconds.or(time),
            tail: number("tailLines")?.map(|it| it as usize),
            limit: number("limitBytes")?.map(|it| it as usize),
            errors_only: query.first("stream") == Some("Stderr"),
        })
    }

    /// Lines as they are sent; the rest of the limit is in `left`.
    fn print(&self, line: &Line, left: &mut Option<usize>) -> Bytes {
        let mut text = match self.timestamps {
            true => format!("{} {}\n", line.0.strftime("%Y-%m-%dT%H:%M:%S.%9fZ"), line.1),
            false => format!("{}\n", line.1),
        };
        if let Some(left) = left {
            text.truncate(*left);
            *left -= text.len();
        }
        text.into()
    }

    fn chosen(&self, all: Vec<Line>) -> VecDeque<Line> {
        let since = self.since;
        let mut all: VecDeque<Line> = all
            .into_iter()
            .filter(|(at, _)| !self.errors_only && since.is_none_or(|since| *at >= since))
            .collect();
        if let Some(tail) = self.tail {
            all.drain(..all.len().saturating_sub(tail));
        }
        all
    }
}

/// `GET /containerLogs/NAMESPACE/POD/CONTAINER`.
pub async fn serve(
    network: &Network,
    pods: Api<Pod>,
    pod: Pod,
    container: &str,
    query: &Query,
) -> Response<Answer> {
    let now = network.truth().clock.now().timestamp();
    let options = match Options::read(query, now) {
        Ok(options) => options,
        Err(why) => return plain(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    let bad = |why: String| plain(StatusCode::BAD_REQUEST, why);
    let Some(found) = find(&pod, container) else {
        return bad(format!(
            "container {container:?} in pod {name:?} is not available"
        ));
    };
    let run = match (options.previous, found.previous()) {
        (true, None) => {
            return bad(format!(
                "previous terminated container {container:?} in pod {name:?} not found"
            ));
        }
        (true, previous) => previous,
        // A container that waits to be started again shows what it said before.
        (false, previous) => found.current().or(previous),
    };
    let Some(run) = run else {
        let why = match found.waiting() {
            "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image",
            reason => reason,
        };
        return bad(format!(
            "container {container:?} in pod {name:?} is waiting to start: {why}"
        ));
    };
    let voice = Voice::of(network, &pods.clone().into_client(), &pod, container).await;
    let mut left = options.limit;
    let first = options.chosen(lines(&pod, &found, &run, now, &voice));
    let mut text: Vec<u8> = vec![];
    for line in &first {
        text.extend(options.print(line, &mut left));
    }
    if !options.follow || run.finished.is_some() || options.errors_only {
        return plain(StatusCode::OK, text);
    }
    let (send, receive) = mpsc::channel(16);
    let container = container.to_owned();
    tokio::spawn(async move {
        if !text.is_empty() && send.send(text.into()).await.is_err() {
            return;
        }
        let following = follow(
            pods,
            pod,
            &container,
            run,
            now,
            &voice,
            |line| options.print(line, &mut left),
            &send,
        );
        tokio::select! {
            () = following => {}
            // The client has gone: nothing is left to do for it.
            () = send.closed() => {}
        }
    });
    streamed(receive)
}

/// Sends what a running container says from an instant on, until the run ends or the pod goes.
#[expect(
    clippy::too_many_arguments,
    reason = "what is followed, from where, and where to"
)]
pub async fn follow(
    pods: Api<Pod>,
    mut pod: Pod,
    container: &str,
    run: Run,
    mut told: Timestamp,
    voice: &Voice,
    mut print: impl FnMut(&Line) -> Bytes,
    send: &mpsc::Sender<Bytes>,
) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let mut changes = std::pin::pin!(watch_object(pods, &name));
    loop {
        let now = voice.now();
        let Some(found) = find(&pod, container) else {
            return;
        };
        // Another run may have begun: then this one has ended, and how stands in the status.
        let this = [found.current(), found.previous()]
            .into_iter()
            .flatten()
            .find(|it| it.started == run.started);
        let Some(this) = this else { return };
        for line in lines(&pod, &found, &this, now, voice)
            .iter()
            .filter(|it| it.0 > told)
        {
            let bytes = print(line);
            if bytes.is_empty() || send.send(bytes).await.is_err() {
                return;
            }
        }
        told = now;
        if this.finished.is_some() {
            return;
        }
        let passed = now.duration_since(run.started).as_millis();
        let beat = i128::from(voice.beat());
        let wait = match &voice.scene {
            // A process prints when it likes.
            Some(_) => LOOK,
            None => u64::try_from(beat - passed.rem_euclid(beat)).unwrap_or(1000),
        };
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(wait + 1)) => {}
            seen = changes.next() => match seen {
                Some(Ok(Some(seen))) if seen.metadata.uid == pod.metadata.uid => pod = seen,
                Some(Err(error)) => tracing::debug!(%error, "the watch of a pod whose log is followed"),
                _ => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "app", "image": "web:1"}]},
            "status": {"containerStatuses": [{
                "name": "app", "image": "web:1", "imageID": "", "ready": true, "restartCount": 1,
                "state": {"running": {"startedAt": "2026-01-01T00:01:00Z"}},
                "lastState": {"terminated": {"exitCode": 3, "reason": "Error",
                    "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:25Z"}},
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn a_log_follows_from_the_status() {
        let pod = pod();
        let found = find(&pod, "app").unwrap();
        let now: Timestamp = "2026-01-01T00:01:31Z".parse().unwrap();
        let run = found.current().unwrap();
        let voice = Voice {
            scene: None,
            prints: None,
            truth: Truth::default(),
            network: None,
        };
        let all = lines(&pod, &found, &run, now, &voice);
        assert_eq!(all.len(), 4);
        assert!(
            all[0].1.contains("nothing runs here") && all[0].1.contains("run 1"),
            "{}",
            all[0].1
        );
        assert_eq!(
            all[3].1,
            "simulated by Gantry: container app has run for 30 s"
        );
        let before = lines(&pod, &found, &found.previous().unwrap(), now, &voice);
        assert!(
            before[3].1.ends_with("has ended with exit code 3 (Error)"),
            "{}",
            before[3].1
        );

        let asked = |query: &str| {
            let options = Options::read(&Query::parse(Some(query)), now).unwrap();
            let mut left = options.limit;
            let chosen = options.chosen(lines(&pod, &found, &run, now, &voice));
            chosen
                .iter()
                .flat_map(|it| options.print(it, &mut left))
                .collect::<Vec<u8>>()
        };
        let text = String::from_utf8(asked("tailLines=1&timestamps=true")).unwrap();
        assert_eq!(
            text,
            "2026-01-01T00:01:30.000000000Z simulated by Gantry: container app has run for 30 s\n"
        );
        assert_eq!(asked("limitBytes=9"), b"simulated");
        assert_eq!(
            asked("sinceSeconds=12")
                .iter()
                .filter(|it| **it == b'\n')
                .count(),
            2
        );
        assert_eq!(asked("stream=Stderr"), b"");
    }

    #[test]
    fn a_scenario_gives_it_lines() {
        let pod = pod();
        let found = find(&pod, "app").unwrap();
        let now: Timestamp = "2026-01-01T00:01:03Z".parse().unwrap();
        let prints = Prints {
            lines: ["GET / 200 {n}", "tick"].map(Into::into).into(),
            every: std::time::Duration::from_secs(60),
        };
        let voice = Voice {
            scene: None,
            prints: Some(prints.into()),
            truth: Truth {
                scale: 60.0,
                ..Truth::default()
            },
            network: None,
        };
        let all = lines(&pod, &found, &found.current().unwrap(), now, &voice);
        let said: Vec<_> = all.iter().map(|it| it.1.as_str()).skip(1).collect();
        assert_eq!(said, ["GET / 200 1", "tick", "GET / 200 3"]);
    }
}
