//! What simulated kubelets and pods answer over HTTP, in a network of their own within the process.
//!
//! [`Network`] makes connections to the addresses of nodes and pods for whoever is given it: the API
//! server of the same process, which finds the kubelets by what the nodes' statuses say. A connection
//! is a pipe, so nobody else can listen or pretend; kubelets need no TLS over it, while servers in pods speak it
//! where they would. All that is answered is made up from objects of the API, and says so.

mod command;
mod exec;
mod files;
mod found;
mod heard;
mod hooks;
mod logs;
mod metrics;
mod names;
mod place;
mod ports;
mod query;
mod reach;
mod scene;
mod servers;
mod sights;
mod spdy;
mod usage;
mod web_socket;
mod written;

pub use metrics::objects;
pub(crate) use usage::beside;

use crate::{node::parse_cidr, truth::Truth};
use bytes::Bytes;
use files::Files;
pub(crate) use files::absolute;
use futures::{StreamExt as _, future::BoxFuture};
use heard::Heard;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use parking_lot::{Mutex, RwLock};
use query::{Query, unescaped};
use rustc_hash::FxHashMap;
use sights::Sights;
use std::{convert::Infallible, fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    sync::{Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

/// The port that simulated kubelets announce, a kubelet's usual one.
pub const KUBELET_PORT: u16 = 10250;
/// The port of the simulated metrics server.
const METRICS_PORT: u16 = 443;
/// What a pipe holds in each direction.
const PIPE: usize = 64 * 1024;

/// The body of an answer.
type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// The network of simulated nodes and pods. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network(Arc<Inner>);

/// By container.
type FilesOfPod = FxHashMap<String, Arc<Files>>;

struct Inner {
    state: RwLock<State>,
    files: Mutex<FxHashMap<Arc<str>, FilesOfPod>>,
    /// What the volumes of pods have held, by the pods' uids.
    sights: Mutex<FxHashMap<Arc<str>, Arc<Sights>>>,
    /// What servers in pods have printed of requests.
    heard: Heard,
    /// Pods whose volumes may still be followed.
    followed: Arc<Semaphore>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            files: Mutex::default(),
            sights: Mutex::default(),
            heard: Heard::default(),
            followed: Arc::new(Semaphore::new(sights::MOST)),
        }
    }
}

#[derive(Default)]
struct State {
    /// Of the simulation that runs, while one does.
    client: Option<Client>,
    done: Option<mpsc::UnboundedSender<Done>>,
    /// Ends what is followed for it.
    ended: CancellationToken,
    /// Names of nodes, by name and by address.
    nodes: FxHashMap<Arc<str>, Arc<str>>,
    /// First and last address of pods.
    pods: Option<(u32, u32)>,
    /// Where usage is told.
    metrics: Option<Ipv4Addr>,
    /// What is true there.
    truth: Truth,
}

/// What a client has done to a container by a command in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Its main process has ended, with this code.
    Ended(i32),
    /// The page that its readiness probe asks for is served again, or no longer.
    Serves(bool),
    /// A hook of a run of it was answered, or nobody answered. That is the kubelet's own doing.
    Hooked {
        /// Which run.
        attempt: u32,
        /// Before it stops, not after it started.
        stops: bool,
        /// Somebody answered.
        well: bool,
    },
}

/// A client has done something to a container.
#[derive(Debug)]
pub struct Done {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The container.
    pub container: String,
    /// What.
    pub deed: Deed,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("nodes", &(self.0.state.read().nodes.len() / 2))
            .finish()
    }
}

/// While it is there, the network is up.
pub(crate) struct Up(Network);

impl Drop for Up {
    fn drop(&mut self) {
        // Above all the client, which may hold whoever holds the network.
        let state = std::mem::take(&mut *self.0.0.state.write());
        state.ended.cancel();
        self.0.0.files.lock().clear();
        self.0.0.sights.lock().clear();
        self.0.0.heard.clear();
    }
}

fn refused(host: &str, port: u16) -> io::Error {
    let said = format!("dial tcp {host}:{port}: connect: connection refused");
    io::Error::new(io::ErrorKind::ConnectionRefused, said)
}

