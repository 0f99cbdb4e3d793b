//! What the process of a container finds: its environment and its files, from the objects of the API that its
//! pod names and from what the pod's other processes write. What it prints follows from that: see
//! [`crate::program`].

use super::{
    Network,
    found::{Run, find},
    names,
    place::{Place, list, strings, text},
    sights::{Held, Sights, volumes},
};
use crate::{
    behaviour::Draw,
    object::parse_quantity,
    program::{self, Change, Chunk, Disk, Session, Setting, Told},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A container on its stage.
pub struct Scene {
    /// Its process, where that can be run.
    words: Option<Vec<String>>,
    variables: BTreeMap<String, String>,
    /// Its files but for those of `views`.
    disk: Disk,
    views: Vec<View>,
    sights: Option<Arc<Sights>>,
    others: Vec<Other>,
    draw: Draw,
    typed: bool,
}

/// A mounted volume whose contents stand in other objects.
struct View {
    mount: Mount,
    /// What it holds now.
    now: Held,
    group: Option<u32>,
}

/// Where a volume, or what is inside of it at a path, is mounted.
#[derive(Clone)]
struct Mount {
    volume: String,
    path: String,
    inside: String,
}

/// Another container that writes to a volume that this one mounts.
struct Other {
    scene: Scene,
    runs: Vec<Run>,
    /// Its mounts and this one's of the same volume.
    shared: Vec<(Mount, Mount)>,
}

/// How long a run has gone on.
fn passed(run: &Run, until: Timestamp) -> Duration {
    let passed = until.duration_since(run.started).as_millis();
    Duration::from_millis(u64::try_from(passed).unwrap_or(0))
}

impl Scene {
    /// What a run of it does within a time.
    fn told(&self, run: &Run, horizon: Duration) -> Option<Told> {
        let words = self.words.as_ref()?;
        let (disk, coming) = self.stage(run, horizon);
        let setting = Setting {
            variables: self.variables.clone(),
            disk,
            horizon,
            draw: self.draw.number(u64::try_from(run.attempt).unwrap_or(0)),
            typed: self.typed,
            coming,
        };
        program::run(words, setting)
    }

    /// The files that a run finds, and what others do to them within a time.
    fn stage(&self, run: &Run, horizon: Duration) -> (Disk, Vec<Change>) {
        let mut disk = self.disk.clone();
        let mut coming: Vec<Change> = vec![];
        let since = |at: Timestamp| Duration::try_from(at.duration_since(run.started)).ok();
        for view in &self.views {
            let seen = self.sights.as_ref();
            let seen = seen.and_then(|it| it.held(&view.mount.volume, run.started));
            let (mut held, later) = seen.unwrap_or_else(|| (view.now.clone(), vec![]));
            view.lay(&mut disk, &held);
            // What is mounted from inside of a volume never changes.
            let later = later.into_iter().filter(|_| view.mount.inside.is_empty());
            for (at, next) in later {
                let Some(at) = since(at) else { continue };
                let gone = held.keys().filter(|it| !next.contains_key(*it));
                coming.extend(gone.filter_map(|it| Some((at, view.mount.shows(it)?, None))));
                let come = next.iter().filter(|(name, it)| held.get(*name) != Some(it));
                coming.extend(come.filter_map(|(name, (content, _))| {
                    Some((at, view.mount.shows(name)?, Some(content.clone())))
                }));
                held = next;
            }
        }
        for other in &self.others {
            for (at, path, content) in other.changes(run.started + signed(horizon)) {
                let Some(path) = other.seen_here(&path) else {
                    continue;
                };
                match (since(at).filter(|it| !it.is_zero()), content) {
                    (Some(at), content) => coming.push((at, path, content)),
                    (None, Some(content)) => disk.put(&path, content),
                    (None, None) => disk.erase(&path),
                }
            }
        }
        coming.sort_by_key(|it| it.0);
        (disk, coming)
    }

    /// Its process and where it runs, as a run of it began, where it asks others in its network within a time:
    /// what it does is not known without them.
    pub fn asking(&self, run: &Run, passed: Duration) -> Option<(Vec<String>, Session)> {
        let words = self.words.as_ref()?;
        if self.told(run, passed).is_some() {
            return None;
        }
        let (disk, _) = self.stage(run, Duration::ZERO);
        let words = words.iter();
        let words = words.map(|it| program::expanded(it, &self.variables));
        let session = Session::new(self.variables.clone(), disk, run.started, "it");
        Some((words.collect(), session))
    }

    /// What a run of it prints until an instant, line by line.
    pub fn lines(&self, run: &Run, until: Timestamp) -> Vec<(Timestamp, String)> {
        let told = self.told(run, passed(run, until));
        let mut lines: Vec<(Timestamp, String)> = vec![];
        let mut open = false;
        for Chunk { at, bytes, .. } in told.into_iter().flat_map(|it| it.printed) {
            let at = run.started + SignedDuration::try_from(at).unwrap_or_default();
            for piece in String::from_utf8_lossy(&bytes).split_inclusive('\n') {
                match lines.last_mut().filter(|_| open) {
                    Some((_, line)) => *line += piece.trim_end_matches('\n'),
                    None => lines.push((at, piece.trim_end_matches('\n').to_owned())),
                }
                open = !piece.ends_with('\n');
            }
        }
        lines
    }
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

impl Mount {
    fn of(mount: &Value, variables: &BTreeMap<String, String>) -> Self {
        let inside = match text(&mount["subPathExpr"]) {
            "" => text(&mount["subPath"]).to_owned(),
            expression => program::expanded(expression, variables),
        };
        Mount {
            volume: text(&mount["name"]).to_owned(),
            path: text(&mount["mountPath"]).trim_end_matches('/').to_owned(),
            inside: inside.trim_matches('/').to_owned(),
        }
    }

    /// Where a file of the volume is seen, by its path in it.
    fn shows(&self, name: &str) -> Option<String> {
        if self.inside.is_empty() {
            return Some(format!("{}/{name}", self.path));
        }
        match name.strip_prefix(&self.inside)? {
            "" => Some(self.path.clone()),
            rest => rest
                .starts_with('/')
                .then(|| format!("{}{rest}", self.path)),
        }
    }

    /// The path in the volume of a file that is seen here.
    fn holds(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.path)?.strip_prefix('/')?;
        Some(match self.inside.as_str() {
            "" => rest.to_owned(),
            inside => format!("{inside}/{rest}"),
        })
    }
}

impl View {
    fn lay(&self, disk: &mut Disk, held: &Held) {
        /// What the group of the pod's files may at least do with them.
        const GROUP_READS: u32 = 0o440;
        if self.mount.inside.is_empty() {
            disk.folder(&self.mount.path);
        }
        for (name, (content, mode)) in held {
            let Some(path) = self.mount.shows(name) else {
                continue;
            };
            disk.put(&path, content.clone());
            let more = if self.group.is_some() { GROUP_READS } else { 0 };
            disk.mode(&path, mode | more);
            disk.own(&path, (0, self.group.unwrap_or(0)));
        }
    }
}

impl Other {
    /// What it has done to its files until an instant.
    fn changes(
        &self,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, String, Option<Vec<u8>>)> {
        let runs = self.runs.iter().flat_map(move |run| {
            let end = run.finished.as_ref().map_or(until, |it| it.0.min(until));
            // Times in the status are whole seconds.
            let horizon = passed(run, end) + Duration::from_millis(999);
            let told = self.scene.told(run, horizon);
            let changes = told.map(|it| it.disk.changes).unwrap_or_default();
            changes
                .into_iter()
                .map(|(at, path, content)| (run.started + signed(at), path, content))
        });
        runs.filter(move |(at, ..)| *at <= until)
    }

    fn seen_here(&self, path: &str) -> Option<String> {
        translated(&self.shared, path)
    }
}

/// Where a file that one container sees is seen by another.
fn translated(shared: &[(Mount, Mount)], path: &str) -> Option<String> {
    let mut seen = shared.iter();
    seen.find_map(|(theirs, mine)| mine.shows(&theirs.holds(path)?))
}

/// A container of a pod.
fn container(pod: &Value, name: &str) -> Option<Value> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut all = lists.iter().flat_map(|it| list(&pod["spec"][*it]));
    all.find(|it| it["name"] == name).cloned()
}

