//! `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1), so that who comes from kube-scheduler brings its file
//! along. What means something here is read; what does not can be said to have no effect ([`Configuration::notes`]) or,
//! where leaving it out would place pods by other rules than were asked for, is refused by its path.

mod args;
mod plugins;
mod value;

use crate::core::Profile;
use crate::core::queue::BACKOFF;
use serde_json::Value;
use std::time::Duration;
use value::Node;

/// The group and version that are read.
pub const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";

/// What is wrong with a configuration.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{path}: {problem}")]
pub struct ConfigError {
    /// Where, such as `profiles[0].pluginConfig[1].args.shape`.
    pub path: String,
    /// What, and what to do.
    pub problem: String,
}

/// Leader election as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Whether a lease is to be held at all.
    pub elect: bool,
    pub namespace: String,
    pub name: String,
    pub lease: Duration,
    pub renew: Duration,
    pub retry: Duration,
}

/// A configuration that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    pub profiles: Vec<Profile>,
    pub election: LeaderElection,
    /// First back-off of pods that do not fit, and the longest.
    pub backoff: (Duration, Duration),
    /// Kubeconfig that `clientConnection` names.
    pub kubeconfig: Option<String>,
    /// Workers that decide at the same time (`parallelism`).
    pub workers: Option<usize>,
    /// Settings that are understood and have no effect, each with the reason.
    pub notes: Vec<String>,
}

/// Reads a configuration.
///
/// # Errors
/// Names the first field that is wrong or that cannot be followed.
pub fn read(configuration: &Value) -> Result<Configuration, ConfigError> {
    let root = Node::root(configuration);
    root.only(&[
        "apiVersion",
        "kind",
        "parallelism",
        "leaderElection",
        "clientConnection",
        "healthzBindAddress",
        "metricsBindAddress",
        "enableProfiling",
        "enableContentionProfiling",
        "percentageOfNodesToScore",
        "podInitialBackoffSeconds",
        "podMaxBackoffSeconds",
        "profiles",
        "extenders",
        "delayCacheUntilActive",
    ])?;
    let version = root.get("apiVersion");
    if version.text()? != Some(API_VERSION) {
        return Err(version.wrong(format!("must be {API_VERSION}")));
    }
    let kind = root.get("kind");
    if kind.text()? != Some("KubeSchedulerConfiguration") {
        return Err(kind.wrong("must be KubeSchedulerConfiguration"));
    }
    let mut notes = Vec::new();
    if let Some(extender) = root.get("extenders").list()?.first() {
        return Err(extender.wrong("extenders are not called by this scheduler; remove them"));
    }
    for (field, why) in [
        ("enableProfiling", "there is no profiling endpoint"),
        (
            "enableContentionProfiling",
            "there is no profiling endpoint",
        ),
        (
            "delayCacheUntilActive",
            "watches start when the lease is held",
        ),
        ("healthzBindAddress", "there is no health endpoint"),
        ("metricsBindAddress", "give --metrics-address instead"),
    ] {
        if root.get(field).is_there() {
            notes.push(format!("{field} has no effect: {why}"));
        }
    }
    let seconds = |field: &str, default: Duration| {
        let node = root.get(field);
        match node.number()? {
            None => Ok(default),
            Some(n @ 1..=86_400) => Ok(Duration::from_secs(n.unsigned_abs())),
            Some(_) => Err(node.wrong("must be 1 to 86400 seconds")),
        }
    };
    let first = seconds("podInitialBackoffSeconds", BACKOFF.0)?;
    let longest = seconds("podMaxBackoffSeconds", BACKOFF.1.max(first))?;
    if longest < first {
        let node = root.get("podMaxBackoffSeconds");
        return Err(node.wrong("must not be below podInitialBackoffSeconds"));
    }
    let parallelism = root.get("parallelism");
    let workers = match parallelism.number()? {
        None => None,
        Some(n @ 1..) => Some(usize::try_from(n).unwrap_or(usize::MAX)),
        Some(_) => return Err(parallelism.wrong("must be 1 or more")),
    };
    let connection = root.get("clientConnection");
    connection.only(&[
        "kubeconfig",
        "acceptContentTypes",
        "contentType",
        "qps",
        "burst",
    ])?;
    for field in ["acceptContentTypes", "contentType", "qps", "burst"] {
        if connection.get(field).is_there() {
            let why = "requests are JSON and bounded by how many are in flight";
            notes.push(format!("clientConnection.{field} has no effect: {why}"));
        }
    }
    let kubeconfig = connection
        .get("kubeconfig")
        .text()?
        .filter(|k| !k.is_empty());
    let mut profiles: Vec<Profile> = Vec::new();
    for node in root.get("profiles").list()? {
        let profile = plugins::profile(&node, plugins::share(&root)?, &mut notes)?;
        if profiles
            .iter()
            .any(|p| p.scheduler_name == profile.scheduler_name)
        {
            let name = &profile.scheduler_name;
            return Err(node
                .get("schedulerName")
                .wrong(format!("{name} has a profile already")));
        }
        profiles.push(profile);
    }
    if profiles.is_empty() {
        profiles.push(Profile::default());
    }
    Ok(Configuration {
        profiles,
        election: election(&root.get("leaderElection"))?,
        backoff: (first, longest),
        kubeconfig: kubeconfig.map(ToOwned::to_owned),
        workers,
        notes,
    })
}

fn election(node: &Node<'_>) -> Result<LeaderElection, ConfigError> {
    node.only(&[
        "leaderElect",
        "leaseDuration",
        "renewDeadline",
        "retryPeriod",
        "resourceLock",
        "resourceName",
        "resourceNamespace",
    ])?;
    let lock = node.get("resourceLock");
    if lock.text()?.is_some_and(|l| l != "leases") {
        return Err(lock.wrong("must be leases"));
    }
    let text = |field: &str, default: &str| {
        let text = node.get(field).text()?.filter(|t| !t.is_empty());
        Ok::<_, ConfigError>(text.unwrap_or(default).to_owned())
    };
    let election = LeaderElection {
        elect: node.get("leaderElect").flag()?.unwrap_or(true),
        namespace: text("resourceNamespace", "kube-system")?,
        name: text("resourceName", "kube-scheduler")?,
        lease: node
            .get("leaseDuration")
            .duration(Duration::from_secs(15))?,
        renew: node
            .get("renewDeadline")
            .duration(Duration::from_secs(10))?,
        retry: node.get("retryPeriod").duration(Duration::from_secs(2))?,
    };
    if election.renew >= election.lease {
        return Err(node
            .get("renewDeadline")
            .wrong("must be shorter than leaseDuration"));
    }
    if election.retry >= election.renew {
        return Err(node
            .get("retryPeriod")
            .wrong("must be shorter than renewDeadline"));
    }
    Ok(election)
}

#[cfg(test)]
mod tests;
