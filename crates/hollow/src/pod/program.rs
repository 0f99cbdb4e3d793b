//! What the processes of a pod's containers do, where it can be known: see [`crate::program`].

use super::{Pod, step::Slot};
use crate::{
    behaviour::{Draw, Exit},
    object::{ContainerSpec, Hook, Probe, SecurityContext, VolumeSource},
    pod::ProbeKind,
    program::{self, Change, Disk, LONGEST, Setting},
};
use rustc_hash::FxHashMap;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The files of a volume, by their paths in it.
type Files = BTreeMap<String, Vec<u8>>;

/// The files of volumes, by the volumes' names or by their paths on the node.
pub type Volumes = FxHashMap<String, Files>;

/// Files that simulated programs leave on a node in all; more are forgotten.
const MOST_FILES: usize = 1000;

/// From when on something answers, and from when on it does no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// `None`: it never does.
    pub from: Option<Duration>,
    /// `None`: it does for ever.
    pub until: Option<Duration>,
}

/// What one run of a container's process does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// How it ends; `None` if it does not.
    pub exit: Option<Exit>,
    /// What its probes find, where they look at its files.
    probes: [Option<Health>; 3],
    /// When its files are more than a volume may hold, and what the kubelet says then.
    pub overdrawn: Option<(Duration, Arc<str>)>,
}

impl Program {
    /// What a probe finds.
    #[must_use]
    pub fn health(&self, probe: ProbeKind) -> Option<Health> {
        self.probes[probe as usize]
    }
}

impl Pod {
    /// What the process of a container does in this run, and what it leaves in the pod's and the node's
    /// volumes. `None` if that cannot be known.
    pub(super) fn program(
        &self,
        slot: Slot,
        attempt: u32,
        host: &Volumes,
    ) -> Option<(Program, Volumes, Volumes)> {
        let spec = self.spec_at(slot);
        let words = program::words(&spec.image, &spec.command, &spec.args)?;
        let variables = self.variables(spec);
        let first = self.disk(spec, host);
        let setting = Setting {
            variables: variables.clone(),
            disk: first.clone(),
            horizon: LONGEST,
            draw: Draw::new(0)
                .word(&self.id.uid)
                .word(&spec.name)
                .number(u64::from(attempt)),
            typed: spec.stdin,
            coming: vec![],
        };
        let told = program::run(&words, setting)?;
        let message = program::message(
            &told,
            spec.termination_message_path
                .as_deref()
                .unwrap_or("/dev/termination-log"),
            spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        );
        let exit = told.end.map(|(after, code)| Exit {
            after,
            code,
            reason: None,
            message: message.map(Into::into),
        });
        let health = |probe: &Option<Probe>| {
            if let Some(probe) = probe
                && let Some((from, until)) = program::served(
                    &words,
                    probe.http_get.is_some(),
                    probe.grpc.as_ref().map(|it| it.port),
                )
            {
                return Some(Health { from, until });
            }
            let command = &probe.as_ref()?.exec.as_ref()?.command;
            let (from, until) = program::probed(command, &variables, &first, &told.disk.changes)?;
            Some(Health { from, until })
        };
        let probes = [
            health(&spec.startup_probe),
            health(&spec.readiness_probe),
            health(&spec.liveness_probe),
        ];
        let (mut own, mut left) = (Volumes::default(), Volumes::default());
        for mount in &spec.volume_mounts {
            let (volumes, name, before) = match self.spec.volume(&mount.name) {
                Some(VolumeSource::Empty) => (&mut own, &mount.name, self.volumes.as_deref()),
                Some(VolumeSource::Host(path)) => (&mut left, path, Some(host)),
                _ => continue,
            };
            let inside = mount.inside();
            let files = volumes.entry(name.to_string()).or_insert_with(|| {
                let before = before.and_then(|it| it.get(&**name));
                before.cloned().unwrap_or_default()
            });
            // What is there now of what is mounted, and of the rest what was there.
            files.retain(|path, _| !path.starts_with(&format!("{inside}/")));
            for (path, content) in told.disk.under(mount.path()) {
                files.insert(format!("{inside}{path}"), content);
            }
        }
        let overdrawn = self.overdrawn(spec, &first, &told.disk.changes);
        let program = Program {
            exit,
            probes,
            overdrawn,
        };
        Some((program, own, left))
    }

