//! Commands in simulated containers and attaching to them, over WebSocket or SPDY.

use super::{
    Answer, Deed, Done, Network,
    command::{self, Console, Place, Printed},
    found::{Found, find},
    logs, plain,
    query::Query,
    reach::Reach,
    spdy, web_socket, written,
};
use crate::program::Session;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};
use tokio::sync::mpsc;

/// The version of the protocol that SPDY carries.
const SPDY_PROTOCOL: &str = "v4.channel.k8s.io";
/// Names the protocol over SPDY.
pub const PROTOCOL_HEADER: &str = "x-stream-protocol-version";
/// The client opens its streams within this time.
const STREAM_TIME: Duration = Duration::from_secs(30);
/// Chunks on their way from a command to its client.
const WAITING: usize = 16;

/// What is run, and for whom.
pub struct Work {
    /// The network that knows files and ends of containers.
    pub network: Network,
    /// Where the pod is read.
    pub pods: Api<Pod>,
    /// The pod.
    pub pod: Pod,
    /// The container.
    pub container: String,
    /// Whether to attach instead of running a command.
    pub attach: bool,
    command: Vec<String>,
    wants: Wants,
}

/// Streams that the client asks for.
#[derive(Clone, Copy, Debug)]
struct Wants {
    input: bool,
    output: bool,
    error: bool,
    tty: bool,
}

impl Work {
    /// What a request asks for.
    pub fn new(
        network: Network,
        pods: Api<Pod>,
        pod: Pod,
        container: &str,
        attach: bool,
        query: &Query,
    ) -> Self {
        let tty = query.flag("tty");
        Self {
            network,
            pods,
            pod,
            container: container.to_owned(),
            attach,
            command: query.all("command"),
            wants: Wants {
                input: query.flag("input"),
                output: query.flag("output"),
                // A terminal has one stream.
                error: query.flag("error") && !tty,
                tty,
            },
        }
    }

    fn tell(&self, deed: Deed) {
        let meta = self.pod.metadata.clone();
        self.network.done(Done {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            container: self.container.clone(),
            deed,
        });
    }

    /// Runs it; the status that its client is told at the end.
    async fn run(self, mut console: Console) -> Value {
        let Some(found) = find(&self.pod, &self.container) else {
            return failure("container not found");
        };
        let mut place = place(&self, &found).await;
        if !self.attach {
            let page = found.page();
            let served = |place: &mut Place| {
                let page = page.as_deref();
                page.is_none_or(|page| place.session.disk().read(page).is_some())
            };
            let before = served(&mut place);
            let code = command::run(&mut place, &mut console, &self.command).await;
            let after = served(&mut place);
            if before != after {
                self.tell(Deed::Serves(after));
            }
            return status(code);
        }
        if found.stdin && self.wants.input {
            // The main process reads what is typed; when it ends, so does the container.
            let mut words = found.command.clone();
            if words.is_empty() {
                words.push("sh".to_owned());
            }
            let code = command::run(&mut place, &mut console, &words).await;
            self.tell(Deed::Ended(code));
            return status(0);
        }
        if let Some(run) = found.current() {
            let (send, mut lines) = mpsc::channel::<Bytes>(WAITING);
            let end = if self.wants.tty { "\r\n" } else { "\n" };
            let print = |line: &(Timestamp, String)| Bytes::from(format!("{}{end}", line.1));
            let pod = self.pod.clone();
            let client = self.pods.clone().into_client();
            let voice = logs::Voice::of(&self.network, &client, &pod, &self.container).await;
            let following = async move {
                logs::follow(
                    self.pods.clone(),
                    pod,
                    &self.container,
                    run,
                    voice.now(),
                    &voice,
                    print,
                    &send,
                )
                .await;
            };
            let passing = async {
                while let Some(line) = lines.recv().await {
                    if console.printed.send(Printed::Out(line)).await.is_err() {
                        return;
                    }
                }
            };
            futures::future::join(following, passing).await;
        }
        status(0)
    }
}

