//! HorizontalPodAutoscalers: replicas in proportion to what metrics say.
//!
//! Behaviour is that of `pkg/controller/podautoscaler` of Kubernetes 1.36: [`replicas`] reckons how
//! many replicas one metric asks for, [`plan`] what follows from all of them, [`pace`] how fast that
//! may be. Metrics come by the APIs `metrics.k8s.io`, `custom.metrics.k8s.io` and
//! `external.metrics.k8s.io`, whoever serves them; scales by the subresource `scale`, of whatever
//! kind has it.

mod evaluate;
mod metrics;
pub mod pace;
pub mod plan;
pub mod replicas;
mod shell;

pub use shell::start;

use std::time::Duration;

/// The periods of the autoscaler; the defaults are kube-controller-manager's.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often each autoscaler looks at its metrics.
    pub period: Duration,
    /// For how long the highest recommendation holds where no behaviour says otherwise.
    pub downscale_stabilization: Duration,
    /// For how long after its start the CPU usage of a pod may be that of its start.
    pub cpu_initialization: Duration,
    /// For how long after its start a pod that is not ready counts as one that never was.
    pub initial_readiness_delay: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            period: Duration::from_secs(15),
            downscale_stabilization: Duration::from_secs(300),
            cpu_initialization: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
        }
    }
}

/// How far a metric may be off its target, as a share of it, where the behaviour does not say.
pub const TOLERANCE: f64 = 0.1;
