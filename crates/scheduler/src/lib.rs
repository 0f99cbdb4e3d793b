//! Scheduler: a pure core and a shell that speaks the Kubernetes API
