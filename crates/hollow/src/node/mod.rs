//! Simulated nodes: what they report, which pods they have room for, which addresses they give.

mod address;
pub mod eviction;
mod report;
mod room;

pub use address::{AddressError, Blocks, Pool, parse_cidr};
pub use report::{
    Identity, KUBELET_VERSION, Pressures, heartbeat, lease, lease_renewal, node, node_status,
    topology,
};
pub use room::Room;
