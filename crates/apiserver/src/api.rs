//! The one handler: authenticate, parse, authorize, look up, dispatch.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use gantry_machinery::{
    resource::Resource,
    status::{Details, Failure},
};
use gantry_store::{Store, Stored};
use http::{HeaderMap, Method, Request, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::RwLock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    aggregate::{self, Aggregator},
    allocate,
    audit::{self, Audit},
    authn::{self, Authenticator, UserInfo, certificate::Shown},
    authz::{self, Attributes, Authorizer},
    backup,
    compress::compress,
    discovery, errors,
    flow::{self, Flow},
    health,
    impersonation::impersonate,
    lasting::Lasting,
    metrics::{self, Labels, Metrics, UnderWay},
    ownership::Conversions,
    pretty, proxy,
    registry::{Entry, Registry},
    request::{self, Query, Target},
    respond::{self, Output, Reply},
    rest,
    sealed::Pieces,
    web_socket,
};

/// Bodies up to this many bytes are read, as kube-apiserver does.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(60);

/// The server without its sockets.
pub struct Api {
    pub store: Store,
    pub config: Config,
    pub registry: RwLock<Arc<Registry>>,
    pub authenticator: Authenticator,
    pub authorizer: Authorizer,
    pub audit: Option<Arc<Audit>>,
    pub hooks: crate::admission::Hooks,
    pub event_limits: crate::admission::EventLimits,
    pub callers: crate::webhook::Callers,
    pub services: allocate::Services,
    pub stop: CancellationToken,
    pub ca_pem: String,
    /// Address and port that clients reach the server at.
    pub external: std::net::SocketAddr,
    /// Where the `kubernetes` Service leads, if others can reach the server; see `endpoints`.
    pub reachable: Option<std::net::SocketAddr>,
    /// States before this revision are too old to be listed; see `age`.
    pub aged: std::sync::atomic::AtomicU64,
    /// Writes of definitions are applied one after the other.
    pub definitions: tokio::sync::Mutex<()>,
    pub openapi: crate::openapi::Cache,
    pub metrics: Arc<Metrics>,
    pub flow: Flow,
    /// Connections to kubelets and pods.
    pub links: Arc<proxy::links::Links>,
    /// Group versions that other servers serve.
    pub aggregator: Aggregator,
    /// The authorities that client certificates are known by, PEM.
    pub client_ca: Option<String>,
}

impl Api {
    /// Tells what is served at one time from what is at another.
    pub fn generation(&self, registry: &Registry) -> (u64, u64) {
        (registry.generation, self.aggregator.state().generation)
    }

    /// Whether an object is kept on disk in another way than it would be if it were written now: then
    /// writing it again is worth it though nothing changes.
    pub fn kept_otherwise(&self, stored: &Stored) -> bool {
        stored.stale || self.config.reload.outdates(stored)
    }
}

/// One request about a resource, understood and allowed.
pub struct Cx {
    pub api: Arc<Api>,
    pub entry: Arc<Entry>,
    pub target: Target,
    pub query: Query,
    pub user: Arc<UserInfo>,
    pub headers: HeaderMap,
    pub output: Output,
    pub now: jiff::Timestamp,
    pub warnings: Vec<String>,
    /// What the audit log is told beside.
    pub notes: audit::Notes,
    /// The server's own request: webhooks and policies are not asked about it.
    pub own: bool,
    /// What of the object that is being changed was not opened.
    pub pieces: Pieces,
    /// The object in versions in which managers wrote it.
    pub conversions: Conversions,
}

impl Cx {
    pub fn resource(&self) -> &Arc<Resource> {
        &self.entry.resource
    }

    pub fn store(&self) -> &Store {
        &self.api.store
    }

    pub fn dry_run(&self) -> bool {
        self.query.all("dryRun").any(|v| v == "All")
    }

    /// The field manager: as given, else the client's name from its User-Agent.
    pub fn manager(&self) -> String {
        match self.query.text("fieldManager") {
            "" => {
                let agent = self
                    .headers
                    .get(header::USER_AGENT)
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or_default();
                let name = agent.split('/').next().unwrap_or_default();
                let clean: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
                if clean.is_empty() {
                    "unknown".to_owned()
                } else {
                    clean
                }
            }
            given => given.to_owned(),
        }
    }

