//! One request from its head to its answer: identified, counted, recorded, compressed.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use gantry_machinery::status::Failure;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Instant;

use crate::{
    api::Api,
    audit,
    compress::compress,
    errors, flow,
    metrics::{Labels, UnderWay},
    pretty,
    respond::{self, Reply},
    route::route,
    web_socket,
};

/// Bodies up to this many bytes are read, as kube-apiserver does.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(60);

/// Handles one request of a socket or of an in-process client. A user may come as an extension of
/// the request, from in-process clients only: what comes in over a socket has no such extension.
pub async fn handle<B>(api: Arc<Api>, request: Request<B>) -> Reply
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let origin = api.config.browsers.origin(&request);
    if let Some(mut reply) = api
        .config
        .browsers
        .preflight(request.method(), origin.as_ref())
    {
        api.config.browsers.tell(reply.headers_mut(), origin);
        return reply;
    }
    let (parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let accept = parts.headers.get(header::ACCEPT).cloned();
    let coding = parts.headers.get(header::ACCEPT_ENCODING).cloned();
    let pretty = pretty::wanted(&parts.headers, parts.uri.query());
    let since = Instant::now();
    let id = audit_id(&parts.headers);
    let mut trace = Trace {
        id: id.clone(),
        ..Trace::default()
    };
    // On the heap at once: what calls this moves its future around.
    let outcome = Box::pin(route(api.clone(), parts, body, &mut trace)).await;
    let mut reply = match outcome {
        Ok(reply) => reply,
        Err(failure) => respond::failure(&failure, accept.as_ref()),
    };
    let mut ongoing = None;
    if let Some(mut record) = trace.record {
        record.answer(&reply);
        if trace.unknown {
            record.unauthenticated().await;
        } else if audit::goes_on(&reply) {
            record.started().await;
            ongoing = Some(record);
        } else {
            record.complete(trace.panicked).await;
        }
    }
    if let Ok(id) = header::HeaderValue::try_from(id) {
        reply.headers_mut().insert(AUDIT_ID, id);
    }
    api.config.browsers.tell(reply.headers_mut(), origin);
    if pretty {
        reply = pretty::print(reply);
    }
    if let Some(ticket) = trace.ticket {
        ticket.show(&mut reply);
    }
    let series = api.metrics.series(trace.labels);
    if let respond::Body::Stream(stream) = reply.body_mut() {
        // A watch is answered when it ends.
        let running = series.running(since);
        let events = std::mem::replace(stream, Box::pin(futures::stream::empty()));
        *stream = Box::pin(events.inspect(move |_| {
            // Its record is complete when the stream is dropped.
            let _: &Option<audit::Record> = &ongoing;
            running.event();
        }));
    } else {
        let size = http_body::Body::size_hint(reply.body()).exact();
        series.answered(reply.status().as_u16(), since.elapsed(), size);
    }
    if let Some(socket) = trace.socket {
        reply = socket.answer(reply);
    }
    if head {
        *reply.body_mut() = respond::Body::empty();
    }
    compress(reply, coding.as_ref())
}

/// What is found out about a request on its way.
#[derive(Default)]
pub struct Trace {
    pub labels: Labels,
    pub ticket: Option<flow::Ticket>,
    pub under_way: Option<UnderWay>,
    /// The request's name in the audit log.
    pub id: String,
    pub record: Option<audit::Record>,
    /// Nobody is known for the request.
    pub unknown: bool,
    /// A watch is to come over a WebSocket.
    pub socket: Option<web_socket::Handshake>,
    pub panicked: bool,
}

const AUDIT_ID: header::HeaderName = header::HeaderName::from_static("audit-id");

/// The name of a request in the audit log: as the client says, else a new one.
fn audit_id(headers: &HeaderMap) -> String {
    match headers.get(AUDIT_ID).and_then(|v| v.to_str().ok()) {
        Some(given) if !given.is_empty() => given.to_owned(),
        _ => crate::object::uid(),
    }
}

/// Reads a whole body within its limits.
pub async fn read<B>(body: B) -> Result<Bytes, Failure>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = Limited::new(body, BODY_LIMIT);
    match tokio::time::timeout(BODY_TIME, limited.collect()).await {
        Err(_) => Err(Failure::new(
            408,
            "Timeout",
            "the body of the request did not arrive in time",
        )),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(errors::too_large(BODY_LIMIT)),
        Ok(Err(e)) => Err(errors::bad_request(format!("reading the body: {e}"))),
    }
}
