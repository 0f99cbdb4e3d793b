//! A member: the StatefulSet controller's rules and a kubelet's, in seconds of simulated time.

use std::collections::BTreeMap;

use gantry_hub::world::{ContainerView, Gate, Instance, Mark, SetView, Wish};
use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Seconds of simulated time.
pub type Seconds = i64;

pub fn at(now: Seconds) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + now).unwrap()
}

#[derive(Clone, Debug)]
pub struct Set {
    pub version: u64,
    pub replicas: i32,
    pub partition: i32,
    pub revision: i64,
    /// The StatefulSet controller has seen the template.
    pub observed: bool,
    pub update: i64,
    pub current: i64,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub uid: u64,
    pub version: u64,
    pub revision: i64,
    pub hash: String,
    /// The spec's image.
    pub image: i64,
    /// The image that the present container run has.
    pub running: i64,
    pub run: u32,
    pub restarts: i32,
    pub up: bool,
    pub ready_since: Option<Seconds>,
    pub gate: Gate,
    pub mark: Option<Mark>,
    /// When it is gone, if it is being deleted.
    pub gone_at: Option<Seconds>,
    /// When the kubelet next does something.
    pub next: Option<Seconds>,
    /// The hub took it out while it served, and has not put it back.
    pub out_by_gantry: bool,
    /// When it was made.
    pub created: Seconds,
    /// Whether it has a node.
    pub placed: bool,
}

impl Pod {
    /// What traffic sees.
    pub fn serves(&self) -> bool {
        self.gate == Gate::In && self.ready_since.is_some() && self.gone_at.is_none()
    }
}

/// One cell of a member.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub name: String,
    pub set: Option<Set>,
    pub pods: BTreeMap<i32, Pod>,
    /// How many pods its nodes take.
    pub room: Option<usize>,
}

/// How instances behave in a run.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Images whose containers never become ready.
    pub broken: Vec<i64>,
    /// Chance that a container run never becomes ready.
    pub unlucky: f64,
    /// Most seconds until a container run is ready.
    pub slow: Seconds,
    /// Chance per pod and step that it dies.
    pub death: f64,
    /// Chance per pod and step that its container crashes.
    pub crash: f64,
}

pub fn hash(revision: i64) -> String {
    format!("hash-{revision}")
}

/// Objects' versions, UIDs and so on come from one counter.
pub type Counter = u64;

fn bump(counter: &mut Counter) -> u64 {
    *counter += 1;
    *counter
}

impl Cell {
    /// One step of the StatefulSet controller, with what it deletes while it serves in the answer.
    pub fn controller(
        &mut self,
        now: Seconds,
        images: &BTreeMap<i64, i64>,
        counter: &mut Counter,
        rng: &mut ChaCha8Rng,
    ) -> Vec<i32> {
        let mut killed = Vec::new();
        let Some(set) = &mut self.set else {
            return killed;
        };
        if !set.observed || set.update != set.revision {
            set.observed = true;
            set.update = set.revision;
            set.version = bump(counter);
        }
        for ordinal in 0..set.replicas {
            // Below the partition: the current revision; from it on: the update revision.
            let revision = if ordinal < set.partition {
                set.current
            } else {
                set.update
            };
            self.pods.entry(ordinal).or_insert_with(|| Pod {
                uid: bump(counter),
                version: bump(counter),
                revision,
                hash: hash(revision),
                image: images[&revision],
                running: 0,
                run: 0,
                restarts: 0,
                up: false,
                ready_since: None,
                gate: Gate::Unset,
                mark: None,
                gone_at: None,
                next: Some(now + rng.random_range(1..4)),
                out_by_gantry: false,
                created: now,
                placed: false,
            });
        }
        for (_, pod) in self.pods.range_mut(set.replicas..) {
            if pod.gone_at.is_none() {
                pod.gone_at = Some(now + rng.random_range(0..3));
                pod.version = bump(counter);
            }
        }
        // Rolling update: the highest that is not updated goes, one at a time, and waits for health.
        for ordinal in (set.partition.max(0)..set.replicas).rev() {
            let Some(pod) = self.pods.get_mut(&ordinal) else {
                break;
            };
            if pod.hash != hash(set.update) && pod.gone_at.is_none() {
                if pod.serves() {
                    killed.push(ordinal);
                }
                pod.gone_at = Some(now + rng.random_range(0..3));
                pod.version = bump(counter);
                break;
            }
            if !pod.serves() {
                break;
            }
        }
        let all = self.pods.len() as i32 == set.replicas
            && self
                .pods
                .values()
                .all(|p| p.hash == hash(set.update) && p.serves());
        if all && set.current != set.update {
            set.current = set.update;
            set.version = bump(counter);
        }
        killed
    }