/// What the process of a container runs, where that is known.
pub fn words(spec: &Value) -> Option<Vec<String>> {
    let (command, args) = (strings(&spec["command"]), strings(&spec["args"]));
    program::words(text(&spec["image"]), &command, &args)
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn mounts(spec: &Value, variables: &BTreeMap<String, String>) -> Vec<Mount> {
    list(&spec["volumeMounts"])
        .map(|it| Mount::of(it, variables))
        .collect()
}

/// The mounts of two containers that show the same volumes of their pod.
fn shared(pod: &Value, theirs: &[Mount], mine: &[Mount]) -> Vec<(Mount, Mount)> {
    let own = |it: &&Mount| {
        let mut all = list(&pod["spec"]["volumes"]);
        all.any(|volume| volume["name"] == *it.volume && volume.get("emptyDir").is_some())
    };
    let both = theirs.iter().filter(own).flat_map(|theirs| {
        let same = mine.iter().filter(|it| it.volume == theirs.volume);
        same.map(|it| (theirs.clone(), it.clone()))
    });
    both.collect()
}

/// The files of a container but for those that stand in other objects.
fn disk(place: &Place<'_>, spec: &Value, variables: &BTreeMap<String, String>) -> Disk {
    let pod = place.pod;
    let mut disk = Disk::default();
    let host = variables.get("HOSTNAME").cloned().unwrap_or_default();
    let address = text(&pod["status"]["podIP"]);
    let whole = match text(&pod["spec"]["subdomain"]) {
        "" => String::new(),
        subdomain => format!("{host}.{subdomain}.{}.svc.cluster.local\t", place.namespace),
    };
    let mut hosts = format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n{address}\t{whole}{host}\n"
    );
    for alias in list(&pod["spec"]["hostAliases"]) {
        let names = strings(&alias["hostnames"]).join("\t");
        hosts += &format!("{}\t{names}\n", text(&alias["ip"]));
    }
    disk.put("/etc/hosts", hosts.into_bytes());
    disk.put(
        "/etc/resolv.conf",
        names::resolver(pod, place.namespace).into_bytes(),
    );
    disk.put("/etc/hostname", format!("{host}\n").into_bytes());
    let (own, whole) = (&spec["securityContext"], &pod["spec"]["securityContext"]);
    disk.read_only = own["readOnlyRootFilesystem"] == true;
    let who = |field: &str| number(&own[field]).or_else(|| number(&whole[field]));
    disk.user = (
        who("runAsUser").unwrap_or(0),
        who("runAsGroup").unwrap_or(0),
    );
    for mount in mounts(spec, variables) {
        let volume = list(&pod["spec"]["volumes"]).find(|it| it["name"] == *mount.volume);
        let Some(volume) = volume else { continue };
        let (empty, host) = (volume.get("emptyDir"), volume.get("hostPath"));
        if empty.is_none() && host.is_none() {
            continue;
        }
        let path = mount.path;
        disk.folder(&path);
        let mut mode = 0o777;
        if empty.is_some_and(|it| it["medium"] == "Memory") {
            // The root of a file system in memory is sticky.
            mode |= 0o1000;
            disk.memory.push(path.clone());
            let limit = empty.map_or("", |it| text(&it["sizeLimit"]));
            let bytes = parse_quantity("memory", limit).and_then(|it| u64::try_from(it).ok());
            disk.sizes.extend(bytes.map(|it| (path.clone(), it)));
        }
        if let Some(group) = number(&whole["fsGroup"]).filter(|_| empty.is_some()) {
            mode |= 0o2000;
            disk.own(&path, (0, group));
        }
        disk.mode(&path, mode);
        disk.writable.push(path);
    }
    disk
}