    /// Adds warnings to the answer, each once however often the work was tried again.
    pub fn warn(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    /// Notes something for the audit log; what was noted first under a name stays.
    pub fn annotate(&self, name: &str, value: String) {
        self.notes.add(name.to_owned(), value);
    }

    pub fn key(&self, name: &str) -> gantry_store::Key {
        crate::object::key(&self.entry, &self.target.namespace, name)
    }

    pub fn not_found(&self) -> Failure {
        errors::not_found(self.resource(), &self.target.name)
    }

    /// Refuses with 403 when the user may not do something else that this needs.
    pub fn demand(&self, a: &Attributes<'_>) -> Result<(), Failure> {
        let authorizer = &self.api.authorizer;
        match authorizer.decide_now(&self.api.store, &self.user, a) {
            Ok(_) => Ok(()),
            Err(no) => Err(refused(&self.user, a, &no.reason)),
        }
    }

    /// Whether the user may do something else too, in the namespace of the request.
    pub fn may(&self, a: &Attributes<'_>) -> bool {
        self.api
            .authorizer
            .decide_now(&self.api.store, &self.user, a)
            .is_ok()
    }
}

/// Handles one request of a socket or of an in-process client. A user may come as an extension of
/// the request, from in-process clients only: what comes in over a socket has no such extension.
pub async fn handle<B>(api: Arc<Api>, request: Request<B>) -> Reply
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
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
struct Trace {
    labels: Labels,
    ticket: Option<flow::Ticket>,
    under_way: Option<UnderWay>,
    /// The request's name in the audit log.
    id: String,
    record: Option<audit::Record>,
    /// Nobody is known for the request.
    unknown: bool,
    /// A watch is to come over a WebSocket.
    socket: Option<web_socket::Handshake>,
    panicked: bool,
}

const AUDIT_ID: header::HeaderName = header::HeaderName::from_static("audit-id");

/// The name of a request in the audit log: as the client says, else a new one.
fn audit_id(headers: &HeaderMap) -> String {
    match headers.get(AUDIT_ID).and_then(|v| v.to_str().ok()) {
        Some(given) if !given.is_empty() => given.to_owned(),
        _ => crate::object::uid(),
    }
}

/// What a request is counted as. Paths and names of the client's making are not told apart.
fn labels(parts: &Parts, target: Option<&Target>, entry: Option<&Entry>, query: &Query) -> Labels {
    let (target, entry) = match (target, entry) {
        (Some(target), Some(entry)) => (target, entry),
        _ => {
            let path = parts.uri.path().trim_matches('/');
            let known = ["healthz", "livez", "readyz", "metrics", "version"];
            return Labels {
                verb: method(&parts.method),
                path: known.into_iter().find(|k| *k == path).unwrap_or_default(),
                ..Labels::default()
            };
        }
    };
    let resource = &entry.resource;
    let mut subs = resource.subresources.iter();
    let sub = subs.position(|s| s.name == target.subresource);
    let verb = match request::verb(&parts.method, target, query) {
        _ if matches!(
            target.subresource.as_str(),
            "exec" | "attach" | "portforward" | "proxy"
        ) =>
        {
            "CONNECT"
        }
        Some("list") => "LIST",
        Some("watch") => "WATCH",
        Some("deletecollection") => "DELETECOLLECTION",
        Some("patch") => {
            let media = parts.headers.get(header::CONTENT_TYPE);
            match media.is_some_and(|m| m.as_bytes().starts_with(b"application/apply-patch")) {
                true => "APPLY",
                false => "PATCH",
            }
        }
        _ => method(&parts.method),
    };
    Labels {
        verb,
        resource: Some(resource.clone()),
        subresource: sub,
        path: "",
        scope: match (target.name.is_empty(), target.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        },
        dry_run: match query.all("dryRun").any(|v| v == "All") {
            true => "All",
            false => "",
        },
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

async fn route<B>(
    api: Arc<Api>,
    mut parts: Parts,
    body: B,
    trace: &mut Trace,
) -> Result<Reply, Failure>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    web_socket::take_token(&mut parts.headers)?;
    let path = parts.uri.path().to_owned();
    let path = path.as_str();
    let query = Query::parse(parts.uri.query());
    let target = request::target(path);
    let registry = api.registry.read().clone();
    let entry = target
        .as_ref()
        .and_then(|t| registry.lookup(&t.group, &t.version, &t.plural));
    trace.labels = labels(&parts, target.as_ref(), entry.map(|e| &**e), &query);
    let received = jiff::Timestamp::now();
    let in_process = parts.extensions.get::<Arc<UserInfo>>().is_some();
    let user = authenticate(&api, &parts).await;
    let verb = match &target {
        Some(target) => request::verb(&parts.method, target, &query),
        None => None,
    };
    let lower = parts.method.as_str().to_ascii_lowercase();
    let attributes = match &target {
        Some(t) => Attributes {
            verb: verb.unwrap_or(&lower),
            group: &t.group,
            version: &t.version,
            resource: &t.plural,
            subresource: &t.subresource,
            namespace: &t.namespace,
            name: &t.name,
            ..Attributes::default()
        },
        None => Attributes {
            verb: &lower,
            path: Some(path),
            ..Attributes::default()
        },
    };
    if let Some(audit) = &api.audit {
        let known = user.as_ref().ok().map(|u| &**u);
        let what = (&attributes, target.as_ref());
        trace.record = audit.begin(&parts, &trace.id, received, known, what).await;
        trace.unknown = known.is_none();
    }
    let mut user = user?;
    if let Some(as_other) = impersonate(&api, &parts.headers, &user, &attributes)? {
        user = as_other.user;
        if let Some(record) = &mut trace.record {
            record.note(|event| {
                event.impersonated = Some(user.to_value());
                event.constraint = as_other.constraint;
            });
        }
    }
    let worth = || flow::width(&api.store, entry.map(|e| &**e), &attributes, &query);
    match api.flow.admit(&user, &attributes, worth).await {
        Ok(ticket) => trace.ticket = ticket,
        Err(refused) => return Ok(refused.reply()),
    }
    if verb != Some("watch") {
        let writes = !matches!(parts.method, Method::GET | Method::HEAD);
        trace.under_way = Some(api.metrics.under_way(writes));
    }
    let selected;
    let mut attributes = attributes;
    if matches!(attributes.verb, "list" | "watch" | "deletecollection") {
        // A role for one name allows lists that a field selector narrows to that name.
        selected = rest::list::selected_name(&query);
        if let Some(name) = &selected {
            attributes.name = name;
        }
    }
    let fields;
    if user.node().is_some() {
        fields = rest::list::selected_fields(&query);
        attributes.fields = &fields;
    }
    let narrowed;
    if api.authorizer.asks() && matches!(attributes.verb, "list" | "watch" | "deletecollection") {
        narrowed = authz::selectors(query.text("fieldSelector"), query.text("labelSelector"));
        attributes.selectors = narrowed.as_ref();
    }
    let decided = api.authorizer.decide(&api.store, &user, &attributes).await;
    if let Some(record) = &mut trace.record {
        let (decision, reason) = match &decided {
            Ok(reason) => (Some("allow"), reason.as_str()),
            Err(no) if no.error.is_some() => (None, "internal error"),
            Err(no) => (Some("forbid"), no.reason.as_str()),
        };
        record.note(|event| {
            let notes = &mut event.annotations;
            if let Some(decision) = decision {
                notes.insert("authorization.k8s.io/decision".into(), decision.to_owned());
            }
            notes.insert("authorization.k8s.io/reason".into(), reason.to_owned());
        });
    }
    if let Err(no) = decided {
        if let Some(error) = no.error {
            let uri = parts.uri.path_and_query().map_or(path, |p| p.as_str());
            return Err(errors::plain_internal(format!(
                "Internal Server Error: {uri:?}: {error}"
            )));
        }
        if matches!(attributes.verb, "list" | "watch" | "deletecollection") {
            attributes.name = "";
        }
        return Err(refused(&user, &attributes, &no.reason));
    }
    if target.is_none() && path == backup::PATH {
        if !user.in_group(authn::MASTERS) {
            return Err(refused(&user, &attributes, ""));
        }
        return backup::serve(&api, &parts.method).await;
    }
    if let Some(known) = aggregate::route::whose(&api, path) {
        let passing = aggregate::route::Passing {
            user: &user,
            id: &trace.id,
            watches: verb == Some("watch"),
        };
        let body = body.map_err(Into::into).boxed_unsync();
        return aggregate::route::pass(&api, &known, &passing, parts, body).await;
    }
    let Some(target) = target else {
        return nonresource(&api, &parts, path, &query);
    };
    let Some(entry) = entry else {
        return missing(&registry, &target);
    };
    let entry = entry.clone();
    let resource = entry.resource.clone();
    if !resource.namespaced() && !target.namespace.is_empty() && resource.plural != "namespaces" {
        return Err(errors::no_such_path());
    }
    let Some(verb) = verb else {
        return Err(errors::method_not_allowed());
    };
    let forwarded = proxy::is_forwarded(&target.subresource);
    if parts.method == Method::HEAD && !forwarded {
        return Err(errors::method_not_allowed());
    }
    let named = !target.name.is_empty();
    let unplaced = resource.namespaced() && target.namespace.is_empty();
    if target.subresource.is_empty() {
        let offered = resource.allows(verb)
            && match verb {
                "create" => !named && !unplaced,
                "update" | "patch" | "delete" => named && !unplaced,
                "get" => !unplaced,
                "deletecollection" => !unplaced,
                _ => true,
            };
        if unplaced && named {
            return Err(errors::no_such_path());
        }
        if !offered {
            return Err(errors::method_not_allowed());
        }
    } else {
        let Some(sub) = resource.subresource(&target.subresource) else {
            return Err(match resource.custom {
                Some(_) => errors::not_found(&resource, &target.name),
                None => errors::no_such_path(),
            });
        };
        if unplaced || (!target.rest.is_empty() && sub.name != "proxy") {
            return Err(errors::no_such_path());
        }
        let offered = sub.verbs.iter().any(|v| v == verb)
            || verb.is_empty()
            || (matches!(verb, "watch" | "list") && sub.verbs.iter().any(|v| v == "get"));
        if !offered {
            return Err(errors::method_not_allowed());
        }
    }
    let notes = trace.record.as_ref().map(audit::Record::notes);
    let notes = notes.unwrap_or_default();
    if forwarded {
        let mut cx = Cx {
            api,
            entry,
            target,
            query,
            user,
            headers: parts.headers.clone(),
            output: Output::JSON,
            now: jiff::Timestamp::now(),
            warnings: vec![],
            notes: notes.clone(),
            own: false,
            pieces: Pieces::default(),
            conversions: Conversions::default(),
        };
        let admitted = rest::pods::admit_connection(&mut cx).await;
        tell(trace, &notes);
        admitted?;
        let asked = proxy::Asked::from(cx);
        let body = body.map_err(Into::into).boxed_unsync();
        return proxy::connect(asked, parts, body).await;
    }
    if verb == "watch" {
        trace.socket = web_socket::handshake(&mut parts)?;
    }
    let output = Output::negotiate(&parts.headers, &query, &resource)?;
    let body = if parts.method == Method::GET {
        Bytes::new()
    } else {
        read(body).await?
    };
    if let Some(record) = &mut trace.record
        && !body.is_empty()
    {
        let media = parts.headers.get(header::CONTENT_TYPE);
        let media = media.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let content = audit::Content {
            bytes: body.clone(),
            media: media.to_owned(),
        };
        record.note(|event| event.request = Some(content));
    }
    let mut cx = Cx {
        api,
        entry,
        target,
        query,
        user,
        headers: parts.headers,
        output,
        now: jiff::Timestamp::now(),
        warnings: vec![],
        notes: notes.clone(),
        own: false,
        pieces: Pieces::default(),
        conversions: Conversions::default(),
    };
    cx.warnings.extend(deprecated(&resource).map(str::to_owned));
    if let Some(custom) = &resource.custom
        && custom.deprecated
    {
        cx.warnings
            .push(custom.deprecation_warning.clone().unwrap_or_else(|| {
                format!("{} {} is deprecated", resource.api_version(), resource.kind)
            }));
    }
    if matches!(verb, "get" | "list" | "watch") {
        return Ok(Box::pin(carry_out(cx, verb, body)).await);
    }
    // When the client goes away in the middle of a write, what follows the commit (the registry, the
    // index of roles, given addresses) must not be left undone.
    let outcome = match in_process {
        // Clients in this process may wait for many requests in one task.
        true => tokio::spawn(carry_out(cx, verb, body)).await.ok(),
        false => Lasting::new(carry_out(cx, verb, body)).await.ok(),
    };
    tell(trace, &notes);
    outcome.ok_or_else(|| {
        trace.panicked = true;
        errors::internal("the handler ended")
    })
}

/// Puts what admission said into the record.
fn tell(trace: &mut Trace, notes: &audit::Notes) {
    if let Some(record) = &mut trace.record {
        record.note(|event| event.annotations.extend(notes.take()));
    }
}

/// What every answer about a built-in kind out of use says.
fn deprecated(resource: &Resource) -> Option<&'static str> {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

async fn carry_out(mut cx: Cx, verb: &'static str, body: Bytes) -> Reply {
    let reply = rest::dispatch(&mut cx, verb, body).await;
    let accept = cx.headers.get(header::ACCEPT);
    let mut reply = reply.unwrap_or_else(|failure| respond::failure(&failure, accept));
    respond::warn(&mut reply, &cx.warnings);
    reply
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

async fn authenticate(api: &Api, parts: &Parts) -> Result<Arc<UserInfo>, Failure> {
    if let Some(user) = parts.extensions.get::<Arc<UserInfo>>() {
        return Ok(user.clone());
    }
    let shown = parts.extensions.get::<Shown>();
    if let Some(user) = shown.and_then(|shown| api.authenticator.proxied(shown, &parts.headers)) {
        return Ok(user);
    }
    // A certificate goes before a token; one that is not trusted leaves it to the token.
    if let Some(user) = shown.and_then(|shown| api.authenticator.certificate(shown)) {
        return Ok(user);
    }
    let bearer = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    match bearer {
        None | Some("") => {
            let unknown = shown.is_some() && api.authenticator.asked_for().is_some();
            if unknown || !api.authenticator.lets_on(parts.uri.path()) {
                return Err(errors::unauthorized());
            }
            Ok(Arc::new(UserInfo::anonymous()))
        }
        Some(token) => match api.authenticator.token(&api.store, token, &[]).await {
            Ok(known) => Ok(known.user),
            Err(_) => Err(errors::unauthorized()),
        },
    }
}

/// 403 in the words of Kubernetes.
pub fn refused(user: &UserInfo, a: &Attributes<'_>, reason: &str) -> Failure {
    let mut why = authz::refusal(user, a);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    if a.path.is_some() {
        return Failure::new(403, "Forbidden", format!("forbidden: {why}"))
            .with_details(Details::default());
    }
    let mut subject = a.resource.to_owned();
    if !a.group.is_empty() {
        subject = format!("{subject}.{}", a.group);
    }
    if !a.name.is_empty() {
        subject = format!("{subject} \"{}\"", a.name);
    }
    Failure::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).with_details(Details {
        name: a.name.to_owned(),
        group: a.group.to_owned(),
        kind: a.resource.to_owned(),
        ..Details::default()
    })
}

/// A path below /api or /apis that names no served resource.
fn missing(registry: &Registry, target: &Target) -> Result<Reply, Failure> {
    if registry.group(&target.group).is_none() {
        return Ok(respond::text(404, "404 page not found\n"));
    }
    Err(errors::no_such_path())
}

fn nonresource(api: &Arc<Api>, parts: &Parts, path: &str, query: &Query) -> Result<Reply, Failure> {
    if let Some(reply) = health::serve(api, path, query) {
        return Ok(reply);
    }
    if let Some(reply) = metrics::serve(api, path) {
        return Ok(reply);
    }
    if let Some(reply) = discovery::serve(api, &parts.method, path, &parts.headers) {
        return reply;
    }
    if let Some(reply) = crate::openapi::serve(api, path, query, &parts.headers) {
        return reply;
    }
    Ok(respond::text(404, "404 page not found\n"))
}
