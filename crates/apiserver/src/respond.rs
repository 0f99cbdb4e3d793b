//! Answers: status codes, media types, bodies, and the three renderings of an object (whole,
//! metadata only, Table).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Stream;
use gantry_machinery::{
    protobuf::{self, Encoder},
    resource::Resource,
    status::Failure,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use serde_json::{Value, json};

use crate::{
    api::Cx,
    chunks::Chunks,
    errors, object,
    proxy::rewrite::Rewriter,
    registry::Entry,
    request::Query,
    rules::{self, Include},
};

/// A body: one buffer, or buffers as they come.
pub enum Body {
    Full(Option<Bytes>),
    Chunks(Chunks),
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// What another server sends, as it comes.
    Remote(hyper::body::Incoming),
    /// The same of a page whose links are changed on the way; without a rewriter it has ended.
    Page(hyper::body::Incoming, Option<Box<Rewriter>>),
}

impl Body {
    pub fn empty() -> Body {
        Body::Full(None)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Body::Chunks(chunks) => Poll::Ready(chunks.next().map(|b| Ok(Frame::data(b)))),
            Body::Stream(stream) => stream
                .as_mut()
                .poll_next(cx)
                .map(|next| next.map(|b| Ok(Frame::data(b)))),
            Body::Remote(body) => Pin::new(body).poll_frame(cx),
            Body::Page(body, rewriter) => loop {
                let Some(links) = rewriter else {
                    return Poll::Ready(None);
                };
                let bytes = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => links.push(&data),
                        Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                    },
                    Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                    None => {
                        let rest = links.finish();
                        *rewriter = None;
                        rest
                    }
                };
                if !bytes.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.is_none(),
            Body::Chunks(chunks) => chunks.left() == 0,
            Body::Stream(_) => false,
            Body::Remote(body) => body.is_end_stream(),
            Body::Page(_, rewriter) => rewriter.is_none(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Body::Full(bytes) => {
                http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Body::Chunks(chunks) => http_body::SizeHint::with_exact(chunks.left()),
            Body::Stream(_) | Body::Page(..) => http_body::SizeHint::default(),
            Body::Remote(body) => body.size_hint(),
        }
    }
}

pub type Reply = Response<Body>;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const OFFERED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

fn reply(code: u16, kind: &'static str, body: Body) -> Reply {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

pub fn bytes(code: u16, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    reply(code, kind, Body::Full(Some(body.into())))
}

pub fn chunks(code: u16, kind: &'static str, chunks: Chunks) -> Reply {
    reply(code, kind, Body::Chunks(chunks))
}

pub fn stream(kind: &'static str, body: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    reply(200, kind, Body::Stream(Box::pin(body)))
}

pub fn text(code: u16, body: &'static str) -> Reply {
    bytes(code, TEXT, Bytes::from_static(body.as_bytes()))
}

pub fn json(code: u16, value: &Value) -> Reply {
    bytes(code, JSON, value.to_string() + "\n")
}

/// A failure as a Status object, in the encoding that the client accepts.
pub fn failure(failure: &Failure, accept: Option<&HeaderValue>) -> Reply {
    let value = failure.to_value();
    // One that accepts nothing there is gets JSON, as it does with the 406 that says so.
    let media = plain_media(accept).unwrap_or(Media::Json);
    let mut response = encoded_as(media, failure.code, value.to_string().into())
        .unwrap_or_else(|_| json(failure.code, &value));
    let seconds = failure
        .details
        .as_ref()
        .map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning: 299 - "…"` headers.
pub fn warn(response: &mut Reply, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let clean: String = quoted
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{clean}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// What the client wants objects to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Object,
    Table(Include),
    Partial,
    PartialList,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub media: Media,
    pub form: Form,
    /// `meta.k8s.io/v1`, or `v1beta1` where that was asked for.
    pub meta_version: &'static str,
}

/// One of the media types of an Accept header, with the transformation it asks for.
#[derive(Default)]
struct Alternative<'a> {
    media: &'a str,
    kind: &'a str,
    group: &'a str,
    version: &'a str,
    quality: f32,
}

impl Alternative<'_> {
    fn offered(&self) -> Option<Media> {
        match self.media {
            "*/*" | "application/*" | JSON => Some(Media::Json),
            YAML => Some(Media::Yaml),
            protobuf::MEDIA_TYPE => Some(Media::Protobuf),
            _ => None,
        }
    }
}

/// The alternatives in the order in which Kubernetes tries them: by quality, then what is named
/// before what is not, then as given. `None`: anything will do.
fn alternatives(accept: Option<&HeaderValue>) -> Option<Vec<Alternative<'_>>> {
    let text = accept?.to_str().ok().filter(|t| !t.is_empty())?;
    let mut all: Vec<Alternative<'_>> = text
        .split(',')
        .map(|alternative| {
            let mut parts = alternative.split(';').map(str::trim);
            let mut one = Alternative {
                media: parts.next().unwrap_or_default(),
                quality: 1.0,
                ..Alternative::default()
            };
            for part in parts {
                match part.split_once('=') {
                    Some(("as", v)) => one.kind = v,
                    Some(("g", v)) => one.group = v,
                    Some(("v", v)) => one.version = v,
                    Some(("q", v)) => one.quality = v.parse().unwrap_or(1.0),
                    _ => {}
                }
            }
            one
        })
        .collect();
    all.sort_by(|a, b| {
        let open = |a: &Alternative<'_>| (a.media.starts_with('*'), a.media.ends_with('*'));
        b.quality
            .total_cmp(&a.quality)
            .then_with(|| open(a).cmp(&open(b)))
    });
    Some(all)
}

/// The encoding of what is not transformed, such as a Status; `None` when none is acceptable.
fn plain_media(accept: Option<&HeaderValue>) -> Option<Media> {
    match alternatives(accept) {
        None => Some(Media::Json),
        Some(all) => all
            .iter()
            .filter(|a| a.kind.is_empty())
            .find_map(Alternative::offered),
    }
}

/// How aggregated discovery is asked for before any other form of it: encoding and version.
pub fn aggregated(accept: Option<&HeaderValue>) -> Option<(Media, &'static str)> {
    for alternative in alternatives(accept)? {
        let Some(media) = alternative.offered() else {
            continue;
        };
        match (alternative.kind, alternative.group, alternative.version) {
            ("", _, _) => return None,
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Some((media, "v2")),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                return Some((media, "v2beta1"));
            }
            _ => {}
        }
    }
    None
}

/// A value that has no form but its own, as discovery answers it.
pub fn negotiated(headers: &HeaderMap, code: u16, value: &Value) -> Result<Reply, Failure> {
    negotiated_text(headers, code, value.to_string())
}

/// The same of a value that is JSON already.
pub fn negotiated_text(headers: &HeaderMap, code: u16, json: String) -> Result<Reply, Failure> {
    let media = plain_media(headers.get(header::ACCEPT));
    let media = media.ok_or_else(|| errors::not_acceptable(OFFERED))?;
    encoded_as(media, code, (json + "\n").into())
}

impl Output {
    pub const JSON: Output = Output {
        media: Media::Json,
        form: Form::Object,
        meta_version: "meta.k8s.io/v1",
    };

    /// The best acceptable alternative of the Accept header; 406 when there is none. Custom
    /// resources have no protobuf, but their metadata has; answers to questions have no table.
    pub fn negotiate(
        headers: &HeaderMap,
        query: &Query,
        resource: &Resource,
    ) -> Result<Output, Failure> {
        let custom = resource.custom.is_some();
        let answers = matches!(
            resource.group.as_str(),
            "authentication.k8s.io" | "authorization.k8s.io"
        );
        let Some(all) = alternatives(headers.get(header::ACCEPT)) else {
            return Ok(Output::JSON);
        };
        let mut known_media = false;
        for alternative in all {
            let Some(media) = alternative.offered() else {
                continue;
            };
            known_media = true;
            let version = alternative.version;
            let meta_version = match version {
                "v1beta1" => "meta.k8s.io/v1beta1",
                _ => "meta.k8s.io/v1",
            };
            let known = alternative.group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
            let protobuf = media == Media::Protobuf;
            let form = match alternative.kind {
                "" if protobuf && custom => continue,
                // A form is asked for, but not which.
                "" if !alternative.group.is_empty() || !version.is_empty() => continue,
                "" => Form::Object,
                "Table" if known && !protobuf && !answers => Form::Table(include(query)?),
                "PartialObjectMetadata" if known => Form::Partial,
                "PartialObjectMetadataList" if known => Form::PartialList,
                _ => continue,
            };
            return Ok(Output {
                media,
                form,
                meta_version,
            });
        }
        if custom || known_media {
            return Err(errors::not_acceptable(OFFERED));
        }
        Err(errors::unrouted_accept(OFFERED))
    }
}

fn include(query: &Query) -> Result<Include, Failure> {
    match query.text("includeObject") {
        "" | "Metadata" => Ok(Include::Metadata),
        "Object" => Ok(Include::Object),
        "None" => Ok(Include::None),
        other => Err(errors::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

/// Serialises in the encoding asked for.
pub fn encoded(output: Output, code: u16, json_bytes: Bytes) -> Result<Reply, Failure> {
    encoded_as(output.media, code, json_bytes)
}

fn encoded_as(media: Media, code: u16, json_bytes: Bytes) -> Result<Reply, Failure> {
    Ok(match media {
        Media::Json => bytes(code, JSON, json_bytes),
        Media::Yaml => {
            let value = object::parse(&json_bytes)?;
            let yaml = serde_saphyr::to_string(&value).map_err(errors::internal)?;
            bytes(code, YAML, yaml)
        }
        Media::Protobuf => {
            let body = message(&mut Encoder::new(), &json_bytes)?;
            bytes(code, protobuf::MEDIA_TYPE, body)
        }
    })
}

/// An object's JSON as the protobuf of the kind that it says it is.
pub fn message(encoder: &mut Encoder, json_bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let (version, kind) = object::type_of(json_bytes)?;
    encoder
        .body(&version, &kind, json_bytes)
        .map_err(errors::internal)
}

/// A success that has no object, as a Status.
pub fn status(cx: &Cx, code: u16, value: &Value) -> Result<Reply, Failure> {
    encoded(cx.output, code, (value.to_string() + "\n").into())
}

/// One object, whose JSON is given in the version of the request.
pub fn object_reply(cx: &Cx, code: u16, whole: Bytes) -> Result<Reply, Failure> {
    match cx.output.form {
        Form::Object => encoded(cx.output, code, whole),
        Form::Partial => {
            let bytes = partial(cx, &whole)?;
            encoded(cx.output, code, bytes)
        }
        Form::PartialList => Err(no_list(&cx.entry.resource.kind)),
        Form::Table(include) => {
            let value = object::parse(&whole)?;
            let version = object::meta_text(&value, "resourceVersion").to_owned();
            let mut list = json!({});
            if !version.is_empty() {
                list["resourceVersion"] = version.into();
            }
            let table = table(cx.output, &cx.entry, &[value], include, list, true);
            encoded(cx.output, code, table.to_string().into())
        }
    }
}

/// A subresource that is an object of another kind, such as a Scale, as JSON.
pub fn other_reply(cx: &Cx, code: u16, value: Value) -> Result<Reply, Failure> {
    let metadata = || {
        json!({
            "kind": "PartialObjectMetadata", "apiVersion": cx.output.meta_version,
            "metadata": value.get("metadata"),
        })
    };
    let shaped = match cx.output.form {
        Form::Object => value,
        Form::Partial => metadata(),
        Form::PartialList => return Err(no_list(object::text(&value, "/kind"))),
        Form::Table(include) => {
            let version = object::meta_text(&value, "resourceVersion");
            let list = json!({"resourceVersion": version});
            let (definitions, cells) = rules::plain_table(&value);
            let object = match include {
                Include::None => Value::Null,
                Include::Object => value.clone(),
                Include::Metadata => metadata(),
            };
            let rows: Vec<Value> = cells
                .into_iter()
                .map(|cells| json!({"cells": cells, "object": object}))
                .collect();
            json!({
                "kind": "Table", "apiVersion": cx.output.meta_version, "metadata": list,
                "columnDefinitions": definitions, "rows": rows,
            })
        }
    };
    encoded(cx.output, code, shaped.to_string().into())
}

fn no_list(kind: &str) -> Failure {
    Failure::new(
        406,
        "NotAcceptable",
        format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.{kind})"
        ),
    )
}

/// `PartialObjectMetadata` of an object.
pub fn partial(cx: &Cx, whole: &[u8]) -> Result<Bytes, Failure> {
    let head = &cx.entry.head;
    let meta = match object::metadata_bytes(head, whole) {
        Some(meta) if whole.starts_with(head.as_bytes()) => Bytes::copy_from_slice(meta),
        _ => {
            let value = object::parse(whole)?;
            value
                .get("metadata")
                .map(Value::to_string)
                .unwrap_or_default()
                .into()
        }
    };
    let mut out = format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{}\",\"metadata\":",
        cx.output.meta_version
    )
    .into_bytes();
    out.extend_from_slice(&meta);
    out.push(b'}');
    Ok(out.into())
}

/// Metadata without what only the whole object's conversion to its version writes.
fn bare_metadata(entry: &Entry, item: &Value) -> Value {
    let mut meta = item.get("metadata").cloned().unwrap_or_default();
    if entry.is("apps", "daemonsets")
        && let Some(notes) = meta.get_mut("annotations").and_then(Value::as_object_mut)
    {
        notes.remove("deprecated.daemonset.template.generation");
        if notes.is_empty()
            && let Some(meta) = meta.as_object_mut()
        {
            meta.remove("annotations");
        }
    }
    meta
}

/// A Table of objects in the version of the request.
pub fn table(
    output: Output,
    entry: &Entry,
    items: &[Value],
    include: Include,
    list_meta: Value,
    columns: bool,
) -> Value {
    let all: Vec<&Value> = items.iter().collect();
    let (definitions, cells) = rules::table(&entry.resource, &all, jiff::Timestamp::now());
    let rows: Vec<Value> = items
        .iter()
        .zip(cells)
        .map(|(item, cells)| {
            let object = match include {
                Include::None => Value::Null,
                Include::Object => item.clone(),
                Include::Metadata => json!({
                    "kind": "PartialObjectMetadata",
                    "apiVersion": output.meta_version,
                    "metadata": bare_metadata(entry, item),
                }),
            };
            json!({"cells": cells, "object": object})
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": output.meta_version,
        "metadata": list_meta,
        "columnDefinitions": if columns { definitions } else { Value::Null },
        "rows": rows,
    })
}
