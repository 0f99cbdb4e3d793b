//! One event of the audit log, `Event` of `audit.k8s.io/v1`.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use gantry_machinery::protobuf;
use http::{header, request::Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    notes::Annotations,
    policy::{Level, Stage, Verdict},
};
use crate::{
    authn::UserInfo,
    authz::Attributes,
    request::Target,
    respond::{Body, JSON, Reply, YAML},
    rules::{self, Format},
};

/// The other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A body as it was sent, with its media type.
#[derive(Debug, Clone)]
pub struct Content {
    pub bytes: Bytes,
    pub media: String,
}

impl Content {
    fn decode(&self) -> Option<Value> {
        if self.bytes.is_empty() {
            return None;
        }
        let media = self.media.split(';').next().unwrap_or_default().trim();
        match media {
            YAML | "application/apply-patch+yaml" => serde_saphyr::from_slice(&self.bytes).ok(),
            protobuf::MEDIA_TYPE => rules::parse(&self.bytes, Format::Protobuf).ok(),
            "" => serde_json::from_slice(&self.bytes).ok(),
            json if json.starts_with("application/") && json.ends_with("json") => {
                serde_json::from_slice(&self.bytes).ok()
            }
            _ => None,
        }
    }

    /// Only what tells which object it is.
    fn identity(&self) -> Identity {
        #[derive(Deserialize, Default)]
        struct Object {
            #[serde(default)]
            metadata: Identity,
        }
        if self.media.starts_with(JSON) || self.media.is_empty() {
            let object: Result<Object, _> = serde_json::from_slice(&self.bytes);
            return object.unwrap_or_default().metadata;
        }
        let value = self.decode().unwrap_or_default();
        let object: Result<Object, _> = serde_json::from_value(value);
        object.unwrap_or_default().metadata
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

#[derive(Debug, Clone)]
pub struct Event {
    pub level: Level,
    id: String,
    stage: Stage,
    uri: String,
    verb: String,
    user: Option<Arc<Value>>,
    pub impersonated: Option<Value>,
    /// The narrow right by which somebody is impersonated.
    pub constraint: Option<String>,
    sources: Vec<String>,
    agent: String,
    reference: Option<Reference>,
    code: Option<u16>,
    /// Instead of an answer.
    status: Option<Value>,
    pub request: Option<Content>,
    response: Option<Content>,
    received: jiff::Timestamp,
    at: jiff::Timestamp,
    pub annotations: Annotations,
    without_managed_fields: bool,
}

const LONGEST_AGENT: usize = 1024;

impl Event {
    pub fn new(
        parts: &Parts,
        id: &str,
        received: jiff::Timestamp,
        user: Option<&UserInfo>,
        a: &Attributes<'_>,
        target: Option<&Target>,
        verdict: &Verdict,
    ) -> Event {
        let header = |name: &str| {
            let value = parts.headers.get(name).and_then(|v| v.to_str().ok());
            value.unwrap_or_default()
        };
        let mut agent = header("user-agent").to_owned();
        if agent.len() > LONGEST_AGENT {
            agent.truncate(agent.floor_char_boundary(LONGEST_AGENT));
            agent.push_str("...TRUNCATED");
        }
        let mut sources: Vec<String> = header("x-forwarded-for")
            .split(',')
            .chain([header("x-real-ip")])
            .map(str::trim)
            .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
            .map(str::to_owned)
            .collect();
        if let Some(Peer(peer)) = parts.extensions.get::<Peer>() {
            let peer = peer.ip().to_string();
            if sources.last() != Some(&peer) {
                sources.push(peer);
            }
        }
        Event {
            level: verdict.level,
            id: id.to_owned(),
            stage: Stage::RequestReceived,
            uri: parts
                .uri
                .path_and_query()
                .map_or_else(String::new, |p| p.as_str().to_owned()),
            verb: a.verb.to_owned(),
            user: user.map(|u| Arc::new(u.to_value())),
            impersonated: None,
            constraint: None,
            sources,
            agent,
            reference: target.map(|t| Reference {
                resource: t.plural.clone(),
                namespace: t.namespace.clone(),
                name: t.name.clone(),
                api_group: t.group.clone(),
                api_version: t.version.clone(),
                subresource: t.subresource.clone(),
                ..Reference::default()
            }),
            code: None,
            status: None,
            request: None,
            response: None,
            received,
            at: received,
            annotations: Annotations::new(),
            without_managed_fields: verdict.without_managed_fields,
        }
    }

    pub fn stage(&mut self, stage: Stage) {
        self.stage = stage;
        self.at = jiff::Timestamp::now();
    }

    /// Takes what came of the request. Bodies that go on are not kept.
    pub fn answer(&mut self, reply: &Reply) {
        self.code = Some(reply.status().as_u16());
        let bytes = match reply.body() {
            Body::Full(Some(bytes)) => bytes.clone(),
            Body::Chunks(chunks) if self.level == Level::RequestResponse => {
                let length = usize::try_from(chunks.left()).unwrap_or_default();
                let mut whole = BytesMut::with_capacity(length);
                chunks
                    .clone()
                    .for_each(|chunk| whole.extend_from_slice(&chunk));
                whole.freeze()
            }
            _ => return,
        };
        if self.level == Level::RequestResponse || !reply.status().is_success() {
            let media = reply.headers().get(header::CONTENT_TYPE);
            let media = media.and_then(|v| v.to_str().ok()).unwrap_or_default();
            self.response = Some(Content {
                bytes,
                media: media.to_owned(),
            });
        }
    }

    /// The handler has ended by a panic.
    pub fn panicked(&mut self) {
        self.code = Some(500);
        self.response = None;
        self.status = Some(json!({
            "metadata": {}, "status": "Failure", "message": "APIServer panic'd",
            "reason": "InternalError", "code": 500,
        }));
    }

    /// The client has gone before there was an answer.
    pub fn gone(&mut self) {
        if self.code.is_none() {
            self.status = Some(json!({
                "metadata": {}, "status": "Success", "message": "Connection closed early",
                "code": 200,
            }));
        }
    }

    /// The event as JSON. Bodies are decoded here, away from the request.
    pub fn line(&self) -> Vec<u8> {
        let mut reference = self.reference.clone();
        if let (Some(reference), Some(content)) = (&mut reference, &self.request) {
            let told = content.identity();
            let fill = |field: &mut String, value: String| {
                if field.is_empty() {
                    *field = value;
                }
            };
            fill(&mut reference.name, told.name);
            fill(&mut reference.namespace, told.namespace);
            fill(&mut reference.uid, told.uid);
            fill(&mut reference.resource_version, told.resource_version);
        }
        let answered = self.stage != Stage::RequestReceived;
        let object = |content: &Option<Content>, wanted: bool| {
            let content = content.as_ref().filter(|_| wanted)?;
            let mut value = content.decode()?;
            if self.without_managed_fields {
                strip(&mut value);
            }
            Some(value)
        };
        let response = object(&self.response, answered);
        let status = answered.then(|| self.status(response.as_ref())).flatten();
        let line = Line {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: self.level,
            audit_id: &self.id,
            stage: self.stage,
            request_uri: &self.uri,
            verb: &self.verb,
            user: self.user.as_deref().cloned().unwrap_or_else(|| json!({})),
            impersonated_user: self.impersonated.as_ref(),
            authentication_metadata: self
                .constraint
                .as_ref()
                .map(|c| json!({"impersonationConstraint": c})),
            source_ips: &self.sources,
            user_agent: &self.agent,
            object_ref: reference.as_ref(),
            response_status: status,
            request_object: object(&self.request, answered && self.level >= Level::Request),
            response_object: response.filter(|_| self.level == Level::RequestResponse),
            request_received_timestamp: micros(self.received),
            stage_timestamp: micros(self.at),
            annotations: &self.annotations,
        };
        serde_json::to_vec(&line).unwrap_or_default()
    }

    /// `responseStatus`: the code, and of a failure what it says.
    fn status(&self, response: Option<&Value>) -> Option<Value> {
        if let Some(status) = &self.status {
            return Some(status.clone());
        }
        let code = self.code?;
        let mut status = json!({"metadata": {}, "code": code});
        let told = response.filter(|r| r.get("kind") == Some(&"Status".into()));
        for field in ["status", "message", "reason", "details"] {
            if let Some(value) = told.and_then(|t| t.get(field)) {
                status[field] = value.clone();
            }
        }
        Some(status)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_metadata: Option<Value>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[String]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'a Annotations,
}

fn micros(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Takes the ownership of fields out of an object or the objects of a list.
fn strip(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    let items = object.get_mut("items").and_then(Value::as_array_mut);
    items.into_iter().flatten().for_each(strip);
}
