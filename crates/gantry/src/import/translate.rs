//! Deployments, Services and ServiceAccounts into Apps and Groups.

use std::collections::BTreeMap;

use gantry_api::app::{
    AppPort, ContainerShape, OverlayMetadata, PodOverlay, Protocol, ServiceAccountSpec,
};
use gantry_api::group::{Availability, CellShare, GroupService, Placement, ServiceType};
use gantry_api::strategy::{StrategyChoice, StrategySpec};
use gantry_api::{App, AppSpec, CountOrPercent, Group, GroupSpec, RevisionSpec, Span};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::leftover::Manifest;
use super::{Imported, Left, Options};

type Labels = BTreeMap<String, String>;

/// Turns manifests into Apps and Groups. The error names the object and field that cannot be read;
/// what can be read but has no place in Gantry is listed in [`Imported::left`].
pub fn translate(manifests: Vec<Manifest>, options: &Options) -> Result<Imported, String> {
    let mut out = Imported::default();
    let (mut deployments, mut services, mut accounts) = (vec![], vec![], BTreeMap::new());
    for manifest in manifests {
        match manifest.kind.as_str() {
            "Deployment" => deployments.push(manifest),
            "StatefulSet" if options.stateful_sets => deployments.push(manifest),
            "Service" => services.push(Some(manifest)),
            "ServiceAccount" => {
                accounts.insert(manifest.name.clone(), manifest);
            }
            _ => out.left.push(Left {
                object: manifest.id(),
                field: None,
                reason: "only Deployments, Services and ServiceAccounts become Apps and Groups; apply it to the \
                         members yourself"
                    .to_owned(),
            }),
        }
    }
    for mut deployment in deployments {
        let labels: Labels = deployment
            .take_as("spec.template.metadata.labels")?
            .unwrap_or_default();
        let mut of_group = vec![];
        for slot in &mut services {
            if slot.as_ref().is_some_and(|s| selects(s, &labels)) {
                of_group.extend(slot.take().map(|s| service(s, &mut out.left)).transpose()?);
            }
        }
        let account = deployment
            .peek("spec.template.spec.serviceAccountName")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .map(|name| service_account(accounts.remove(&name), name, &mut out.left))
            .transpose()?;
        let (app, group) = one(
            deployment,
            labels,
            of_group,
            account,
            options,
            &mut out.left,
        )?;
        out.apps.push(app);
        out.groups.push(group);
    }
    let nobody = |m: Manifest, reason: &str| Left {
        object: m.id(),
        field: None,
        reason: reason.to_owned(),
    };
    out.left.extend(
        services
            .into_iter()
            .flatten()
            .map(|s| nobody(s, "it selects no Deployment of the manifests")),
    );
    out.left.extend(
        accounts
            .into_values()
            .map(|a| nobody(a, "no Deployment of the manifests uses it")),
    );
    Ok(out)
}

fn selects(service: &Manifest, labels: &Labels) -> bool {
    let Some(selector) = service.peek("spec.selector").and_then(Value::as_object) else {
        return false;
    };
    !selector.is_empty()
        && selector
            .iter()
            .all(|(k, v)| labels.get(k).map(String::as_str) == v.as_str())
}

fn service_account(
    manifest: Option<Manifest>,
    name: String,
    left: &mut Vec<Left>,
) -> Result<ServiceAccountSpec, String> {
    // An account that the manifests do not bring is somebody else's to make.
    let Some(mut manifest) = manifest else {
        return Ok(ServiceAccountSpec {
            name: Some(name),
            create: false,
            ..ServiceAccountSpec::default()
        });
    };
    namespace(&mut manifest);
    let spec = ServiceAccountSpec {
        name: Some(name),
        create: true,
        labels: manifest.take_as("metadata.labels")?.unwrap_or_default(),
        annotations: manifest
            .take_as("metadata.annotations")?
            .unwrap_or_default(),
    };
    manifest.finish(left);
    Ok(spec)
}

/// The namespace is chosen by who imports.
fn namespace(manifest: &mut Manifest) {
    manifest.take("metadata.namespace");
}