impl Network {
    /// Brings the network up for a simulation.
    pub(crate) fn up(
        &self,
        client: Client,
        pod_cidr: &str,
        metrics: Option<Ipv4Addr>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Up {
        let mut state = self.0.state.write();
        state.client = Some(client);
        state.done = Some(done);
        state.pods = parse_cidr(pod_cidr).ok();
        state.metrics = metrics;
        drop(state);
        Up(self.clone())
    }

    pub(crate) fn add_node(&self, name: &Arc<str>, address: &Arc<str>) {
        let nodes = &mut self.0.state.write().nodes;
        nodes.insert(name.clone(), name.clone());
        nodes.insert(address.clone(), name.clone());
    }

    pub(crate) fn remove_node(&self, name: &str, address: &str) {
        let nodes = &mut self.0.state.write().nodes;
        nodes.remove(name);
        nodes.remove(address);
    }

    /// From now on this is true.
    pub(crate) fn tell(&self, truth: Truth) {
        self.0.state.write().truth = truth;
    }

    fn truth(&self) -> Truth {
        self.0.state.read().truth.clone()
    }

    /// Whether the kubelet of a node can be reached.
    fn reaches(&self, node: &str) -> bool {
        self.0.state.read().nodes.contains_key(node)
    }

    /// Forgets the files of a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.files.lock().remove(uid);
        self.0.sights.lock().remove(uid);
        self.0.heard.forget(uid);
    }

    /// What clients have changed in the files of a pod's other containers.
    fn files_beside(&self, uid: &str, container: &str) -> Vec<(String, Arc<Files>)> {
        let all = self.0.files.lock();
        let pod = all.get(uid).into_iter().flatten();
        let others = pod.filter(|(name, _)| *name != container);
        others
            .map(|(name, files)| (name.clone(), files.clone()))
            .collect()
    }

    /// What clients have changed in the files of a container.
    fn files(&self, uid: &str, container: &str) -> Arc<Files> {
        let mut all = self.0.files.lock();
        let pod = all.entry(uid.into()).or_default();
        pod.entry(container.to_owned()).or_default().clone()
    }

    fn done(&self, what: Done) {
        if let Some(done) = &self.0.state.read().done {
            // A simulation that has ended runs no containers.
            let _ = done.send(what);
        }
    }

    /// Whether an address, or the name of a node, is one of this network.
    pub fn covers(&self, host: &str) -> bool {
        let state = self.0.state.read();
        state.nodes.contains_key(host) || state.in_range(host)
    }

    /// Connects to a port of a node or of a pod.
    ///
    /// # Errors
    /// When nothing listens there, in the words of Go's dialers.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let (client, node, metrics) = {
            let state = self.0.state.read();
            let metrics = state.metrics.is_some_and(|it| it.to_string() == host);
            (
                state.client.clone(),
                state.nodes.get(host).cloned(),
                metrics,
            )
        };
        let Some(client) = client else {
            return Err(refused(host, port));
        };
        match (node, metrics, port) {
            (Some(node), _, KUBELET_PORT) => {
                let network = self.clone();
                Ok(serve(move |request| {
                    kubelet(network.clone(), client.clone(), node.clone(), request)
                }))
            }
            (None, true, METRICS_PORT) => {
                let network = self.clone();
                Ok(serve(move |request| {
                    metrics::serve(network.clone(), client.clone(), request)
                }))
            }
            (None, false, port) => {
                let pods: Api<Pod> = Api::all(client.clone());
                let only = ListParams::default().fields(&format!("status.podIP={host}"));
                let found = pods.list(&only).await.map_err(io::Error::other)?;
                let running = found
                    .items
                    .iter()
                    .find_map(|pod| ports::connect(self, &client, pod, port, None).ok());
                running.ok_or_else(|| refused(host, port))
            }
            _ => Err(refused(host, port)),
        }
    }
}

/// Whether somebody may ask a kubelet that can be reached from outside of the process.
pub trait Guard: Send + Sync + 'static {
    /// Lets a request to the kubelet of a node pass, or says what it is refused with.
    fn admit(&self, asked: Asked) -> BoxFuture<'static, Result<(), (StatusCode, String)>>;
}

/// What somebody asks a kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The node.
    pub node: Arc<str>,
    /// The request's method.
    pub method: Method,
    /// The request's path.
    pub path: String,
    /// The bearer token that was sent along.
    pub token: Option<String>,
}

