//! Simulated nodes: a kubelet's API behaviour without containers
