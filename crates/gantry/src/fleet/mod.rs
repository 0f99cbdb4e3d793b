//! An embedded fleet: a hub and its members as clusters in this process, wired as a fleet of real
//! clusters is, by kubeconfigs in Secrets and Cluster objects in the hub.

mod data_dir;
pub mod layout;
mod register;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use gantry_cluster::{
    EmbeddedCluster, NodeGroup, Parts, StartError, merge_contexts, write_private,
};
use gantry_hollow::Scenario;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

pub use data_dir::DataDir;
pub use layout::{Layout, Member, Wish};

use gantry_apiserver::{AuditConfig, AuditLogFile, AuditPolicy};

use crate::commands::records::{RecordArgs, Recording};
use crate::failure::{Exit, Failure, Result};

/// Name of the hub's cluster, context and folder.
pub const HUB: &str = "hub";

/// How long the fleet may take until all nodes are ready, before that is an error.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// What a fleet is started with.
#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    pub wish: Wish,
    pub address: IpAddr,
    /// The hub's port, members take the following ones; `None`: those of the last run, else free ones.
    pub port: Option<u16>,
    /// Bounds of each cluster's history.
    pub store: gantry_store::Options,
    /// What happens on the simulated nodes, and which there are if it says so.
    pub scenario: Option<Arc<Scenario>>,
    /// Where records go.
    pub records: RecordArgs,
}

/// A running fleet.
pub struct Fleet {
    data: DataDir,
    layout: Layout,
    hub: EmbeddedCluster,
    members: Vec<EmbeddedCluster>,
    stop: CancellationToken,
    controllers: Parts,
    recording: Option<Recording>,
}

impl Fleet {
    /// Starts hub and members, writes the kubeconfig and tells the hub of its members. `tell` hears
    /// of each step that is done.
    pub async fn start(options: Options, tell: &dyn Fn(&str)) -> Result<Fleet> {
        let data = DataDir::take(&options.data_dir)?;
        let mut layout = data.layout(options.wish)?;
        let groups = node_groups(&layout, options.scenario.as_deref())?;
        let started = Instant::now();
        let took = |what: &str| tell(&format!("{what}  {:.1}s", started.elapsed().as_secs_f64()));

        let recorded = options.records.url(data.path()).is_some();
        let audit = recorded.then(|| audit(data.path())).transpose()?;
        let audit_log = audit.as_ref().map(|a| a.file.path.clone());
        let hub = EmbeddedCluster::builder()
            .name(HUB)
            .audit(audit)
            .data_dir(data.cluster(HUB))
            .store_options(options.store.clone())
            .scheduler(false)
            .nodes(vec![]);
        let hub = listen(hub, &options, &layout, HUB, 0).await?;
        took(&format!("hub  https://{}", hub.address()));

        let groups_of = groups.iter().cloned();
        let members = layout.members.iter().zip(groups_of).enumerate();
        let members = try_join_all(members.map(|(i, (member, groups))| {
            let builder = EmbeddedCluster::builder()
                .name(&member.name)
                .data_dir(data.cluster(&member.name))
                .store_options(options.store.clone())
                .seed(layout.seed.wrapping_add(i as u64))
                .ranges(layout.ranges(i))
                .scenario(options.scenario.clone())
                .nodes(groups);
            let (options, layout) = (&options, &layout);
            async move { listen(builder, options, layout, &member.name, 1 + i as u16).await }
        }))
        .await?;
        for cluster in std::iter::once(&hub).chain(&members) {
            layout
                .ports
                .insert(cluster.name().to_owned(), cluster.address().port());
        }
        data.keep(&layout)?;
        write_kubeconfig(&data.kubeconfig(), &hub, &members)?;

        let client = hub.client();
        gantry_hub::install(&client).await.map_err(|e| {
            anyhow::Error::from(e).context("cannot install Gantry's types in the hub")
        })?;
        register::members(&client, &layout, &members).await?;
        let recording = options.records.start(data.path())?;
        let hub_options = gantry_hub::Options {
            records: recording.as_ref().map(|r| r.writer.clone()),
            audit_log,
            notify_allowed: options.records.notify_allow.clone(),
            ..gantry_hub::Options::default()
        };
        let stop = CancellationToken::new();
        let mut controllers = Parts::default();
        controllers.run(HUB, "fleet controllers", stop.clone(), move |stop| {
            gantry_hub::run(client.clone(), hub_options.clone(), stop)
        });
        let fleet = Fleet {
            data,
            layout,
            hub,
            members,
            stop,
            controllers,
            recording,
        };
        let members = fleet.layout.members.iter().zip(&fleet.members);
        for ((member, cluster), groups) in members.zip(&groups) {
            gantry_scheduler::install(&cluster.client())
                .await
                .map_err(anyhow::Error::from)?;
            let nodes = groups.iter().map(|it| it.count).sum();
            nodes_ready(member, nodes, cluster.client()).await?;
            let cells: Vec<_> = member.cells.iter().map(|c| c.name.as_str()).collect();
            took(&format!(
                "{}  https://{}  {}, cells {}, {} simulated nodes ready",
                member.name,
                cluster.address(),
                member.region,
                cells.join(" "),
                nodes
            ));
        }
        Ok(fleet)
    }

