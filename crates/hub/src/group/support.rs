//! What a Group needs on a member beside its StatefulSets: namespace, service account, Services, config
//! and a disruption budget. Pure; the shell applies the objects server-side, in this order.

use std::collections::BTreeMap;

use gantry_api::labels;
use serde_json::{Value, json};

use crate::{
    render::{self, Source},
    world::Revision,
};

/// The objects for a member on which the Group has `replicas` of its `total` instances, with the config
/// of `revisions`.
pub fn objects(
    source: Source<'_>,
    revisions: &[&Revision],
    namespace: &str,
    replicas: i32,
    total: i32,
) -> Vec<Value> {
    let own = BTreeMap::from([
        (labels::APP.to_owned(), source.app_name.to_owned()),
        (labels::GROUP.to_owned(), source.group_name.to_owned()),
        (labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned()),
    ]);
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
    })];
    if let (Some(name), Some(account)) = (source.service_account(), &source.app.service_account)
        && account.create
    {
        // Shared by the Groups of the App: it belongs to the App, not to one of them.
        let mut labels = account.labels.clone();
        labels.insert(labels::APP.to_owned(), source.app_name.to_owned());
        labels.insert(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned());
        objects.push(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": account.annotations},
        }));
    }
    let mut configs = BTreeMap::new();
    for revision in revisions {
        if let Some(name) = render::config_map_name(source.group_name, &revision.spec.config) {
            configs.insert(name, &revision.spec.config);
        }
    }
    for (name, files) in configs {
        objects.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": own},
            "immutable": true,
            "data": render::config_map_data(files),
        }));
    }
    let selector = render::selector(source.group_name);
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": render::headless_name(source.group_name), "namespace": namespace, "labels": own},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector, "ports": app_ports(source)},
    }));
    objects.extend(services(source, namespace, &own));
    let floor = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
    let allowed = i64::from(
        source
            .group
            .availability
            .max_unavailable
            .max_out(total.max(0) as u32),
    );
    let share = if total > 0 {
        floor(allowed * i64::from(replicas) / i64::from(total))
    } else {
        0
    };
    objects.push(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": source.group_name, "namespace": namespace, "labels": own},
        // Two members may each let one go at once: rounded down, but with none a node could not be drained.
        "spec": {"maxUnavailable": share.max(1), "selector": {"matchLabels": selector}},
    }));
    objects
}

fn app_ports(source: Source<'_>) -> Vec<Value> {
    source
        .app
        .ports
        .iter()
        .map(|p| json!({"name": p.name, "port": p.port, "targetPort": p.container_port.unwrap_or(p.port), "protocol": p.protocol.as_str()}))
        .collect()
}

fn services(source: Source<'_>, namespace: &str, own: &BTreeMap<String, String>) -> Vec<Value> {
    let selector = render::selector(source.group_name);
    if source.group.services.is_empty() {
        if source.app.ports.is_empty() {
            return Vec::new();
        }
        return vec![json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": source.group_name, "namespace": namespace, "labels": own},
            "spec": {"type": "ClusterIP", "selector": selector, "ports": app_ports(source)},
        })];
    }
    let service = |wish: &gantry_api::group::GroupService| {
        let mut labels = wish.labels.clone();
        labels.extend(own.clone());
        let mut spec =
            json!({"type": wish.kind.as_str(), "selector": selector, "ports": wish.ports});
        // An entry of a map-list is told from others by port and protocol; the server fills it in too late
        // for that.
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            if port["protocol"].is_null() {
                port["protocol"] = json!("TCP");
            }
        }
        if wish.headless {
            spec["clusterIP"] = json!("None");
        }
        if let Some(affinity) = &wish.session_affinity {
            spec["sessionAffinity"] = json!(affinity);
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": wish.name, "namespace": namespace, "labels": labels, "annotations": wish.annotations},
            "spec": spec,
        })
    };
    source.group.services.iter().map(service).collect()
}

#[cfg(test)]
mod tests {
    use gantry_api::{
        CountOrPercent, RevisionSpec,
        app::{AppPort, AppSpec, ServiceAccountSpec},
        group::{Availability, GroupSpec},
        revision::ConfigFile,
    };

    use super::*;

    #[test]
    fn a_member_gets_what_a_group_needs() {
        let app = AppSpec {
            ports: vec![AppPort {
                name: "http".into(),
                port: 80,
                container_port: Some(8080),
                ..AppPort::default()
            }],
            service_account: Some(ServiceAccountSpec {
                create: true,
                ..ServiceAccountSpec::default()
            }),
            ..AppSpec::default()
        };
        let group = GroupSpec {
            availability: Availability {
                max_unavailable: CountOrPercent::Percent(20),
            },
            ..GroupSpec::default()
        };
        let source = Source {
            app_name: "cart",
            app: &app,
            group_name: "cart-prod",
            group: &group,
        };
        let spec = |text: &str| RevisionSpec {
            image: "cart:1".into(),
            config: vec![ConfigFile {
                path: "/c".into(),
                text: text.into(),
            }],
            ..RevisionSpec::default()
        };
        let (one, two) = (
            render::revision(source, &spec("a"), 1),
            render::revision(source, &spec("b"), 2),
        );
        let made = objects(source, &[&one, &two], "shop", 10, 30);
        let names: Vec<String> = made
            .iter()
            .map(|o| {
                format!(
                    "{} {}",
                    o["kind"].as_str().unwrap(),
                    o["metadata"]["name"].as_str().unwrap()
                )
            })
            .collect();
        insta::assert_yaml_snapshot!(names);
        assert_eq!(made.last().unwrap()["spec"]["maxUnavailable"], 2);
    }
}
