//! Ways to the ports of simulated pods that containers declare: port forwarding and connections within the
//! process, by proxies and to webhooks.

use super::{
    Answer, Network,
    exec::{agree_to_spdy, wants_spdy},
    plain,
    query::Query,
    servers, spdy, web_socket,
};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use std::{collections::HashMap, io};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    task::JoinSet,
};

/// What a pipe holds in each direction.
const PIPE: usize = 64 * 1024;
/// Chunks that wait for a slower side.
const WAITING: usize = 16;
const SPDY_PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";

/// A connection to a port of a pod; refused where no container listens. `from`: the address of who
/// connects, where that is another pod.
pub fn connect(
    network: &Network,
    client: &Client,
    pod: &Pod,
    port: u16,
    from: Option<String>,
) -> io::Result<DuplexStream> {
    let spec = pod.spec.as_ref();
    let container = spec.and_then(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        let mut all = spec.containers.iter().chain(sidecars);
        all.find(|it| servers::listens(it, port, false))
    });
    let running = pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
    let Some(container) = container.filter(|_| running) else {
        let said = format!("dial tcp4 127.0.0.1:{port}: connect: connection refused");
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, said));
    };
    let (near, far) = tokio::io::duplex(PIPE);
    let at = servers::At {
        network: network.clone(),
        client: client.clone(),
        pod: pod.clone(),
        container: container.clone(),
        port,
        from,
    };
    tokio::spawn(servers::serve(at, far));
    Ok(near)
}

/// `/portForward/NAMESPACE/POD`.
pub fn serve(
    mut request: Request<Incoming>,
    network: Network,
    client: Client,
    pod: Pod,
    query: &Query,
) -> Response<Answer> {
    if web_socket::wanted(request.headers()) {
        let ports: Result<Vec<u16>, _> = query
            .all("port")
            .iter()
            .map(|it| it.parse::<u16>())
            .collect();
        let Ok(ports) = ports else {
            return plain(
                StatusCode::BAD_REQUEST,
                "query parameter \"port\" must be a number of a port\n",
            );
        };
        let agreed = web_socket::agree(&mut request, &[TUNNEL_PROTOCOL, CHANNELS]);
        let (agreed, response) = match agreed {
            Ok(agreed) => agreed,
            Err(refusal) => return *refusal,
        };
        if agreed.protocol == CHANNELS {
            if ports.is_empty() || ports.len() > 100 {
                return plain(
                    StatusCode::BAD_REQUEST,
                    "query parameter \"port\" is required\n",
                );
            }
            tokio::spawn(over_channels(agreed, network, client, pod, ports));
            return response;
        }
        tokio::spawn(async move {
            let Ok(socket) = agreed.socket().await else {
                return;
            };
            let (near, far) = tokio::io::duplex(PIPE);
            // Whichever ends first ends the other: a tunnel without its client, or the reverse.
            let (_, tunnelled) = futures::future::join(
                over_spdy(near, network, client, pod),
                web_socket::tunnel(socket, far),
            )
            .await;
            if let Err(error) = tunnelled {
                tracing::debug!(%error, "port forwarding");
            }
        });
        return response;
    }
    if !wants_spdy(request.headers()) {
        return plain(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request\n",
        );
    }
    match agree_to_spdy(&mut request, SPDY_PROTOCOL) {
        Ok((upgrade, response)) => {
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    over_spdy(TokioIo::new(upgraded), network, client, pod).await;
                }
            });
            response
        }
        Err(refusal) => *refusal,
    }
}

/// Each connection is a pair of streams, one for errors and one for data, of the same request id.
async fn over_spdy<I>(io: I, network: Network, client: Client, pod: Pod)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let (opened, mut streams) = mpsc::channel::<spdy::Stream>(8);
    let forwarding = async move {
        let mut halves: HashMap<String, spdy::Stream> = HashMap::new();
        let mut tasks = JoinSet::new();
        while let Some(stream) = streams.recv().await {
            while tasks.try_join_next().is_some() {}
            let head = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
            let (id, port) = (head("requestid"), head("port").parse::<u16>().unwrap_or(0));
            let data = head("streamtype") == "data";
            let Some(other) = halves.remove(&id) else {
                halves.insert(id, stream);
                continue;
            };
            let (data, error) = if data {
                (stream, other)
            } else {
                (other, stream)
            };
            tasks.spawn(forward(
                connect(&network, &client, &pod, port, None),
                pod.metadata.uid.clone(),
                port,
                data,
                error.output,
            ));
        }
    };
    let (served, ()) = futures::future::join(spdy::serve(io, opened), forwarding).await;
    if let Err(error) = served {
        tracing::debug!(%error, "port forwarding");
    }
}