/// A container as its commands see it.
async fn place(work: &Work, found: &Found<'_>) -> Place {
    let (pod, network) = (&work.pod, &work.network);
    let meta = &pod.metadata;
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    let now = network.truth().clock.now().timestamp();
    let client = work.pods.clone().into_client();
    let first = [
        (
            "/etc/os-release".to_owned(),
            format!(
                "NAME=\"Gantry simulated container\"\nID=gantry-simulated\nIMAGE=\"{}\"\n",
                found.image
            ),
        ),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount/namespace".to_owned(),
            text(&meta.namespace),
        ),
    ];
    let page = "<html><body><h1>It works!</h1></body></html>\n".to_owned();
    let page = found.page().map(|path| (path, page));
    let image = first.into_iter().chain(page);
    let (mut variables, disk) = written::files(network, &client, pod, found.name, image).await;
    variables.insert("GANTRY_SIMULATED".to_owned(), "true".to_owned());
    let files = network.files(&text(&meta.uid), found.name);
    let what = format!(
        "container {} of pod {}/{}",
        found.name,
        text(&meta.namespace),
        text(&meta.name)
    );
    Place {
        session: Session::new(variables, disk, now, &what),
        files,
        what,
        reach: Some(Reach::of(network, client, pod)),
    }
}

/// The status of a command that has ended with this code.
fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failure(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": message})
}

/// Whether a client wants SPDY.
pub fn wants_spdy(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"SPDY/3.1"))
}

/// Agrees to SPDY with this protocol, if the client offers it.
pub fn agree_to_spdy(
    request: &mut Request<Incoming>,
    protocol: &'static str,
) -> Result<(OnUpgrade, Response<Answer>), Box<Response<Answer>>> {
    let offered = request
        .headers()
        .get_all(PROTOCOL_HEADER)
        .iter()
        .filter_map(|it| it.to_str().ok());
    if !offered
        .flat_map(|it| it.split(','))
        .any(|it| it.trim() == protocol)
    {
        let mut response = plain(StatusCode::FORBIDDEN, "unable to negotiate protocol\n");
        response.headers_mut().insert(
            "x-accepted-stream-protocol-versions",
            HeaderValue::from_static(protocol),
        );
        return Err(Box::new(response));
    }
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(PROTOCOL_HEADER, HeaderValue::from_static(protocol));
    Ok((hyper::upgrade::on(request), response))
}

/// Answers a request for a command, or for attaching.
pub fn serve(mut request: Request<Incoming>, work: Work) -> Response<Answer> {
    let runs = find(&work.pod, &work.container).is_some_and(|it| it.runs());
    if !runs {
        return plain(
            StatusCode::NOT_FOUND,
            format!("container not found ({:?})", work.container),
        );
    }
    if web_socket::wanted(request.headers()) {
        return match web_socket::agree(&mut request, &["v5.channel.k8s.io", "v4.channel.k8s.io"]) {
            Ok((agreed, response)) => {
                tokio::spawn(over_web_socket(agreed, work));
                response
            }
            Err(refusal) => *refusal,
        };
    }
    if !wants_spdy(request.headers()) {
        return plain(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr over an upgraded connection\n",
        );
    }
    match agree_to_spdy(&mut request, SPDY_PROTOCOL) {
        Ok((upgrade, response)) => {
            tokio::spawn(over_spdy(upgrade, work));
            response
        }
        Err(refusal) => *refusal,
    }
}