fn service(mut manifest: Manifest, left: &mut Vec<Left>) -> Result<GroupService, String> {
    namespace(&mut manifest);
    manifest.take("spec.selector");
    let headless = manifest.peek("spec.clusterIP").and_then(Value::as_str) == Some("None");
    if headless {
        manifest.take("spec.clusterIP");
        manifest.take("spec.clusterIPs");
    }
    for field in ["spec.clusterIP", "spec.clusterIPs"] {
        manifest.leave(
            field,
            "each member gives the Service an address of its own",
            left,
        );
    }
    // A default written out says nothing.
    if manifest
        .peek("spec.sessionAffinity")
        .and_then(Value::as_str)
        == Some("None")
    {
        manifest.take("spec.sessionAffinity");
    }
    let kind: Option<ServiceType> = manifest.take_as("spec.type")?;
    let service = GroupService {
        name: manifest.name.clone(),
        kind: kind.unwrap_or_default(),
        headless,
        ports: manifest
            .take_as::<Vec<ServicePort>>("spec.ports")?
            .unwrap_or_default(),
        labels: manifest.take_as("metadata.labels")?.unwrap_or_default(),
        annotations: manifest
            .take_as("metadata.annotations")?
            .unwrap_or_default(),
        session_affinity: manifest.take_as("spec.sessionAffinity")?,
    };
    manifest.finish(left);
    Ok(service)
}

/// One Deployment: an App and its Group.
fn one(
    mut deployment: Manifest,
    labels: Labels,
    services: Vec<GroupService>,
    service_account: Option<ServiceAccountSpec>,
    options: &Options,
    left: &mut Vec<Left>,
) -> Result<(App, Group), String> {
    let name = deployment.name.clone();
    namespace(&mut deployment);
    deployment.take("spec.selector");
    let app_labels: Labels = deployment.take_as("metadata.labels")?.unwrap_or_default();
    let app_annotations: Labels = deployment
        .take_as("metadata.annotations")?
        .unwrap_or_default();
    let replicas: Option<i32> = deployment.take_as("spec.replicas")?;
    let history: Option<i32> = deployment.take_as("spec.revisionHistoryLimit")?;
    let (strategy, availability) = strategy(&mut deployment, left)?;

    let id = deployment.id();
    let mut pod: Map<String, Value> = deployment
        .take_as("spec.template.spec")?
        .ok_or_else(|| format!("{id} spec.template.spec: missing"))?;
    pod.remove("serviceAccountName");
    pod.remove("serviceAccount");
    // A Deployment's only policy; Gantry's instances have no other either.
    if pod.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
        pod.remove("restartPolicy");
    }
    let grace: Option<i64> = part(
        &mut pod,
        "terminationGracePeriodSeconds",
        &id,
        "spec.template.spec",
    )?;
    let mut containers: Vec<Map<String, Value>> =
        part(&mut pod, "containers", &id, "spec.template.spec")?.unwrap_or_default();
    if containers.is_empty() {
        return Err(format!(
            "{id} spec.template.spec.containers: a Deployment needs at least one container"
        ));
    }
    let mut main = containers.remove(0);
    let container_name = main
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or(&name)
        .to_owned();
    let at = "spec.template.spec.containers[0]";
    let mut container = ContainerShape {
        name: Some(container_name.clone()),
        ..ContainerShape::default()
    };
    container.probes.ready = part(&mut main, "readinessProbe", &id, at)?;
    container.probes.live = part(&mut main, "livenessProbe", &id, at)?;
    container.probes.startup = part(&mut main, "startupProbe", &id, at)?;
    container.lifecycle.termination_grace_seconds = grace;
    let mut hooks: Map<String, Value> = part(&mut main, "lifecycle", &id, at)?.unwrap_or_default();
    container.lifecycle.post_start = part(&mut hooks, "postStart", &id, "lifecycle")?;
    container.lifecycle.pre_stop = part(&mut hooks, "preStop", &id, "lifecycle")?;
    let revision = RevisionSpec {
        image: part(&mut main, "image", &id, at)?.ok_or_else(|| {
            format!("{id} {at}.image: missing; a revision is an image first of all")
        })?,
        resources: part(&mut main, "resources", &id, at)?,
        env: part(&mut main, "env", &id, at)?.unwrap_or_default(),
        command: part(&mut main, "command", &id, at)?.unwrap_or_default(),
        args: part(&mut main, "args", &id, at)?.unwrap_or_default(),
        ..RevisionSpec::default()
    };
    let ports = ports(&mut main, &id, at)?;

    // What is left of the container (security context, mounts …) lies beneath, with the side-cars.
    if main.keys().any(|k| k != "name") || !containers.is_empty() {
        let all = std::iter::once(main)
            .chain(containers)
            .map(Value::Object)
            .collect();
        pod.insert("containers".to_owned(), Value::Array(all));
    }
    let metadata = OverlayMetadata {
        labels,
        annotations: deployment
            .take_as("spec.template.metadata.annotations")?
            .unwrap_or_default(),
    };
    deployment.finish(left);

    let mut app = App::new(
        &name,
        AppSpec {
            ports,
            container,
            service_account,
            template: (!pod.is_empty() || metadata != OverlayMetadata::default()).then_some(
                PodOverlay {
                    metadata,
                    spec: pod,
                },
            ),
            ..AppSpec::default()
        },
    );
    app.metadata.namespace = Some(options.tenant.clone());
    app.metadata.labels = (!app_labels.is_empty()).then_some(app_labels);
    app.metadata.annotations = (!app_annotations.is_empty()).then_some(app_annotations);
    let mut group = Group::new(
        &format!("{name}-{}", options.environment),
        GroupSpec {
            app: name,
            environment: options.environment.clone(),
            replicas: options.replicas.or(replicas).unwrap_or(1),
            placement: Placement {
                cells: options
                    .cells
                    .iter()
                    .map(|c| CellShare {
                        name: c.clone(),
                        weight: 1,
                        ..CellShare::default()
                    })
                    .collect(),
                ..Placement::default()
            },
            revision,
            strategy,
            availability,
            services,
            revision_history_limit: history.unwrap_or(10).max(1),
            ..GroupSpec::default()
        },
    );
    group.metadata.namespace = Some(options.tenant.clone());
    Ok((app, group))
}