async fn forward(
    connected: io::Result<DuplexStream>,
    uid: Option<String>,
    port: u16,
    data: spdy::Stream,
    error: spdy::Output,
) {
    let spdy::Stream {
        mut input, output, ..
    } = data;
    match connected {
        Ok(pipe) => {
            let (mut reader, mut writer) = tokio::io::split(pipe);
            let inward = async {
                while let Some(bytes) = input.recv().await {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                // What is closed already needs no closing.
                let _ = writer.shutdown().await;
            };
            let outward = async {
                loop {
                    let mut buffer = BytesMut::with_capacity(PIPE / 2);
                    let read = reader.read_buf(&mut buffer).await.unwrap_or(0);
                    if read == 0 || !output.send(buffer.freeze()).await {
                        break;
                    }
                }
                output.end().await;
            };
            futures::future::join(inward, outward).await;
        }
        Err(why) => {
            let said = format!(
                "error forwarding port {port} to pod {}, uid : {why}",
                uid.unwrap_or_default()
            );
            error.send(said.into()).await;
            output.end().await;
        }
    }
    error.end().await;
}

/// Two channels a port, each of which begins with the port's number.
async fn over_channels(
    agreed: web_socket::Agreed,
    network: Network,
    client: Client,
    pod: Pod,
    ports: Vec<u16>,
) {
    let Ok(socket) = agreed.socket().await else {
        return;
    };
    let (mut sink, mut messages) = socket.split();
    let (send, mut outgoing) = mpsc::channel::<(u8, Bytes)>(WAITING);
    let mut tasks = JoinSet::new();
    let mut inputs = vec![];
    for (index, port) in ports.into_iter().enumerate() {
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX - 1);
        let (typed, mut input) = mpsc::channel::<Bytes>(WAITING);
        inputs.push(typed);
        let connected = connect(&network, &client, &pod, port, None);
        let send = send.clone();
        tasks.spawn(async move {
            let number = Bytes::copy_from_slice(&port.to_le_bytes());
            for channel in [channel, channel + 1] {
                if send.send((channel, number.clone())).await.is_err() {
                    return;
                }
            }
            let pipe = match connected {
                Ok(pipe) => pipe,
                Err(why) => {
                    let said = format!("error forwarding port {port} to pod: {why}");
                    // Who has gone needs no word.
                    let _ = send.send((channel + 1, said.into())).await;
                    return;
                }
            };
            let (mut reader, mut writer) = tokio::io::split(pipe);
            let inward = async {
                while let Some(bytes) = input.recv().await {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            };
            let outward = async {
                loop {
                    let mut buffer = BytesMut::with_capacity(PIPE / 2);
                    match reader.read_buf(&mut buffer).await {
                        Ok(read) if read > 0 => {}
                        _ => return,
                    }
                    if send.send((channel, buffer.freeze())).await.is_err() {
                        return;
                    }
                }
            };
            futures::future::join(inward, outward).await;
        });
    }
    drop(send);
    let reading = async {
        while let Some(Ok(message)) = messages.next().await {
            let Some(bytes) = web_socket::payload(message) else {
                continue;
            };
            let channel = bytes.first().map_or(usize::MAX, |it| usize::from(*it));
            if channel % 2 == 0
                && let Some(input) = inputs.get(channel / 2)
            {
                // A port that is closed takes nothing.
                let _ = input.send(bytes.slice(1..)).await;
            }
        }
    };
    let writing = async {
        while let Some((channel, bytes)) = outgoing.recv().await {
            if sink
                .send(web_socket::on_channel(channel, &bytes))
                .await
                .is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => return,
        () = writing => {}
    }
    // All ports are closed.
    web_socket::close(sink, messages).await;
}
