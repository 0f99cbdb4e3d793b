//! Simulated nodes: what they report, which pods they have room for, which addresses they give.

mod address;
mod report;
mod room;

pub use address::{AddressError, Blocks, Pool, parse_cidr};
pub use report::{KUBELET_VERSION, heartbeat, lease, lease_renewal, node, node_status};
pub use room::Room;