/// The Deployment's own way of updating, as far as a Strategy can say it.
fn strategy(
    deployment: &mut Manifest,
    left: &mut Vec<Left>,
) -> Result<(Option<StrategyChoice>, Availability), String> {
    let min_ready: Option<u64> = deployment.take_as("spec.minReadySeconds")?;
    let deadline: Option<u64> = deployment.take_as("spec.progressDeadlineSeconds")?;
    let mut inline = StrategySpec::default();
    if let Some(seconds) = min_ready {
        inline.min_ready = Span::seconds(seconds);
    }
    if let Some(seconds) = deadline {
        inline.deadlines.instance = Span::seconds(seconds);
    }
    let mut availability = Availability::default();
    let at = "spec.strategy.rollingUpdate.maxUnavailable";
    match deployment.take_as::<IntOrString>(at)? {
        Some(IntOrString::Int(n)) if n > 0 => {
            availability.max_unavailable = CountOrPercent::Count(n as u32)
        }
        Some(IntOrString::String(text)) => {
            availability.max_unavailable = text
                .parse()
                .map_err(|e| format!("{} {at}: {e}", deployment.id()))?;
        }
        // With 0 a Deployment surges instead; an instance with a name of its own cannot.
        Some(IntOrString::Int(_)) => left.push(Left {
            object: deployment.id(),
            field: Some(at.to_owned()),
            reason: "instances are updated in place, so at least one is out of service at a time"
                .to_owned(),
        }),
        None => {}
    }
    deployment.leave(
        "spec.strategy.rollingUpdate.maxSurge",
        "instances keep their names and are updated in place: there is no surge",
        left,
    );
    if deployment
        .peek("spec.strategy.type")
        .and_then(Value::as_str)
        == Some("RollingUpdate")
    {
        deployment.take("spec.strategy.type");
    }
    deployment.leave("spec.strategy.type", "Gantry releases in batches", left);
    let choice = (inline != StrategySpec::default()).then_some(StrategyChoice {
        name: None,
        inline: Some(inline),
    });
    Ok((choice, availability))
}

