//! Answers: status codes, media types, bodies, and the three renderings of an object (whole,
//! metadata only, Table).

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use gantry_machinery::status::Failure;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use serde_json::{Value, json};

use crate::{
    api::Cx,
    errors, object,
    registry::Entry,
    request::Query,
    rules::{self, Include},
};

/// A body: one buffer, or buffers as they come.
pub enum Body {
    Full(Option<Bytes>),
    Chunks(VecDeque<Bytes>, u64),
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body {
    pub fn empty() -> Body {
        Body::Full(None)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Body::Chunks(chunks, left) => Poll::Ready(chunks.pop_front().map(|b| {
                *left -= b.len() as u64;
                Ok(Frame::data(b))
            })),
            Body::Stream(stream) => stream
                .as_mut()
                .poll_next(cx)
                .map(|next| next.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.is_none(),
            Body::Chunks(chunks, _) => chunks.is_empty(),
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Body::Full(bytes) => {
                http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Body::Chunks(_, left) => http_body::SizeHint::with_exact(*left),
            Body::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

pub type Reply = Response<Body>;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const OFFERED: &str = "application/json, application/yaml";

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

pub fn chunks(code: u16, kind: &'static str, chunks: VecDeque<Bytes>) -> Reply {
    let length = chunks.iter().map(|c| c.len() as u64).sum();
    reply(code, kind, Body::Chunks(chunks, length))
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

/// A failure as a Status object.
pub fn failure(failure: &Failure) -> Reply {
    let mut response = json(failure.code, &failure.to_value());
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub yaml: bool,
    pub form: Form,
    /// `meta.k8s.io/v1`, or `v1beta1` where that was asked for.
    pub meta_version: &'static str,
}

impl Output {
    pub const JSON: Output = Output {
        yaml: false,
        form: Form::Object,
        meta_version: "meta.k8s.io/v1",
    };

    /// The first acceptable alternative of the Accept header; 406 when there is none.
    pub fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Output, Failure> {
        let Some(accept) = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()) else {
            return Ok(Output::JSON);
        };
        if accept.is_empty() {
            return Ok(Output::JSON);
        }
        for alternative in accept.split(',') {
            let mut parts = alternative.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let yaml = match media {
                "*/*" | "application/*" | JSON => false,
                YAML => true,
                _ => continue,
            };
            let (mut kind, mut group, mut version) = ("", "", "");
            for part in parts {
                match part.split_once('=') {
                    Some(("as", v)) => kind = v,
                    Some(("g", v)) => group = v,
                    Some(("v", v)) => version = v,
                    _ => {}
                }
            }
            let meta_version = match version {
                "v1beta1" => "meta.k8s.io/v1beta1",
                _ => "meta.k8s.io/v1",
            };
            let known = group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
            let form = match kind {
                "" => Form::Object,
                "Table" if known => Form::Table(include(query)?),
                "PartialObjectMetadata" if known => Form::Partial,
                "PartialObjectMetadataList" if known => Form::PartialList,
                _ => continue,
            };
            return Ok(Output {
                yaml,
                form,
                meta_version,
            });
        }
        Err(errors::not_acceptable(OFFERED))
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

/// Serialises in the form asked for: JSON, or YAML of the same.
pub fn encoded(output: Output, code: u16, json_bytes: Bytes) -> Result<Reply, Failure> {
    if !output.yaml {
        return Ok(bytes(code, JSON, json_bytes));
    }
    let value = object::parse(&json_bytes)?;
    let yaml = serde_saphyr::to_string(&value).map_err(errors::internal)?;
    Ok(bytes(code, YAML, yaml))
}

/// One object, whose JSON is given in the version of the request.
pub fn object_reply(cx: &Cx, code: u16, whole: Bytes) -> Result<Reply, Failure> {
    match cx.output.form {
        Form::Object => encoded(cx.output, code, whole),
        Form::Partial => {
            let bytes = partial(cx, &whole)?;
            encoded(cx.output, code, bytes)
        }
        Form::PartialList => Err(Failure::new(
            406,
            "NotAcceptable",
            format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*core.{})",
                cx.entry.resource.kind
            ),
        )),
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
