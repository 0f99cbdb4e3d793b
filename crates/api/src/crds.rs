//! The CustomResourceDefinitions, generated from the types.
//!
//! `crds/*.yaml` of this crate is their committed form, for `kubectl apply` and for review; a test
//! holds it to the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{
    App, Cluster, Group, Notification, PlacementPolicy, Release, ReleaseOrder, Reservation,
    ServiceProfile, StopLine, Strategy, Tenant, rules,
};

/// The definitions of what a hub holds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        Cluster::crd(),
        App::crd(),
        Group::crd(),
        Strategy::crd(),
        Release::crd(),
        ReleaseOrder::crd(),
        StopLine::crd(),
        Tenant::crd(),
        Notification::crd(),
    ];
    crds.iter_mut().for_each(rules::put);
    crds
}

/// The definitions of what the scheduler of a cluster reads.
pub fn scheduling_crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        PlacementPolicy::crd(),
        Reservation::crd(),
        ServiceProfile::crd(),
    ];
    crds.iter_mut().for_each(rules::put);
    crds
}
