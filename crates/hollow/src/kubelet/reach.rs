//! What a command in a simulated container meets when it asks others in its network: names as the cluster's
//! DNS tells them, Services as a node forwards them, and the servers of simulated pods behind both.
//!
//! Outside of the cluster nothing is reached.

use super::{Network, ports, servers};
use crate::program::{Answer, Call, Failed, Kind, Lookup, Peer, Question};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    core::v1::{Pod, Service, ServicePort},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, api::ListParams};
use std::{
    hash::{Hash as _, Hasher as _},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// As much is read of an answer.
const BODY_LIMIT: usize = 4 << 20;
/// How long a server that is not asked over HTTP may be silent.
const SILENCE: Duration = Duration::from_millis(500);
/// How often a name may stand for another.
const ALIASES: usize = 4;

/// A container's place in the network.
#[derive(Clone)]
pub struct Reach {
    network: Network,
    pub(super) client: Client,
    pub(super) namespace: String,
    node: String,
    address: String,
}

/// Whose turn it is among endpoints.
static TURN: AtomicU64 = AtomicU64::new(0);

/// A server's port.
struct Target {
    pod: Pod,
    port: u16,
}

impl Reach {
    /// That of a pod's containers.
    pub fn of(network: &Network, client: Client, pod: &Pod) -> Self {
        let text = |it: Option<&String>| it.cloned().unwrap_or_default();
        Self {
            network: network.clone(),
            client,
            namespace: text(pod.metadata.namespace.as_ref()),
            node: text(pod.spec.as_ref().and_then(|it| it.node_name.as_ref())),
            address: text(pod.status.as_ref().and_then(|it| it.pod_ip.as_ref())),
        }
    }

    /// What comes back.
    pub async fn answer(&self, question: &Question) -> Answer {
        let to = match question {
            Question::Http(call) => &call.to,
            Question::Bytes { to, .. } | Question::Listens(to) => to,
            Question::Name(lookup) => {
                return match self.records(lookup).await {
                    Ok(records) => Answer::Records(records),
                    Err(failed) => Answer::Failed(failed),
                };
            }
        };
        let answered = async {
            match question {
                Question::Http(call) => self.http(call).await,
                Question::Bytes { to, udp, sent } => self.bytes(to, *udp, sent).await,
                Question::Name(_) => Err(Failed::NoName),
                Question::Listens(to) => {
                    let target = self.target(to, false).await?;
                    self.open(&target).map(|_| Answer::Bytes(vec![]))
                }
            }
        };
        // Servers may ask others in their turn.
        match tokio::time::timeout(to.patience, Box::pin(answered)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failed)) => Answer::Failed(failed),
            Err(_) => Answer::Failed(Failed::TimedOut),
        }
    }

    fn open(&self, to: &Target) -> Result<DuplexStream, Failed> {
        let from = Some(self.address.clone());
        let opened = ports::connect(&self.network, &self.client, &to.pod, to.port, from);
        opened.map_err(|_| Failed::Refused)
    }

    async fn http(&self, call: &Call) -> Result<Answer, Failed> {
        let pipe = self.open(&self.target(&call.to, false).await?)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(pipe))
            .await
            .map_err(|_| Failed::Refused)?;
        tokio::spawn(connection);
        let host = match call.to.port {
            80 => call.to.host.clone(),
            port => format!("{}:{port}", call.to.host),
        };
        let mut request = Request::builder()
            .method(call.method.as_str())
            .uri(call.path.as_str())
            .header(header::HOST, host)
            .header(header::USER_AGENT, "simulated");
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let body = Full::<bytes::Bytes>::new(call.body.clone().into());
        let request = request.body(body).map_err(|_| Failed::Refused)?;
        let sent = sender.send_request(request).await;
        let (head, body) = sent.map_err(|_| Failed::Refused)?.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await;
        let headers = head
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Ok(Answer::Http {
            status: (head.status.as_u16(), head.status.to_string()),
            headers: headers.collect(),
            body: body.map(|it| it.to_bytes().to_vec()).unwrap_or_default(),
        })
    }

    async fn bytes(&self, to: &Peer, udp: bool, sent: &[u8]) -> Result<Answer, Failed> {
        let target = self.target(to, udp).await?;
        if udp {
            let heard = servers::datagram(&target.pod, target.port, sent, &self.address);
            // Who sends to nobody hears nothing.
            return heard.map(Answer::Bytes).ok_or(Failed::TimedOut);
        }
        let mut pipe = self.open(&target)?;
        pipe.write_all(sent).await.map_err(|_| Failed::Refused)?;
        let mut heard = vec![];
        while let Ok(Ok(read)) = tokio::time::timeout(SILENCE, pipe.read_buf(&mut heard)).await {
            if read == 0 || heard.len() > BODY_LIMIT {
                break;
            }
        }
        Ok(Answer::Bytes(heard))
    }

    /// The server that is meant, where there is one.
    async fn target(&self, to: &Peer, udp: bool) -> Result<Target, Failed> {
        let address = self.address_of(&to.host).await?;
        let (node, inside) = {
            let node = self
                .network
                .0
                .state
                .read()
                .nodes
                .contains_key(address.as_str());
            (node, self.network.covers(&address))
        };
        // Addresses of pods and of Services may be of one range: Services come first, as on a node.
        if let Some((service, port)) = self.forwarded(&address, node, to.port, udp).await? {
            return self.endpoint(&service, &port, udp).await;
        }
        if !inside {
            // Of an address that nobody has nothing comes back.
            return Err(Failed::TimedOut);
        }
        self.pod_at(&address, to.port, udp).await
    }

    /// The pod that has an address and listens there.
    async fn pod_at(&self, address: &str, port: u16, udp: bool) -> Result<Target, Failed> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let only = ListParams::default().fields(&format!("status.podIP={address}"));
        let found = pods.list(&only).await.map_err(unknown)?.items;
        let pod = found.into_iter().find(|pod| listens(pod, port, udp));
        let pod = pod.ok_or(Failed::Refused)?;
        Ok(Target { pod, port })
    }

    /// The address that a name stands for.
    async fn address_of(&self, host: &str) -> Result<String, Failed> {
        let mut host = host.trim_end_matches('.').to_owned();
        for _ in 0..ALIASES {
            if host.parse::<std::net::IpAddr>().is_ok() {
                let own = host == "127.0.0.1" || host == "::1";
                return Ok(if own { self.address.clone() } else { host });
            }
            if host == "localhost" {
                return Ok(self.address.clone());
            }
            let lookup = Lookup {
                name: host.clone(),
                kind: Kind::A,
                search: true,
            };
            let records = self.records(&lookup).await?;
            if let Some(alias) = records.iter().find(|it| it.kind == Kind::Cname) {
                host = alias.data.trim_end_matches('.').to_owned();
                continue;
            }
            let all: Vec<&String> = records.iter().map(|it| &it.data).collect();
            if let Some(address) = pick(&all, None) {
                return Ok((*address).clone());
            }
            // A node's name stands for its address.
            let state = self.network.0.state.read();
            let address = |key: &str| key.parse::<std::net::IpAddr>().is_ok();
            let mut known = state.nodes.iter();
            let node = known.find(|(key, node)| ***node == *host && address(key));
            return node.map(|(key, _)| key.to_string()).ok_or(Failed::NoName);
        }
        Err(Failed::NoName)
    }

    pub(super) async fn slices(
        &self,
        namespace: &str,
        service: &str,
    ) -> Result<Vec<EndpointSlice>, Failed> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let label = format!("kubernetes.io/service-name={service}");
        let list = slices.list(&ListParams::default().labels(&label)).await;
        list.map(|it| it.items).map_err(unknown)
    }

    /// The Service that has an address and a port, as nodes forward them.
    async fn forwarded(
        &self,
        address: &str,
        node: bool,
        port: u16,
        udp: bool,
    ) -> Result<Option<(Service, ServicePort)>, Failed> {
        let services: Api<Service> = Api::all(self.client.clone());
        let all = services
            .list(&ListParams::default())
            .await
            .map_err(unknown)?;
        let mut own = false;
        for service in all {
            let Some(spec) = &service.spec else { continue };
            let balancer = service
                .status
                .as_ref()
                .and_then(|it| it.load_balancer.as_ref());
            let ingress = balancer.and_then(|it| it.ingress.as_ref());
            let mut balanced = ingress
                .into_iter()
                .flatten()
                .filter_map(|it| it.ip.as_deref());
            let mut external = spec.external_ips.iter().flatten();
            let has = spec.cluster_ip.as_deref() == Some(address)
                || external.any(|it| it == address)
                || balanced.any(|it| it == address);
            if !has && !node {
                continue;
            }
            own |= has;
            let found = spec.ports.iter().flatten().find(|it| {
                let number = if has { Some(it.port) } else { it.node_port };
                number == Some(i32::from(port)) && (it.protocol.as_deref() == Some("UDP")) == udp
            });
            if let Some(found) = found.cloned() {
                return Ok(Some((service, found)));
            }
        }
        // The address of a Service that has no such port.
        if own { Err(Failed::TimedOut) } else { Ok(None) }
    }

    /// One of the pods behind a port of a Service.
    async fn endpoint(
        &self,
        service: &Service,
        port: &ServicePort,
        udp: bool,
    ) -> Result<Target, Failed> {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        let (namespace, name) = (
            text(&service.metadata.namespace),
            text(&service.metadata.name),
        );
        let spec = service.spec.clone().unwrap_or_default();
        let local = spec.internal_traffic_policy.as_deref() == Some("Local");
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let (mut ready, mut leaving) = (vec![], vec![]);
        for slice in self.slices(&namespace, &name).await? {
            let named = slice.ports.iter().flatten().find(|it| {
                it.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            });
            let Some(number) = named.and_then(|it| u16::try_from(it.port?).ok()) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().flatten() {
                if local && endpoint.node_name.as_deref() != Some(&self.node) {
                    continue;
                }
                let Some(address) = endpoint.addresses.first() else {
                    continue;
                };
                let conditions = endpoint.conditions.clone().unwrap_or_default();
                if conditions.ready != Some(false) {
                    ready.push((address.clone(), number));
                } else if conditions.serving == Some(true) {
                    leaving.push((address.clone(), number));
                }
            }
        }
        // Where nobody else is left, those on their way out are asked.
        let mut all = if ready.is_empty() { leaving } else { ready };
        all.sort();
        let from = sticky.then_some(self.address.as_str());
        let (address, number) = pick(&all, from).ok_or(Failed::Refused)?;
        self.pod_at(address, *number, udp).await
    }
}

/// What the API did not tell cannot be reached; why not is for the log of the simulation.
pub(super) fn unknown(error: kube::Error) -> Failed {
    tracing::warn!(%error, "who is asked by a simulated container cannot be looked up");
    Failed::Refused
}

/// Whether a container of a pod that runs listens on a port.
fn listens(pod: &Pod, port: u16, udp: bool) -> bool {
    let running = pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
    let mut containers = pod.spec.iter().flat_map(|it| {
        let sidecars = it.init_containers.iter().flatten();
        it.containers.iter().chain(sidecars)
    });
    running && containers.any(|it| servers::listens(it, port, udp))
}

/// One of several in turn, or always the same for one who asks.
fn pick<'a, T>(all: &'a [T], from: Option<&str>) -> Option<&'a T> {
    // It takes nobody's turn.
    if let [one] = all {
        return Some(one);
    }
    let turn = match from {
        Some(from) => {
            let mut hasher = rustc_hash::FxHasher::default();
            from.hash(&mut hasher);
            hasher.finish()
        }
        None => TURN.fetch_add(1, Relaxed),
    };
    let count = u64::try_from(all.len()).unwrap_or(0);
    let at = turn.checked_rem(count)?;
    all.get(usize::try_from(at).unwrap_or(0))
}
