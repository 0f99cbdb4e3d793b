//! Deployment: ReplicaSets, one a template, moved from old to new at the pace that the strategy
//! allows.
//!
//! Behaviour is that of `pkg/controller/deployment` of Kubernetes 1.36: rolling and recreating
//! updates, pause, proportional scaling, history, rollback by annotation, progress deadline. The hash in a ReplicaSet's
//! name is ours (see [`crate::hash`]); ReplicaSets made by Kubernetes are found by their template.

pub mod plan;
mod rollback;
mod scale;
mod shell;
mod status;

pub use shell::start;