    /// One step of the kubelets.
    pub fn kubelet(
        &mut self,
        now: Seconds,
        health: &Health,
        counter: &mut Counter,
        rng: &mut ChaCha8Rng,
    ) {
        self.pods
            .retain(|_, pod| pod.gone_at.is_none_or(|t| t > now));
        let mut used = self.pods.values().filter(|p| p.placed).count();
        for pod in self.pods.values_mut() {
            if !pod.placed {
                if self.room.is_some_and(|room| used >= room) {
                    continue;
                }
                pod.placed = true;
                used += 1;
            }
            if pod.gone_at.is_none() && rng.random_bool(health.death) {
                pod.gone_at = Some(now + rng.random_range(0..3));
                pod.version = bump(counter);
            }
            if pod.up && rng.random_bool(health.crash) {
                pod.up = false;
                pod.ready_since = None;
                pod.version = bump(counter);
                pod.next = Some(now + rng.random_range(1..4));
            }
            // A new image is noticed after a while; until then the old status stands.
            if pod.up && pod.running != pod.image && pod.next.is_none() {
                pod.next = Some(now + rng.random_range(0..3));
            }
            if pod.next.is_some_and(|t| t > now) || pod.next.is_none() {
                continue;
            }
            pod.version = bump(counter);
            if pod.up && pod.running != pod.image {
                pod.up = false;
                pod.ready_since = None;
                pod.next = Some(now + rng.random_range(0..3));
            } else if !pod.up {
                pod.restarts += i32::from(pod.run > 0);
                pod.run += 1;
                pod.running = pod.image;
                pod.up = true;
                let never = health.broken.contains(&pod.image) || rng.random_bool(health.unlucky);
                pod.next = (!never).then(|| now + rng.random_range(0..=health.slow));
            } else if pod.ready_since.is_none() {
                pod.ready_since = Some(now);
                pod.next = None;
            } else {
                pod.next = None;
            }
        }
    }

    pub fn set_view(&self) -> Option<SetView> {
        self.set.as_ref().map(|set| SetView {
            version: set.version.to_string(),
            replicas: set.replicas,
            partition: set.partition,
            revision: Some(set.revision),
            observed: set.observed,
            update_hash: hash(set.update),
            current_hash: hash(set.current),
            terminating: false,
        })
    }

    pub fn instances(&self, group: &str) -> BTreeMap<i32, Instance> {
        self.pods
            .iter()
            .map(|(ordinal, pod)| (*ordinal, instance(group, &self.name, *ordinal, pod)))
            .collect()
    }
}

fn instance(group: &str, cell: &str, ordinal: i32, pod: &Pod) -> Instance {
    Instance {
        name: format!("{group}-{cell}-{ordinal}"),
        uid: pod.uid.to_string(),
        version: pod.version.to_string(),
        revision: Some(pod.revision),
        hash: pod.hash.clone(),
        terminating: pod.gone_at.is_some(),
        observed: true,
        ready_since: pod.ready_since.map(at),
        gate: pod.gate.clone(),
        mark: pod.mark.clone(),
        containers: BTreeMap::from([(
            "cart".to_owned(),
            ContainerView {
                image: image(pod.image),
                id: if pod.run == 0 {
                    String::new()
                } else {
                    format!("sim://{}-{}", pod.uid, pod.run)
                },
                restarts: pod.restarts,
                running: pod.up,
            },
        )]),
        trouble: if pod.ready_since.is_none() {
            "readiness probe failing".to_owned()
        } else {
            String::new()
        },
        node: String::new(),
        pinned: None,
        unplaced_since: (!pod.placed).then(|| at(pod.created)),
        created: Some(at(pod.created)),
        wish: Wish::None,
    }
}

/// Images are numbered.
pub fn image(number: i64) -> String {
    format!("cart:{number}")
}

pub fn image_number(image: &str) -> i64 {
    let image = image.split('@').next().unwrap();
    image
        .strip_prefix("cart:")
        .and_then(|n| n.parse().ok())
        .unwrap()
}