impl Asked {
    fn of(node: &Arc<str>, request: &Request<Incoming>) -> Self {
        let header = request.headers().get(header::AUTHORIZATION);
        let token = header.and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
        Self {
            node: node.clone(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            token: token.map(|it| it.trim().to_owned()),
        }
    }
}

impl Network {
    /// Answers as the kubelet of the node that has this address, over a connection from outside of the
    /// process, until it ends. Every request is put before the guard. A connection to an address that is
    /// no node's ends at once.
    pub async fn serve_kubelet<C>(&self, connection: C, address: &str, guard: Arc<dyn Guard>)
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (client, node) = {
            let state = self.0.state.read();
            (state.client.clone(), state.nodes.get(address).cloned())
        };
        let (Some(client), Some(node)) = (client, node) else {
            return;
        };
        let network = self.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (network, client, node) = (network.clone(), client.clone(), node.clone());
            let admitted = guard.admit(Asked::of(&node, &request));
            async move {
                Ok::<_, Infallible>(match admitted.await {
                    Ok(()) => kubelet(network, client, node, request).await,
                    Err((status, why)) => plain(status, why),
                })
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades();
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection to a simulated kubelet from outside");
        }
    }
}

impl State {
    fn in_range(&self, host: &str) -> bool {
        let Ok(address) = host.parse::<Ipv4Addr>() else {
            return false;
        };
        let number = u32::from(address);
        self.metrics == Some(address)
            || self
                .pods
                .is_some_and(|(first, last)| (first..=last).contains(&number))
    }
}

/// A pipe at whose other end requests are answered.
fn serve<F, A>(answer: F) -> DuplexStream
where
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<Answer>> + Send + 'static,
{
    let (near, far) = tokio::io::duplex(PIPE);
    let service = hyper::service::service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(far), service)
        .with_upgrades();
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection to a simulated kubelet");
        }
    });
    near
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Answer> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An answer that goes on as long as somebody sends.
fn streamed(receive: mpsc::Receiver<Bytes>) -> Response<Answer> {
    let chunks = futures::stream::unfold(receive, |mut receive| async move {
        let bytes = receive.recv().await?;
        Some((bytes, receive))
    });
    let frames = StreamBody::new(chunks.map(|it| Ok::<_, Infallible>(Frame::data(it))));
    let mut response = Response::new(frames.boxed_unsync());
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Answers a request to the kubelet of a node.
async fn kubelet(
    network: Network,
    client: Client,
    node: Arc<str>,
    request: Request<Incoming>,
) -> Response<Answer> {
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path.split('/').skip(1).map(unescaped).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    let query = Query::parse(request.uri().query());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let (namespace, name) = match parts.as_slice() {
        ["healthz"] => return plain(StatusCode::OK, "ok"),
        ["metrics", "resource"] | ["stats", "summary"] | ["pods"] if reads => {
            return match metrics::of_node(&network.truth(), client, &node, parts[0]).await {
                Ok(answer) => answer,
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            };
        }
        ["containerLogs" | "exec" | "attach", namespace, pod, _]
        | ["portForward", namespace, pod] => (*namespace, *pod),
        _ => return plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = match pods.get_opt(name).await {
        Ok(pod) => {
            pod.filter(|it| it.spec.as_ref().and_then(|it| it.node_name.as_deref()) == Some(&*node))
        }
        Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let Some(pod) = pod else {
        return plain(StatusCode::NOT_FOUND, "pod does not exist\n");
    };
    match parts.as_slice() {
        ["containerLogs", _, _, container] => match reads {
            true => logs::serve(&network, pods, pod, container, &query).await,
            false => plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
        },
        [what @ ("exec" | "attach"), _, _, container] => {
            let work = exec::Work::new(network, pods, pod, container, *what == "attach", &query);
            exec::serve(request, work)
        }
        _ => ports::serve(request, network, client, pod, &query),
    }
}

/// A client that was told the end closes its side within this time.
const FAREWELL_TIME: Duration = Duration::from_secs(10);

/// Reads on until the client closes too, or has had time enough: a connection closed while something
/// of the client's is unread is reset, and what was sent last may be lost.
async fn farewell(reading: impl Future) {
    // A client that does not close has had its time.
    let _ = tokio::time::timeout(FAREWELL_TIME, reading).await;
}

/// What tests ask of a network, without a connection.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Network, Pod, usage};
    use crate::clock::Millis;
    use serde_json::Value;

    fn used(network: &Network, pod: &Value, now: Millis) -> (f64, f64) {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        let all = usage::of_pod(&pod, now.timestamp(), &network.truth());
        (all[0].usage.nanos as f64 / 1e9, all[0].seconds)
    }

    /// Cores that the first container of a pod uses.
    pub fn cores(network: &Network, pod: &Value, now: Millis) -> f64 {
        used(network, pod, now).0
    }

    /// Core-seconds that it has used.
    pub fn counter(network: &Network, pod: &Value, now: Millis) -> f64 {
        used(network, pod, now).1
    }

    /// Whether the kubelet of a node can be reached.
    pub fn reached(network: &Network, node: &str) -> bool {
        network.reaches(node)
    }
}