async fn over_web_socket(agreed: web_socket::Agreed, work: Work) {
    let closes = agreed.protocol == "v5.channel.k8s.io";
    let Ok(socket) = agreed.socket().await else {
        return;
    };
    let (mut sink, mut messages) = socket.split();
    let (typed, input) = mpsc::channel(WAITING);
    let (printed, mut shown) = mpsc::channel(WAITING);
    let wants = work.wants;
    let console = Console {
        input: wants.input.then_some(input),
        printed,
        tty: wants.tty,
    };
    let reading = async {
        let mut typed = Some(typed);
        while let Some(Ok(message)) = messages.next().await {
            let Some(bytes) = web_socket::payload(message) else {
                continue;
            };
            match bytes.first() {
                Some(0) => {
                    if let Some(typed) = &typed {
                        // A command that does not read any more misses nothing.
                        let _ = typed.send(bytes.slice(1..)).await;
                    }
                }
                Some(255) if closes && bytes.get(1) == Some(&0) => typed = None,
                // The size of a terminal changes nothing here.
                _ => {}
            }
        }
    };
    let writing = async {
        while let Some(printed) = shown.recv().await {
            let message = match &printed {
                Printed::Out(bytes) if wants.output => web_socket::on_channel(1, bytes),
                Printed::Err(bytes) if wants.error => web_socket::on_channel(2, bytes),
                _ => continue,
            };
            if sink.send(message).await.is_err() {
                break;
            }
        }
        sink
    };
    let (status, mut sink) = tokio::select! {
        // The client has gone, and the command with it.
        () = reading => return,
        ended = futures::future::join(work.run(console), writing) => ended,
    };
    let told = web_socket::on_channel(3, status.to_string().as_bytes());
    // Who has gone is not told.
    if sink.send(told).await.is_ok() {
        web_socket::close(sink, messages).await;
    }
}

async fn over_spdy(upgrade: OnUpgrade, work: Work) {
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    let (opened, mut streams) = mpsc::channel(8);
    let serving = spdy::serve(TokioIo::new(upgraded), opened);
    let wants = work.wants;
    let working = async move {
        let mut named: HashMap<String, spdy::Stream> = HashMap::new();
        let mut awaited = vec!["error"];
        for (wanted, name) in [
            (wants.input, "stdin"),
            (wants.output, "stdout"),
            (wants.error, "stderr"),
            (wants.tty, "resize"),
        ] {
            if wanted {
                awaited.push(name);
            }
        }
        let all = async {
            while !awaited.iter().all(|it| named.contains_key(*it)) {
                let Some(stream) = streams.recv().await else {
                    return false;
                };
                let name = stream
                    .headers
                    .get("streamtype")
                    .cloned()
                    .unwrap_or_default();
                named.insert(name, stream);
            }
            true
        };
        if !tokio::time::timeout(STREAM_TIME, all)
            .await
            .unwrap_or(false)
        {
            return;
        }
        let input = named.remove("stdin").map(|it| it.input);
        // What comes in elsewhere is not read: it must not hold up the rest.
        let outputs: HashMap<String, spdy::Output> = named
            .into_iter()
            .map(|(name, it)| (name, it.output))
            .collect();
        let (printed, mut shown) = mpsc::channel(WAITING);
        let console = Console {
            input,
            printed,
            tty: wants.tty,
        };
        let writing = async {
            while let Some(printed) = shown.recv().await {
                let (name, bytes) = match printed {
                    Printed::Out(bytes) => ("stdout", bytes),
                    Printed::Err(bytes) => ("stderr", bytes),
                };
                if let Some(output) = outputs.get(name) {
                    output.send(bytes).await;
                }
            }
        };
        let (status, ()) = futures::future::join(work.run(console), writing).await;
        if let Some(error) = outputs.get("error") {
            error.send(status.to_string().into()).await;
        }
        for output in outputs.values() {
            output.end().await;
        }
        drop(streams);
    };
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // The client has gone, and the command with it.
        _ = &mut serving => {}
        () = working => {
            // What was printed last still goes out.
            let _ = serving.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_told_as_kubelets_do() {
        assert_eq!(status(0)["status"], "Success");
        let told = status(127);
        assert_eq!(told["reason"], "NonZeroExitCode");
        assert_eq!(
            told["details"]["causes"][0],
            json!({"reason": "ExitCode", "message": "127"})
        );
    }
}