/// A container on its stage, alone.
async fn alone(client: &Client, pod: &Value, spec: &Value, sights: Option<Arc<Sights>>) -> Scene {
    let place = Place::of(client, pod);
    let variables = place.variables(spec).await;
    let group = number(&pod["spec"]["securityContext"]["fsGroup"]);
    let mut views = vec![];
    for mount in mounts(spec, &variables) {
        let Some(volume) = volumes(pod).find(|it| it["name"] == *mount.volume) else {
            continue;
        };
        let now = place.volume(spec, volume).await;
        views.push(View { mount, now, group });
    }
    let (uid, name) = (text(&pod["metadata"]["uid"]), text(&spec["name"]));
    Scene {
        words: words(spec),
        disk: disk(&place, spec, &variables),
        variables,
        views,
        sights,
        others: vec![],
        draw: Draw::new(0).word(uid).word(name),
        typed: spec["stdin"] == true,
    }
}

/// A container of a pod with all that can be known of what it finds.
async fn build(network: Option<&Network>, client: &Client, pod: &Pod, name: &str) -> Option<Scene> {
    let value = serde_json::to_value(pod).ok()?;
    let spec = container(&value, name)?;
    let sights = network.and_then(|it| it.seen(text(&value["metadata"]["uid"])));
    let mut scene = alone(client, &value, &spec, sights.clone()).await;
    let mine = mounts(&spec, &scene.variables);
    for other in ["initContainers", "containers"]
        .iter()
        .flat_map(|it| list(&value["spec"][*it]))
        .filter(|it| it["name"] != name && words(it).is_some())
    {
        // Only what is written to a volume that both mount is seen.
        if shared(&value, &mounts(other, &BTreeMap::new()), &mine).is_empty() {
            continue;
        }
        let theirs = alone(client, &value, other, sights.clone()).await;
        let found = find(pod, text(&other["name"]));
        let runs = found.iter().flat_map(|it| [it.previous(), it.current()]);
        scene.others.push(Other {
            shared: shared(&value, &mounts(other, &theirs.variables), &mine),
            runs: runs.flatten().collect(),
            scene: theirs,
        });
    }
    Some(scene)
}

