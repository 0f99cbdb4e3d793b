//! Simulated nodes: what they report, which pods they have room for, which addresses they give.

mod address;
mod devices;
pub mod eviction;
mod mirror;
mod report;
mod room;

pub use address::{AddressError, Blocks, Pool, parse_cidr};
pub use devices::{prepares, slices, told};
pub use mirror::{HASH, MIRROR, mirror, static_hash};
pub use report::{
    Identity, KUBELET_VERSION, Pressures, heartbeat, lease, lease_renewal, node, node_status,
    topology,
};
pub use room::{REJECTED, Room};
