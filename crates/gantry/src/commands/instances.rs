//! Instances as people ask for them: the pods of Groups over all members, read from the members.

use anyhow::Context as _;
use futures::future::join_all;
use gantry_api::{Cluster, labels};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::Serialize;

use crate::connect::failed;
use crate::failure::Result;
use crate::output::{Format, Tone, age, color, paint, print, print_value, println, table};
use crate::view::model::brief;

/// One instance, in the words of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub tenant: String,
    pub group: String,
    pub cluster: String,
    pub cell: String,
    pub name: String,
    pub revision: String,
    pub image: String,
    pub in_service: bool,
    pub ready: bool,
    pub state: String,
    pub restarts: i32,
    pub node: String,
    pub address: String,
    #[serde(skip)]
    pub age_seconds: i64,
}

/// Prints the instances of a group, of a tenant, or of all.
pub async fn print_all(
    hub: &Client,
    tenant: Option<&str>,
    group: Option<&str>,
    format: Format,
) -> Result<()> {
    let (instances, unreachable) = list(hub, tenant, group).await?;
    if format != Format::Table {
        return print_value(&instances, format);
    }
    for (cluster, error) in &unreachable {
        eprintln!(
            "{}",
            paint(
                format!("cannot reach {cluster}: {error}"),
                Tone::Warn,
                color()
            )
        );
    }
    if instances.is_empty() {
        return println("No instances.");
    }
    let rows = instances
        .iter()
        .map(|i| {
            vec![
                i.name.clone(),
                i.cluster.clone(),
                i.cell.clone(),
                i.revision.clone(),
                brief(&i.image).to_owned(),
                if i.in_service {
                    "yes".into()
                } else {
                    "no".into()
                },
                if i.ready { "yes".into() } else { "no".into() },
                i.state.clone(),
                i.restarts.to_string(),
                i.node.clone(),
                i.address.clone(),
                age(i.age_seconds),
            ]
        })
        .collect();
    let header = [
        "INSTANCE",
        "CLUSTER",
        "CELL",
        "REVISION",
        "IMAGE",
        "IN-SERVICE",
        "READY",
        "STATE",
        "RESTARTS",
        "NODE",
        "ADDRESS",
        "AGE",
    ];
    print(&table(&header, rows))
}

/// Instances of all members that answer, and the members that do not, with the reason.
pub async fn list(
    hub: &Client,
    tenant: Option<&str>,
    group: Option<&str>,
) -> Result<(Vec<Instance>, Vec<(String, String)>)> {
    let clusters: Api<Cluster> = Api::all(hub.clone());
    let clusters = clusters
        .list(&ListParams::default())
        .await
        .map_err(|e| failed("cannot list the clusters", e))?;
    let selector = match group {
        Some(group) => format!("{}={group}", labels::GROUP),
        None => labels::GROUP.to_owned(),
    };
    let answers = join_all(clusters.items.iter().map(|cluster| {
        let selector = selector.clone();
        async move {
            let name = cluster.metadata.name.clone().unwrap_or_default();
            let pods = pods(hub, cluster, tenant, &selector).await;
            (name, pods)
        }
    }))
    .await;
    let now = Timestamp::now();
    let (mut instances, mut unreachable) = (vec![], vec![]);
    for (cluster, pods) in answers {
        match pods {
            Ok(pods) => instances.extend(pods.iter().map(|pod| instance(pod, &cluster, now))),
            Err(e) => unreachable.push((cluster, format!("{e:#}"))),
        }
    }
    instances.sort();
    Ok((instances, unreachable))
}

async fn pods(
    hub: &Client,
    cluster: &Cluster,
    tenant: Option<&str>,
    selector: &str,
) -> anyhow::Result<Vec<Pod>> {
    let client = member(hub, cluster).await?;
    let api: Api<Pod> = match tenant {
        Some(tenant) => Api::namespaced(client, tenant),
        None => Api::all(client),
    };
    let list = api
        .list(&ListParams::default().labels(selector))
        .await
        .context("cannot list its pods")?;
    Ok(list.items)
}

/// A client of a member, as the hub makes it: from the kubeconfig in the Secret that the Cluster names.
pub async fn member(hub: &Client, cluster: &Cluster) -> anyhow::Result<Client> {
    let Some(reference) = &cluster.spec.access.kubeconfig_secret else {
        return Ok(hub.clone());
    };
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), &reference.namespace);
    let place = format!("Secret {}/{}", reference.namespace, reference.name);
    let secret = secrets
        .get(&reference.name)
        .await
        .with_context(|| format!("cannot read the {place}"))?;
    let bytes = secret.data.as_ref().and_then(|d| d.get(&reference.key));
    let bytes = bytes.with_context(|| format!("the {place} has no key {}", reference.key))?;
    let kubeconfig = Kubeconfig::from_yaml(&String::from_utf8_lossy(&bytes.0))
        .with_context(|| format!("the {place} holds no kubeconfig"))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn instance(pod: &Pod, cluster: &str, now: Timestamp) -> Instance {
    let label = |key: &str| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(key))
            .cloned()
            .unwrap_or_default()
    };
    let status = pod.status.clone().unwrap_or_default();
    let holds = |condition: &str| {
        status
            .conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == condition && c.status == "True")
    };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let waiting = containers
        .iter()
        .find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .filter(|reason| reason != "ContainerCreating" && reason != "PodInitializing");
    let state = match (&pod.metadata.deletion_timestamp, waiting) {
        (Some(_), _) => "Terminating".to_owned(),
        (None, Some(reason)) => reason,
        (None, None) => status.phase.clone().unwrap_or_default(),
    };
    let spec = pod.spec.clone().unwrap_or_default();
    Instance {
        tenant: pod.metadata.namespace.clone().unwrap_or_default(),
        group: label(labels::GROUP),
        cluster: cluster.to_owned(),
        cell: label(labels::CELL),
        name: pod.metadata.name.clone().unwrap_or_default(),
        revision: label(labels::REVISION),
        image: spec
            .containers
            .first()
            .and_then(|c| c.image.clone())
            .unwrap_or_default(),
        in_service: holds(labels::IN_SERVICE) && holds("Ready"),
        ready: holds("ContainersReady"),
        state,
        restarts: containers.iter().map(|c| c.restart_count).sum(),
        node: spec.node_name.unwrap_or_default(),
        address: status.pod_ip.clone().unwrap_or_default(),
        age_seconds: pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |t| now.duration_since(t.0).as_secs()),
    }
}