/// The process of a container, if it can be run.
pub async fn scene(network: &Network, client: &Client, pod: &Pod, name: &str) -> Option<Scene> {
    let value = serde_json::to_value(pod).ok()?;
    words(&container(&value, name)?)?;
    build(Some(network), client, pod, name).await
}

/// The environment and the files of a container at an instant of a run: what it found, what its process has
/// written since, where that is known, and what others have. Without a network, volumes hold what they hold now.
pub async fn now(
    network: Option<&Network>,
    client: &Client,
    pod: &Pod,
    name: &str,
    run: Option<(&Run, Timestamp)>,
) -> (BTreeMap<String, String>, Disk) {
    let Some(scene) = build(network, client, pod, name).await else {
        return Default::default();
    };
    let begin = Run {
        attempt: 0,
        started: Timestamp::now(),
        finished: None,
    };
    let (run, now) = run.unwrap_or((&begin, begin.started));
    let horizon = passed(run, now);
    let (mut disk, coming) = scene.stage(run, horizon);
    disk.replay(&coming, horizon);
    if let Some(told) = scene.told(run, horizon) {
        disk.replay(&told.disk.changes, horizon);
    }
    (scene.variables, disk)
}

/// Where a file that one container of a pod sees is seen by another.
pub fn seen_by(pod: &Value, theirs: &str, mine: &str, path: &str) -> Option<String> {
    let (theirs, mine) = (container(pod, theirs)?, container(pod, mine)?);
    let none = BTreeMap::new();
    let both = shared(pod, &mounts(&theirs, &none), &mounts(&mine, &none));
    translated(&both, path)
}