    /// When what is written into the pod's own volumes is first more than one of them may hold.
    fn overdrawn(
        &self,
        spec: &ContainerSpec,
        first: &Disk,
        changes: &[Change],
    ) -> Option<(Duration, Arc<str>)> {
        let bounds = spec.volume_mounts.iter().filter_map(|mount| {
            let (most, limit) = self.spec.bound(&mount.name)?;
            let sizes = first.under(mount.path()).into_iter();
            let mut sizes: BTreeMap<String, usize> =
                sizes.map(|(path, content)| (path, content.len())).collect();
            let at = changes.iter().find_map(|(at, path, content)| {
                let path = path.strip_prefix(mount.path())?.to_owned();
                if !path.starts_with('/') {
                    return None;
                }
                match content {
                    Some(content) => sizes.insert(path, content.len()),
                    None => sizes.remove(&path),
                };
                (sizes.values().sum::<usize>() > most).then_some(*at)
            })?;
            let name = &mount.name;
            let why =
                format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". ");
            Some((at, why.into()))
        });
        bounds.min_by_key(|(at, _)| *at)
    }

    /// How long a hook takes, and with which code it ends; nothing where its command cannot be known.
    pub(super) fn hook(&self, slot: Slot, hook: &Hook, host: &Volumes) -> (Duration, i32) {
        if let Some(sleep) = &hook.sleep {
            return (Duration::from_secs(sleep.seconds.into()), 0);
        }
        let Some(exec) = &hook.exec else {
            return (Duration::ZERO, 0);
        };
        let spec = self.spec_at(slot);
        let setting = Setting {
            variables: self.variables(spec),
            disk: self.disk(spec, host),
            horizon: LONGEST,
            draw: Draw::new(0),
            typed: false,
            coming: vec![],
        };
        match program::run(&exec.command, setting) {
            Some(told) => told.end.unwrap_or((LONGEST, 0)),
            None => (Duration::ZERO, 0),
        }
    }

    /// Runs the process of a container, if that can be done.
    pub(super) fn run_program(&mut self, slot: Slot, attempt: u32, host: &mut Volumes) {
        let ran = self.program(slot, attempt, host);
        let program = ran.map(|(program, own, left)| {
            self.volumes.get_or_insert_default().extend(own);
            if host.values().map(BTreeMap::len).sum::<usize>() < MOST_FILES {
                host.extend(left);
            }
            Box::new(program)
        });
        self.at_mut(slot).program = program;
    }

    /// The environment, without what stands in other objects.
    fn variables(&self, spec: &ContainerSpec) -> BTreeMap<String, String> {
        let mut variables: BTreeMap<String, String> = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOSTNAME", &*self.id.name),
            ("HOME", "/root"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for variable in &spec.env {
            let value = match (&variable.value, variable.field()) {
                (Some(value), _) => program::expanded(value, &variables),
                (None, Some(path)) => self.field(path),
                (None, None) => String::new(),
            };
            variables.insert(variable.name.to_string(), value);
        }
        variables
    }

    /// What a `fieldRef` stands for.
    fn field(&self, path: &str) -> String {
        match path {
            "metadata.name" => self.id.name.to_string(),
            "metadata.namespace" => self.id.namespace.to_string(),
            "metadata.uid" => self.id.uid.to_string(),
            "spec.nodeName" => self.node.to_string(),
            "status.hostIP" | "status.hostIPs" => self.host_ip.to_string(),
            "status.podIP" | "status.podIPs" => self.address().unwrap_or_default(),
            path => path
                .strip_prefix("metadata.labels['")
                .or_else(|| path.strip_prefix("metadata.annotations['"))
                .and_then(|it| it.strip_suffix("']"))
                .and_then(|key| self.labels.get(key).cloned())
                .unwrap_or_default(),
        }
    }

    fn disk(&self, spec: &ContainerSpec, host: &Volumes) -> Disk {
        let mut disk = Disk::default();
        disk.put("/etc/hostname", format!("{}\n", self.id.name).into_bytes());
        disk.read_only = spec
            .security_context
            .as_ref()
            .is_some_and(|it| it.read_only_root_filesystem == Some(true));
        let contexts = [&spec.security_context, &self.spec.security_context];
        let who = |id: fn(&SecurityContext) -> Option<u32>| {
            contexts.iter().find_map(|it| id(it.as_ref()?)).unwrap_or(0)
        };
        disk.user = (who(|it| it.run_as_user), who(|it| it.run_as_group));
        for mount in &spec.volume_mounts {
            let path = mount.path();
            let inside = mount.inside();
            let files = match self.spec.volume(&mount.name) {
                Some(VolumeSource::Empty) => {
                    self.volumes.as_ref().and_then(|it| it.get(&*mount.name))
                }
                Some(VolumeSource::Host(path)) => host.get(&**path),
                _ => {
                    disk.unknown.push(path.to_owned());
                    // Alone, it may be a file or a directory: both can be read.
                    match inside.is_empty() {
                        true => disk.folder(path),
                        false => disk.put(path, vec![]),
                    }
                    continue;
                }
            };
            disk.folder(path);
            disk.writable.push(path.to_owned());
            for (name, content) in files.into_iter().flatten() {
                if let Some(rest) = name.strip_prefix(&inside).filter(|it| it.starts_with('/')) {
                    disk.put(&format!("{path}{rest}"), content.clone());
                }
            }
        }
        disk
    }
}
