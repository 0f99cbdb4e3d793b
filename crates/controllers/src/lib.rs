//! Workload controllers: what an API server needs to be a cluster.
//!
//! Each controller is a planner (pure: the world in, actions out) and a shell (watches, carries the
//! actions out, writes status). They speak only the Kubernetes API, so they run beside any API
//! server that has none of its own; behaviour is that of kube-controller-manager of Kubernetes
//! 1.36, and each module names what it leaves out.
//!
//! Of kube-controller-manager's controllers these are not there: the cleaner of legacy tokens; node
//! addresses (IPAM), routes and load balancers of a cloud; storage versions; the expander of volumes of
//! other drivers, and warnings about SELinux labels of volumes; the cleaner of PodCertificateRequests.
//! (Of these only the first and the expander are on by default in 1.36.)
//! What lacks its controller can be created and read, and nothing follows from it.
//!
//! Work is in proportion to change: one shared watch a kind feeds an indexed cache
//! ([`runtime::informer`]), an event costs a look-up or two, and keyed queues ([`runtime::queue`])
//! fold events that come together into one sync.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub mod account;
pub mod aggregation;
pub mod autoscaler;
pub mod bootstrap;
pub mod certificates;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod devicetaints;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod gc;
pub mod hash;
pub mod history;
pub mod job;
pub mod model;
pub mod namespace;
pub mod nodelifecycle;
pub mod ownership;
pub mod podgc;
pub mod quota;
pub mod replicaset;
pub mod resourceclaim;
pub mod runtime;
pub mod selector;
pub mod servicecidr;
pub mod statefulset;
pub mod tokens;
pub mod ttl;
pub mod ttlafterfinished;
pub mod volume;

use runtime::{Api, Context, Informers, Recorder};

macro_rules! controllers {
    ($($name:ident = $text:literal, $start:path;)*) => {
        /// The controllers of this crate, under the names that kube-controller-manager gives them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Name {
            $($name,)*
        }

        impl Name {
            pub const ALL: &[Name] = &[$(Name::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Name::$name => $text,)*
                }
            }
        }

        fn start(name: Name, context: &Context, options: &Options, starts: &mut Vec<Start>) {
            match name {
                $(Name::$name => starts.push(Box::new($start(context, options.workers))),)*
            }
        }
    };
}

impl Name {
    /// Those that run where nobody says which.
    pub fn on_by_default() -> impl Iterator<Item = Name> {
        let off = |name: &Name| matches!(name, Name::TokenCleaner | Name::BootstrapSigner);
        Name::ALL.iter().copied().filter(move |name| !off(name))
    }

    /// Those that a list chooses: `*` for all that are on by default, a name, and a name after `-` for one
    /// that is not to run. What comes first about one counts.
    ///
    /// # Errors
    /// The name that there is none of.
    pub fn chosen(list: &[impl AsRef<str>]) -> Result<BTreeSet<Name>, String> {
        let list: Vec<&str> = list.iter().map(|one| one.as_ref().trim()).collect();
        let known = |one: &str| {
            let name = one.strip_prefix('-').unwrap_or(one);
            one == "*" || Name::ALL.iter().any(|n| n.as_str() == name)
        };
        if let Some(unknown) = list.iter().find(|one| !known(one)) {
            return Err((*unknown).to_owned());
        }
        let on: BTreeSet<Name> = match list.contains(&"*") {
            true => Name::on_by_default().collect(),
            false => BTreeSet::new(),
        };
        let runs = |name: &Name| {
            let said = |one: &&str| match one.strip_prefix('-') {
                Some(off) => (off == name.as_str()).then_some(false),
                None => (*one == name.as_str()).then_some(true),
            };
            list.iter()
                .find_map(said)
                .unwrap_or_else(|| on.contains(name))
        };
        Ok(Name::ALL.iter().copied().filter(runs).collect())
    }
}

type Start = Box<dyn FnOnce(&mut JoinSet<()>) + Send>;

