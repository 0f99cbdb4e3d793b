//! The files of a container as they are at an instant: what it found, what its pod's processes have written since,
//! and what clients have changed.

use super::{
    Network,
    found::find,
    place::{list, text},
    reach::Reach,
    scene,
};
use crate::program::{Change, Disk, Ended, Session};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use std::{collections::BTreeMap, time::Duration};

/// How far a process that asks others is followed at first: one pass of a loop that sleeps in between.
const PASS: Duration = Duration::from_millis(900);
/// As often does it ask at most.
const QUESTIONS: usize = 200;

/// The environment of a container and its files now. `image` are files that are there from the start, where
/// nothing else is; clients may have taken them away.
pub async fn files(
    network: &Network,
    client: &Client,
    pod: &Pod,
    name: &str,
    image: impl IntoIterator<Item = (String, String)>,
) -> (BTreeMap<String, String>, Disk) {
    let now = network.truth().clock.now().timestamp();
    let run = find(pod, name).and_then(|it| it.current());
    let run = run.as_ref().map(|it| (it, now));
    let (variables, mut disk) = scene::now(Some(network), client, pod, name, run).await;
    for (path, content) in image {
        if disk.read(&path).is_none() {
            disk.put(&path, content.into_bytes());
        }
    }
    let value = serde_json::to_value(pod).unwrap_or_default();
    let uid = text(&value["metadata"]["uid"]);
    for (other, files) in network.files_beside(uid, name) {
        for (path, content) in files.all() {
            match (scene::seen_by(&value, &other, name, &path), content) {
                (Some(path), Some(content)) => disk.put(&path, content),
                (Some(path), None) => disk.erase(&path),
                (None, _) => {}
            }
        }
    }
    network.files(uid, name).onto(&mut disk);
    (variables, disk)
}

/// Lays over it what the pod's processes write that ask others in their network, as far as this container sees
/// it. What others answer is asked now: of what was answered before nothing is kept.
pub async fn asked(network: &Network, client: &Client, pod: &Pod, name: &str, disk: &mut Disk) {
    let now = network.truth().clock.now().timestamp();
    let value = serde_json::to_value(pod).unwrap_or_default();
    for other in list(&value["spec"]["containers"]) {
        let other = text(&other["name"]);
        for (_, path, content) in answered(network, client, pod, other, now).await {
            let path = match other == name {
                true => Some(path),
                false => scene::seen_by(&value, other, name, &path),
            };
            match (path, content) {
                (Some(path), Some(content)) => disk.put(&path, content),
                (Some(path), None) => disk.erase(&path),
                (None, _) => {}
            }
        }
    }
}

/// What the process of a container writes, if it asks others.
async fn answered(
    network: &Network,
    client: &Client,
    pod: &Pod,
    name: &str,
    now: Timestamp,
) -> Vec<Change> {
    let Some(run) = find(pod, name).and_then(|it| it.current()) else {
        return vec![];
    };
    let Some(scene) = scene::scene(network, client, pod, name).await else {
        return vec![];
    };
    let passed = Duration::try_from(now.duration_since(run.started)).unwrap_or_default();
    let reach = Reach::of(network, client.clone(), pod);
    // A process may sleep before it asks.
    for horizon in [PASS, passed] {
        let Some((words, session)) = scene.asking(&run, passed) else {
            return vec![];
        };
        let (changes, questions) = followed(session.until(horizon), &words, &reach).await;
        if questions > 0 || passed <= PASS {
            return changes;
        }
    }
    vec![]
}

async fn followed(mut session: Session, words: &[String], reach: &Reach) -> (Vec<Change>, usize) {
    for questions in 0..=QUESTIONS {
        let said = session.run(words, Some(&[]));
        let (Ended::Asks, Some(question)) = (said.end, session.asked()) else {
            return (said.changes, questions);
        };
        let answer = reach.answer(&question).await;
        session.hear(answer, Duration::ZERO);
    }
    (vec![], QUESTIONS)
}
