//! Workload controllers: what an API server needs to be a cluster
