//! Volumes come to the nodes of the pods that use them, and leave when none does
//! (`pkg/controller/volume/attachdetach` of 1.36, for volumes of CSI drivers).
//!
//! The controller makes and deletes VolumeAttachments and says in a node's status what is attached
//! to it. A driver's own attacher does the rest; for the simulated driver, which has none, it is
//! done here. Left out: volumes of in-tree plugins, and forced detaching after six minutes (a volume
//! leaves as soon as the API server has no pod on the node that uses it: simulated nodes and node
//! shutdown through pod garbage collection need no more).

mod plan;
mod shell;

pub use shell::start;