/// The container's ports as the App's: each needs a name.
fn ports(container: &mut Map<String, Value>, id: &str, at: &str) -> Result<Vec<AppPort>, String> {
    let declared: Vec<k8s_openapi::api::core::v1::ContainerPort> =
        part(container, "ports", id, at)?.unwrap_or_default();
    // A port of the host is the pod template's business: it stays beneath.
    if declared
        .iter()
        .any(|p| p.host_port.is_some() || p.host_ip.is_some())
    {
        container.insert(
            "ports".to_owned(),
            serde_json::to_value(&declared).map_err(|e| e.to_string())?,
        );
        return Ok(vec![]);
    }
    Ok(declared
        .into_iter()
        .map(|port| AppPort {
            name: port
                .name
                .unwrap_or_else(|| format!("port-{}", port.container_port)),
            port: port.container_port,
            container_port: None,
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
        })
        .collect())
}

/// Takes a field out of a map as a type.
fn part<T: DeserializeOwned>(
    map: &mut Map<String, Value>,
    field: &str,
    id: &str,
    at: &str,
) -> Result<Option<T>, String> {
    match map.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|e| format!("{id} {at}.{field}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn options() -> Options {
        Options {
            tenant: "shop".into(),
            environment: "prod".into(),
            cells: vec!["sh-a".into(), "bj-a".into()],
            replicas: None,
            stateful_sets: false,
        }
    }

    const CART: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, annotations: {cloud: role}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: elsewhere, labels: {team: a}}
spec:
  replicas: 6
  paused: true
  minReadySeconds: 3
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 2}}
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}, annotations: {note: x}}
    spec:
      serviceAccountName: cart
      terminationGracePeriodSeconds: 5
      securityContext: {runAsUser: 1000}
      volumes: [{name: tmp, emptyDir: {}}]
      containers:
      - name: server
        image: shop/cart:1
        ports: [{containerPort: 8080}]
        env: [{name: A, value: b}]
        readinessProbe: {httpGet: {path: /, port: 8080}}
        resources: {requests: {cpu: 100m}}
        volumeMounts: [{name: tmp, mountPath: /tmp}]
      - name: proxy
        image: proxy:1
---
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {selector: {app: cart}, ports: [{name: http, port: 80, targetPort: 8080}], externalIPs: [1.2.3.4]}
---
apiVersion: v1
kind: Service
metadata: {name: stray}
spec: {selector: {app: other}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {a: b}
"#;

    #[test]
    fn a_deployment_becomes_an_app_and_a_group() {
        let imported = translate(read(CART).unwrap(), &options()).unwrap();
        let text = serde_saphyr::to_string(&(&imported.apps, &imported.groups)).unwrap();
        insta::assert_snapshot!("cart", text);
        let left: Vec<_> = imported.left.iter().map(Left::to_string).collect();
        insta::assert_snapshot!("left", left.join("\n"));
    }

    #[test]
    fn faults_name_object_and_field() {
        let cases = [
            (
                CART.replace("image: shop/cart:1", ""),
                "Deployment/cart spec.template.spec.containers[0].image: missing",
            ),
            (
                CART.replace("replicas: 6", "replicas: many"),
                "Deployment/cart spec.replicas: invalid type",
            ),
            (
                CART.replace("maxUnavailable: 2", "maxUnavailable: 2x"),
                "maxUnavailable: \"2x\" is neither",
            ),
        ];
        for (text, expected) in cases {
            let error = translate(read(&text).unwrap(), &options()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// The project's own example, and the real shop where its manifests are at hand: all twelve
    /// services come over.
    #[test]
    fn whole_shops() {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = vec![here.join("../../examples/bookshop.yaml")];
        let boutique = here.join("../../../shared/data/online-boutique/kubernetes-manifests.yaml");
        if boutique.exists() {
            files.push(boutique);
        } else {
            eprintln!("skipped: {} is not there", boutique.display());
        }
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let imported = translate(read(&text).unwrap(), &options()).unwrap();
            assert_eq!(
                (imported.apps.len(), imported.groups.len()),
                (12, 12),
                "{}",
                file.display()
            );
            assert!(imported.left.is_empty(), "{:#?}", imported.left);
        }
    }
}