    pub fn client(&self) -> Client {
        self.hub.client()
    }

    /// How the hub is reached from outside the process, as administrator.
    pub async fn config(&self) -> Result<kube::Config> {
        let options = kube::config::KubeConfigOptions::default();
        kube::Config::from_custom_kubeconfig(self.hub.kubeconfig(), &options)
            .await
            .map_err(|e| {
                anyhow::Error::from(e)
                    .context("the hub's kubeconfig")
                    .into()
            })
    }

    /// Clients of the members, by name.
    pub fn members(&self) -> impl Iterator<Item = (&Member, Client)> {
        self.layout
            .members
            .iter()
            .zip(self.members.iter().map(EmbeddedCluster::client))
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.kubeconfig()
    }

    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Stops everything and waits until all data is closed.
    pub async fn shutdown(self) {
        let Fleet {
            hub,
            members,
            stop,
            mut controllers,
            recording,
            ..
        } = self;
        stop.cancel();
        controllers.stopped().await;
        drop(controllers);
        if let Some(recording) = recording {
            recording.end().await;
        }
        futures::future::join_all(members.into_iter().map(EmbeddedCluster::shutdown)).await;
        hub.shutdown().await;
    }
}

/// The nodes of each member: those of the scenario if it has any, else those of the layout.
fn node_groups(layout: &Layout, scenario: Option<&Scenario>) -> Result<Vec<Vec<NodeGroup>>> {
    let Some(scenario) = scenario.filter(|it| !it.nodes.is_empty()) else {
        return Ok(layout.members.iter().map(usual_groups).collect());
    };
    let zones: Vec<(String, String)> = layout
        .members
        .iter()
        .flat_map(|member| {
            member
                .cells
                .iter()
                .map(|cell| (member.region.clone(), cell.name.clone()))
        })
        .collect();
    let groups = scenario.groups(&zones);
    if let Some(stray) = groups
        .iter()
        .find(|it| !zones.iter().any(|(_, zone)| *zone == it.cell))
    {
        let names: Vec<_> = zones.iter().map(|(_, zone)| zone.as_str()).collect();
        return Err(Failure::usage(format!(
            "the scenario has nodes in zone {}, which this fleet has not; its zones are {}",
            stray.cell,
            names.join(", ")
        ))
        .hint("leave the zone out of the file, and its nodes are shared out over all zones"));
    }
    let of = |member: &Member| {
        let here = |it: &&NodeGroup| member.cells.iter().any(|cell| cell.name == it.cell);
        groups.iter().filter(here).cloned().collect()
    };
    Ok(layout.members.iter().map(of).collect())
}

fn usual_groups(member: &Member) -> Vec<NodeGroup> {
    member
        .cells
        .iter()
        .map(|cell| NodeGroup {
            cell: cell.name.clone(),
            region: member.region.clone(),
            count: cell.nodes,
            ..NodeGroup::default()
        })
        .collect()
}

