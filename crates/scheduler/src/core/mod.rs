//! The pure core: what is known of the cluster and how one pod's node is decided.
//!
//! | module | subject |
//! |---|---|
//! | [`object`] | Pods, nodes and the rest as they are decoded from the API, cut to what scheduling reads |
//! | [`symbols`], [`quantity`], [`selector`] | interned strings; resource quantities; label and node selectors |
//! | [`request`] | what a pod asks for, in a form that compares and hashes: pods that are equal here share a class |
//! | [`profile`] | what a profile of KubeSchedulerConfiguration changes about the rules |
//! | [`numa`] | what a kubelet that aligns to NUMA nodes would refuse |
//! | [`nodes`], [`topology`], [`bits`] | node state in arrays by dense id; topology domains; sets of nodes |
//! | [`counters`] | how many pods a selector matches, by domain; which domains placed pods forbid or prefer |
//! | [`devices`] | devices of drivers (dynamic resource allocation): what is offered, taken, and to be given to claims |
//! | [`volumes`], [`images`] | claims and what can serve them on which node; images that nodes have |
//! | [`class`] | requests with their selectors resolved to counters |
//! | [`load`] | usage as it is measured, and estimated of pods that no measurement shows yet |
//! | [`policy`] | placement policies, written into the requests of the pods that they select |
//! | [`services`] | at which hours services use how much |
//! | [`rank`], [`ranking`] | nodes bucketed by score, brought up to date from the change log; which rank to use |
//! | [`seats`] | what nodes have room for, and how they score by it |
//! | [`cluster`] | all of the above together, changed by events |
//! | [`decide`], `score`, [`diagnosis`] | filters and candidates; scores and choice; why no node fits |
//! | [`round`], [`overlay`] | pods decided at the same time by several workers; what one of them has decided so far |
//! | [`explain`], [`forecast`] | scores by rule, what is in the way of a pod and the least that would have to change; how many more fit |
//! | [`gang`], [`reservation`] | pods that are of use only together; room held for pods to come |
//! | [`quota`] | what tenants are guaranteed, and may borrow from each other |
//! | [`preempt`] | who would have to leave for a pod to fit |
//! | [`rebalance`] | which pods would better be elsewhere |
//! | [`queue`], [`turns`] | which pod is next; who waits for what; tenants in turn |

pub mod bits;
pub mod class;
pub mod cluster;
pub mod counters;
pub mod decide;
pub mod devices;
pub mod diagnosis;
pub mod explain;
pub mod forecast;
pub mod gang;
pub mod images;
pub mod load;
pub mod nodes;
pub mod numa;
pub mod object;
pub mod overlay;
pub mod policy;
pub mod preempt;
pub mod profile;
pub mod quantity;
pub mod queue;
pub mod quota;
pub mod rank;
pub mod ranking;
pub mod rebalance;
pub mod request;
pub mod reservation;
pub mod round;
mod score;
pub mod seats;
pub mod selector;
pub mod services;
pub mod symbols;
pub mod topology;
pub mod turns;
pub mod volumes;

pub use class::ClassId;
pub use cluster::Cluster;
pub use decide::Decision;
pub use diagnosis::{Diagnosis, Reason};
pub use nodes::NodeId;
pub use profile::Profile;
pub use round::Round;
