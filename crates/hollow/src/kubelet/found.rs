//! A container in a pod as the API shows it: its spec, and the runs that its status tells of.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, Probe,
};

/// A container of a pod.
pub struct Found<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image, as asked for.
    pub image: &'a str,
    /// What it runs: the command and its arguments; empty for what the image says.
    pub command: Vec<String>,
    /// Whether it keeps standard input open.
    pub stdin: bool,
    /// The path that its readiness probe asks for.
    pub asked: Option<&'a str>,
    status: Option<&'a ContainerStatus>,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Restarts before it.
    pub attempt: i32,
    /// When it began.
    pub started: Timestamp,
    /// When it ended, with which code, and why.
    pub finished: Option<(Timestamp, i32, String)>,
}

/// Looks for a container by name, among all kinds.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<Found<'a>> {
    let spec = pod.spec.as_ref()?;
    let status = |list: Option<&'a Vec<ContainerStatus>>| list?.iter().find(|it| it.name == name);
    let all = pod.status.as_ref();
    let words = |command: &Option<Vec<String>>, args: &Option<Vec<String>>| {
        command
            .iter()
            .chain(args)
            .flatten()
            .cloned()
            .collect::<Vec<String>>()
    };
    let statuses = all.and_then(|it| it.container_statuses.as_ref());
    let inits = all.and_then(|it| it.init_container_statuses.as_ref());
    for (list, status) in [
        (Some(&spec.containers), status(statuses)),
        (spec.init_containers.as_ref(), status(inits)),
    ] {
        if let Some(it) = list.and_then(|list| list.iter().find(|it| it.name == name)) {
            return Some(Found {
                name: &it.name,
                image: it.image.as_deref().unwrap_or_default(),
                command: words(&it.command, &it.args),
                stdin: it.stdin == Some(true),
                asked: it.readiness_probe.as_ref().and_then(asked),
                status,
            });
        }
    }
    let it = spec
        .ephemeral_containers
        .as_ref()?
        .iter()
        .find(|it| it.name == name)?;
    Some(Found {
        name: &it.name,
        image: it.image.as_deref().unwrap_or_default(),
        command: words(&it.command, &it.args),
        stdin: it.stdin == Some(true),
        asked: None,
        status: status(all.and_then(|it| it.ephemeral_container_statuses.as_ref())),
    })
}

/// Where httpd has its pages.
const PAGES: &str = "/usr/local/apache2/htdocs";

/// The path that a probe asks for.
fn asked(probe: &Probe) -> Option<&str> {
    Some(probe.http_get.as_ref()?.path.as_deref().unwrap_or("/"))
}

impl Found<'_> {
    /// The file of the page that its readiness probe asks for, if it is a web server whose pages are known to
    /// be files: httpd.
    #[must_use]
    pub fn page(&self) -> Option<String> {
        let image = self.image.rsplit('/').next().unwrap_or_default();
        let name = image.split([':', '@']).next().unwrap_or_default();
        let path = self
            .asked
            .filter(|_| name == "httpd" && self.command.is_empty())?;
        let index = if path.ends_with('/') {
            "index.html"
        } else {
            ""
        };
        Some(format!("{PAGES}/{}{index}", path.trim_start_matches('/')))
    }
}

fn ended(end: &ContainerStateTerminated, attempt: i32) -> Option<Run> {
    let finished = end.finished_at.as_ref()?.0;
    Some(Run {
        attempt,
        started: end.started_at.as_ref()?.0,
        finished: Some((
            finished,
            end.exit_code,
            end.reason.clone().unwrap_or_default(),
        )),
    })
}

impl Found<'_> {
    fn state(&self) -> Option<&ContainerState> {
        self.status?.state.as_ref()
    }

    fn restarts(&self) -> i32 {
        self.status.map_or(0, |it| it.restart_count)
    }

    /// The run that is under way, or has ended last without another one on its way.
    pub fn current(&self) -> Option<Run> {
        let state = self.state()?;
        if let Some(running) = &state.running {
            let started = running.started_at.as_ref()?.0;
            return Some(Run {
                attempt: self.restarts(),
                started,
                finished: None,
            });
        }
        ended(state.terminated.as_ref()?, self.restarts())
    }

    /// The run before.
    pub fn previous(&self) -> Option<Run> {
        let last = self.status?.last_state.as_ref()?.terminated.as_ref()?;
        ended(last, (self.restarts() - 1).max(0))
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.state().is_some_and(|it| it.running.is_some())
    }

    /// What it waits for, in the kubelet's word.
    pub fn waiting(&self) -> &str {
        let waiting = self.state().and_then(|it| it.waiting.as_ref());
        waiting
            .and_then(|it| it.reason.as_deref())
            .unwrap_or("ContainerCreating")
    }
}