/// Starts a cluster on the port that was asked for or remembered. A remembered port that is taken by
/// now gives way to a free one; one that was asked for is an error.
async fn listen(
    builder: gantry_cluster::Builder,
    options: &Options,
    layout: &Layout,
    name: &str,
    offset: u16,
) -> Result<EmbeddedCluster> {
    let asked = options.port.filter(|port| *port != 0);
    let remembered = layout
        .ports
        .get(name)
        .copied()
        .filter(|_| options.port.is_none());
    let port = match asked {
        Some(first) => first.checked_add(offset).ok_or_else(|| {
            Failure::usage(format!(
                "--port {first} leaves no room for the members' ports above it"
            ))
        })?,
        None => remembered.unwrap_or(0),
    };
    let at = |port| SocketAddr::new(options.address, port);
    match builder.clone().address(at(port)).start().await {
        Err(e) if e.address_in_use() && asked.is_none() && port != 0 => {
            tracing::info!(
                cluster = name,
                port,
                "the last run's port is taken; taking a free one"
            );
            builder
                .address(at(0))
                .start()
                .await
                .map_err(|e| start_failed(e, at(0)))
        }
        other => other.map_err(|e| start_failed(e, at(port))),
    }
}

fn start_failed(error: StartError, address: SocketAddr) -> Failure {
    if error.address_in_use() {
        return Failure::new(
            Exit::PortBusy,
            format!("the address {address} is taken by another program"),
        )
        .hint("choose another port with --port, or leave it out for free ones");
    }
    let exit = error
        .data_fault()
        .map_or(Exit::Failure, |fault| match fault {
            gantry_cluster::DataFault::InUse => Exit::DataInUse,
            gantry_cluster::DataFault::Unwritable => Exit::DataUnwritable,
            gantry_cluster::DataFault::Newer => Exit::DataNewer,
            gantry_cluster::DataFault::Damaged => Exit::DataDamaged,
        });
    Failure::new(exit, format!("{:#}", anyhow::Error::from(error)))
}

fn write_kubeconfig(path: &Path, hub: &EmbeddedCluster, members: &[EmbeddedCluster]) -> Result<()> {
    let contexts: Vec<_> = std::iter::once(hub)
        .chain(members)
        .map(EmbeddedCluster::context)
        .collect();
    let text = serde_saphyr::to_string(&merge_contexts(&contexts)).map_err(anyhow::Error::from)?;
    write_private(path, text.as_bytes()).map_err(|e| {
        Failure::new(
            Exit::DataUnwritable,
            format!("cannot write the kubeconfig {}: {e}", path.display()),
        )
    })
}

/// Waits until all the member's simulated nodes are ready.
async fn nodes_ready(member: &Member, nodes: u32, client: Client) -> Result<()> {
    let wanted = nodes as usize;
    let nodes: Api<Node> = Api::all(client);
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let list = nodes
            .list(&ListParams::default().labels("gantry.dev/simulated=true"))
            .await
            .map_err(|e| {
                anyhow::Error::from(e).context(format!("cannot list the nodes of {}", member.name))
            })?;
        let ready = list.items.iter().filter(|n| is_ready(n)).count();
        if ready >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(
                Exit::Failure,
                format!(
                    "only {ready} of {wanted} nodes of {} were ready after {}s",
                    member.name,
                    READY_WITHIN.as_secs()
                ),
            )
            .hint("start again with -v to see what the parts of the cluster say"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The hub's audit log: who deletes and who scales, for the records.
fn audit(folder: &Path) -> Result<AuditConfig> {
    let policy = AuditPolicy::parse(gantry_hub::record::AUDIT_POLICY)
        .map_err(|why| anyhow::anyhow!("the hub's audit policy: {why}"))?;
    Ok(AuditConfig {
        policy,
        file: AuditLogFile {
            path: folder.join("audit.log"),
            max_bytes: 10 << 20,
            max_backups: 1,
            max_age: None,
        },
    })
}
