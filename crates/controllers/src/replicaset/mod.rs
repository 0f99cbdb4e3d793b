//! ReplicaSet and ReplicationController: a number of equal pods. One planner and one shell for
//! both, as `pkg/controller/replicaset` of Kubernetes 1.36 serves both.

pub mod plan;
mod shell;

pub use shell::{start_replica_sets, start_replication_controllers};