controllers! {
    DaemonSet = "daemonset-controller", daemonset::start;
    StatefulSet = "statefulset-controller", statefulset::start;
    Deployment = "deployment-controller", deployment::start;
    ReplicaSet = "replicaset-controller", replicaset::start_replica_sets;
    ReplicationController = "replicationcontroller-controller", replicaset::start_replication_controllers;
    Job = "job-controller", job::start;
    CronJob = "cronjob-controller", cronjob::start;
    TtlAfterFinished = "ttl-after-finished-controller", ttlafterfinished::start;
    EndpointSlice = "endpointslice-controller", endpointslice::start;
    Endpoints = "endpoints-controller", endpoints::start;
    EndpointSliceMirroring = "endpointslice-mirroring-controller", endpoints::start_mirroring;
    Disruption = "disruption-controller", disruption::start;
    GarbageCollector = "garbage-collector-controller", gc::start;
    Namespace = "namespace-controller", namespace::start;
    NodeLifecycle = "node-lifecycle-controller", nodelifecycle::start;
    PodGarbageCollector = "pod-garbage-collector-controller", podgc::start;
    ServiceAccount = "serviceaccount-controller", account::start_accounts;
    VolumeBinder = "persistentvolume-binder-controller", volume::start;
    ClaimProtection = "persistentvolumeclaim-protection-controller", volume::start_claim_protection;
    VolumeProtection = "persistentvolume-protection-controller", volume::start_volume_protection;
    EphemeralVolume = "ephemeral-volume-controller", volume::start_ephemeral;
    AttributesProtection = "volumeattributesclass-protection-controller", volume::start_attributes_protection;
    ResourceClaim = "resourceclaim-controller", resourceclaim::start;
    DeviceTaintEviction = "device-taint-eviction-controller", devicetaints::start;
    TokenCleaner = "token-cleaner-controller", bootstrap::start_cleaner;
    BootstrapSigner = "bootstrap-signer-controller", bootstrap::start_signer;
    AttachDetach = "persistentvolume-attach-detach-controller", volume::start_attach_detach;
    CertificateApproving = "certificatesigningrequest-approving-controller", certificates::start_approving;
    CertificateCleaning = "certificatesigningrequest-cleaner-controller", certificates::start_cleaning;
    Ttl = "ttl-controller", ttl::start;
    ServiceCidr = "service-cidr-controller", servicecidr::start;
    RoleAggregation = "clusterrole-aggregation-controller", aggregation::start;
    ResourceQuota = "resourcequota-controller", quota::start;
    HorizontalPodAutoscaler = "horizontal-pod-autoscaler-controller", autoscaler::start;
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub controllers: BTreeSet<Name>,
    /// Objects of one kind that are worked on side by side.
    pub workers: usize,
    /// The certificate (PEM) by which pods know the API server. Where it is given, each namespace
    /// has it in the ConfigMap `kube-root-ca.crt`.
    pub root_ca: Option<String>,
    /// The default StorageClass to create, whose volumes are simulated; none where it is `None`.
    pub default_class: Option<String>,
    /// Signs approved certificate requests; without it, somebody else does.
    pub authority: Option<Arc<certificates::Authority>>,
    /// Signs the tokens that Secrets keep; without it, they are not filled.
    pub tokens: Option<tokens::TokenSigner>,
    /// How soon a node that is silent counts as lost.
    pub node_timing: nodelifecycle::Timing,
    /// How often autoscalers look, and for how long they wait.
    pub autoscaling: autoscaler::Timing,
    /// How long a Job waits after the first failure of a pod; each further one doubles it.
    pub job_backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            controllers: Name::on_by_default().collect(),
            workers: 8,
            root_ca: None,
            default_class: None,
            authority: None,
            tokens: None,
            node_timing: nodelifecycle::Timing::default(),
            autoscaling: autoscaler::Timing::default(),
            job_backoff: job::backoff::FIRST,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task of a controller ended by a panic: a bug in it.
    #[error("run controllers: a task panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Runs the controllers until `stop` is cancelled. An API server that is away, or not yet there, is
/// waited for.
pub async fn run(
    client: kube::Client,
    options: Options,
    stop: CancellationToken,
) -> Result<(), Error> {
    // The tasks of this run end with it, even if only because one of them has panicked.
    let stop = stop.child_token();
    let _ends_with_this = stop.clone().drop_guard();
    let api = Api::new(client);
    let (recorder, write_events) = Recorder::new(api.clone(), stop.clone());
    let informers = Arc::new(Informers::default());
    let context = Context {
        api: api.clone(),
        informers: informers.clone(),
        recorder,
        stop: stop.clone(),
        node_timing: options.node_timing,
        autoscaling: options.autoscaling,
        job_backoff: options.job_backoff,
        root_ca: options.root_ca.as_deref().map(Arc::from),
    };
    let mut starts = Vec::new();
    for name in &options.controllers {
        start(*name, &context, &options, &mut starts);
    }
    if let Some(pem) = options.root_ca.clone() {
        starts.push(Box::new(account::start_certificates(
            &context,
            options.workers,
            pem,
        )));
    }
    if let Some(name) = options.default_class.clone() {
        starts.push(Box::new(volume::start_default_class(&context, name)));
    }
    if let Some(authority) = options.authority.clone() {
        let start = certificates::start_signing(&context, options.workers, authority);
        starts.push(Box::new(start));
    }
    if let Some(signer) = options.tokens.clone() {
        let root_ca = options.root_ca.clone();
        starts.push(Box::new(tokens::start(
            &context,
            options.workers,
            signer,
            root_ca,
        )));
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(write_events);
    informers.spawn(&api, &mut tasks, &stop);
    if informers.wait_synced(&stop).await {
        tracing::info!(
            controllers = options.controllers.len(),
            "caches are filled; controllers start"
        );
        for start in starts {
            start(&mut tasks);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Err(error) if error.is_panic() => return Err(Error::Panicked(error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_as_kube_controller_manager_does() {
        let default: BTreeSet<Name> = Name::on_by_default().collect();
        assert!(default.contains(&Name::Job) && !default.contains(&Name::BootstrapSigner));
        assert_eq!(Name::chosen(&["*"]), Ok(default.clone()));
        let without = Name::chosen(&["*", "-job-controller"]).unwrap();
        assert_eq!(without.len() + 1, default.len());
        let with = Name::chosen(&["*", "bootstrap-signer-controller"]).unwrap();
        assert!(with.contains(&Name::BootstrapSigner));
        let one = Name::chosen(&["job-controller", "-job-controller"]);
        assert_eq!(one, Ok([Name::Job].into()));
        assert_eq!(Name::chosen(&["*", "-jobs"]), Err("-jobs".to_owned()));
    }
}
