//! An embedded Kubernetes cluster in one process: API server, controllers, scheduler, simulated nodes
