//! Gantry's API types (CRDs of group `gantry.dev`) and the fleet's vocabulary.
//!
//! Kubernetes conventions hold throughout: `spec` is wish and is written by people, `status` is
//! fact and is written by the hub alone, every action a person can take is a declared field.
//! The doc comment of a type or field is the text that `kubectl explain` prints.
//!
//! | module | holds |
//! |---|---|
//! | [`labels`] | names of labels, annotations, conditions and finalizers |
//! | [`count`] | [`CountOrPercent`](count::CountOrPercent) and its rounding rules |
//! | [`span`] | [`Span`](span::Span), a length of time as people write it (`90s`, `5m`) |
//! | [`cluster`], [`app`], [`group`], [`strategy`], [`release`], [`order`], [`stop_line`], [`tenant`], [`notification`] | the kinds |
//! | [`placement_policy`], [`reservation`], [`service_profile`] | what the scheduler of a cluster reads, and keeps |
//! | [`promotion`] | environments in order, and what takes a revision from one to the next |
//! | [`gate`], [`window`] | what a strategy's gates and change windows are made of |
//! | [`revision`] | what a revision is made of, and a change to one |
//! | [`crds`] | the CustomResourceDefinitions, generated from the types |
//! | [`rules`] | what the API server refuses, as CEL rules of the definitions |

pub mod app;
pub mod cluster;
pub mod count;
pub mod crds;
pub mod gate;
pub mod group;
pub mod labels;
pub mod notification;
pub mod order;
pub mod placement_policy;
pub mod promotion;
pub mod release;
pub mod reservation;
pub mod revision;
pub mod rules;
pub mod service_profile;
pub mod span;
pub mod stop_line;
pub mod strategy;
pub mod tenant;
pub mod window;

pub use app::{App, AppSpec, AppStatus};
pub use cluster::{Cluster, ClusterSpec, ClusterStatus};
pub use count::CountOrPercent;
pub use crds::{crds, scheduling_crds};
pub use group::{Group, GroupSpec, GroupStatus};
pub use notification::{Notification, NotificationSpec, NotificationStatus};
pub use order::{ReleaseOrder, ReleaseOrderSpec, ReleaseOrderStatus};
pub use placement_policy::{PlacementPolicy, PlacementPolicySpec, PlacementPolicyStatus};
pub use release::{Phase, Release, ReleaseSpec, ReleaseStatus};
pub use reservation::{Reservation, ReservationPhase, ReservationSpec, ReservationStatus};
pub use revision::{RevisionChange, RevisionSpec};
pub use service_profile::{ServiceProfile, ServiceProfileSpec, ServiceProfileStatus};
pub use span::Span;
pub use stop_line::{StopLine, StopLineSpec};
pub use strategy::{Strategy, StrategySpec};
pub use tenant::{Tenant, TenantSpec, TenantStatus};

/// The API group of every kind in this crate.
pub const GROUP: &str = "gantry.dev";
/// The one version served and stored.
pub const VERSION: &str = "v1alpha1";
