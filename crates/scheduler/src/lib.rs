//! Gantry's scheduler: places pods on nodes by the rules of kube-scheduler's default profile.
//!
//! Two halves, after the project's rule of pure planners and thin shells:
//!
//! - [`core`]: the cluster as index arrays, what each pod asks for, filters, scores, the queue and the decision.
//!   Synchronous; no I/O, no clock, no client. Speed comes from three things. Pods that ask for the same share one
//!   *class*, whose selectors are resolved to counters once. Nodes are held in *ranks*, bucketed by score and kept
//!   up to date from a log of changed nodes, so that a decision looks at the best few nodes and not at all of them.
//!   Counts for spread and pod affinity are kept per (selector, topology key) as pods come and go, never recomputed.
//! - [`shell`]: watches, binding, events and conditions. It speaks the Kubernetes API through the `kube::Client`
//!   that it is given and nothing else; all its state is rebuilt from watches at start.
//!
//! - [`config`]: KubeSchedulerConfiguration, read into profiles.
//! - [`report`], [`trial`]: answers for people: why a pod is where it is; what a policy would change.
//!
//! Of kube-scheduler's default profile these are not here: of dynamic resource allocation what [`core::devices`] names,
//! extenders and foreign plugins (refused where they are configured), conflicts of in-line disks (RBD, iSCSI
//! and what else has no CSI driver), tolerations by comparison of numbers. Preemption differs in one respect: the node
//! is held for the pod while victims leave, against all but pods of higher priority, and it is bound there unless another
//! node comes to have room first; a scheduler started anew takes that up again. Where
//! kube-scheduler scores a sample of feasible nodes, this one scores the best-ranked ones: `percentageOfNodesToScore` says
//! how many at least, and 100 lets it score every node that has room.
//!
//! One instance is to run per scheduler name: whoever starts several elects a leader among them, as `gantry scheduler`
//! does.
//!
//! [`run`] is the entry point.

pub mod config;
pub mod core;
pub mod report;
pub mod shell;
pub mod trial;

pub use shell::{
    DECISION, Error, InstallError, Metrics, Options, Snapshot, install, run, serve, snapshot,
};
