//! The way of a request: authenticate, parse, authorize, look up, dispatch.

use std::sync::Arc;

use bytes::Bytes;
use gantry_machinery::{
    resource::Resource,
    status::{Details, Failure},
};
use http::{Method, header, request::Parts};
use http_body_util::BodyExt;

use crate::{
    aggregate,
    api::{Api, Cx},
    audit,
    authn::{self, UserInfo, certificate::Shown},
    authz::{self, Attributes},
    backup, discovery, errors, flow,
    handle::{Trace, read},
    health,
    impersonation::impersonate,
    lasting::Lasting,
    metrics::{self, labels},
    ownership::Conversions,
    proxy,
    registry::{Entry, Registry, version_order},
    request::{self, Query, Target},
    respond::{self, Output, Reply},
    rest,
    sealed::Pieces,
    web_socket,
};

/// Brings a request to what answers it.
pub async fn route<B>(
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
    offered(&resource, &target, verb)?;
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
                let (version, kind) = (resource.api_version(), &resource.kind);
                let instead = newer(&registry, &cx.entry)
                    .map_or_else(String::new, |newer| format!("; use {newer} {kind}"));
                format!("{version} {kind} is deprecated{instead}")
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

/// Whether a resource, or its subresource, knows the verb at such a path.
fn offered(resource: &Resource, target: &Target, verb: &str) -> Result<(), Failure> {
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
        // What can only be created, such as reviews, has no place for an object.
        let nameless = |verb: &String| matches!(verb.as_str(), "create" | "list" | "watch");
        if named && resource.verbs.iter().all(nameless) {
            return Err(errors::no_such_path());
        }
        // Where there is no such place, the server of definitions knows nothing of it.
        let nowhere = resource.custom.is_some() && matches!(verb, "create" | "deletecollection");
        if unplaced && (named || nowhere) {
            return Err(errors::no_such_path());
        }
        if !offered {
            return Err(errors::method_not_allowed());
        }
    } else {
        let Some(sub) = resource.subresource(&target.subresource) else {
            return Err(match resource.custom {
                Some(_) => errors::not_found(resource, &target.name),
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
    Ok(())
}

/// Puts what admission said into the record.
fn tell(trace: &mut Trace, notes: &audit::Notes) {
    if let Some(record) = &mut trace.record {
        record.note(|event| event.annotations.extend(notes.take()));
    }
}

/// The newest version of a custom resource that may be used in place of one out of use.
fn newer(registry: &Registry, entry: &Entry) -> Option<String> {
    let own = &entry.resource.version;
    let all = registry.sharing(&entry.bucket).iter().map(|e| &e.resource);
    let fresh = all.filter(|r| {
        let custom = r.custom.as_ref();
        custom.is_some_and(|c| c.served && !c.deprecated) && version_order(own, &r.version).is_lt()
    });
    let newest = fresh.max_by(|a, b| version_order(&a.version, &b.version))?;
    Some(newest.api_version())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every write under way takes that much, and it is copied as it starts.
    #[test]
    fn a_request_carries_no_room_for_what_it_does_not_do() {
        fn size<F>(_: fn(Cx, &'static str, Bytes) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(carry_out);
        assert!(bytes <= 2048, "{bytes} bytes");
    }
}
