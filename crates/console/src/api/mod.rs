//! The HTTP API: the same views as JSON, for scripts.
//!
//! A request carries a session's cookie, or `Authorization: Bearer TOKEN` with a token of the hub. What
//! changes something is sent with the header `X-Gantry-CSRF` where it comes with a cookie.

mod openapi;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use gantry_api::Release;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    act,
    app::{App, Cx, body, peer, same_site, text},
    error::Fail,
    model::usage,
    page, routes, session,
    view::{Params, fleet, groups, nodes, policies, pools, quotas, releases, run, search},
};

pub use openapi::PATHS;

/// `GET /api/openapi.json`: no secret, and wanted before anyone has logged in.
pub async fn document(request: Request) -> Response {
    text(
        StatusCode::OK,
        "application/json",
        openapi::document().to_string(),
        request.headers(),
    )
}

/// Everything below `/api`.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let peer = peer(&request);
    let (parts, content) = request.into_parts();
    let headers = &parts.headers;
    let answer = async {
        let cx = Cx::of(&app, headers, peer).await?;
        let params = Params::parse(parts.uri.query().unwrap_or_default());
        // What is not in the document is not there.
        let method = if parts.method == Method::POST {
            "post"
        } else {
            "get"
        };
        let whole = parts.uri.path();
        if !PATHS
            .iter()
            .any(|(m, p)| *m == method && routes::fits(p, whole))
        {
            return Err(Fail::NotFound);
        }
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        match parts.method {
            Method::GET | Method::HEAD => get(&cx, &path, &params).await,
            Method::POST => {
                if !cx.session.bearer {
                    let token = headers
                        .get("x-gantry-csrf")
                        .and_then(|v| v.to_str().ok())
                        .unwrap_or_default();
                    if !same_site(headers) || !session::same(token, &cx.session.csrf) {
                        return Err(Fail::Forbidden(
                            "the header X-Gantry-CSRF is missing or wrong".to_owned(),
                        ));
                    }
                }
                let bytes = body(content).await?;
                let value: Value = if bytes.is_empty() {
                    json!({})
                } else {
                    serde_json::from_slice(&bytes)
                        .map_err(|e| Fail::Bad(format!("the body is no JSON: {e}")))?
                };
                post(&cx, &path, &value).await
            }
            _ => Err(Fail::NotFound),
        }
    };
    match answer.await {
        Ok(value) => text(
            StatusCode::OK,
            "application/json",
            value.to_string(),
            headers,
        ),
        Err(fail) => problem(&fail),
    }
}

/// An error as RFC 9457 has it.
fn problem(fail: &Fail) -> Response {
    let status = fail.status();
    let title = status.canonical_reason().unwrap_or("error");
    let mut response = (
        status,
        Json(json!({"title": title, "status": status.as_u16(), "detail": fail.detail()})),
    )
        .into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn value(of: &impl serde::Serialize) -> Result<Value, Fail> {
    serde_json::to_value(of).map_err(|e| Fail::Upstream(e.to_string()))
}

async fn get(cx: &Cx, path: &[&str], params: &Params) -> Result<Value, Fail> {
    match path {
        ["api", "v1", "me"] => Ok(
            json!({"user": cx.session.name(), "groups": cx.session.user.groups, "csrf": cx.session.csrf}),
        ),
        ["api", "v1", "fleet"] => {
            let state = cx.app.model.read();
            let (problems, total) = fleet::problems(&state, &cx.sight, cx.now, 100);
            Ok(
                json!({"counts": fleet::counts(&state, &cx.sight), "problems": problems, "problemsTotal": total}),
            )
        }
        ["api", "v1", "clusters"] if cx.sight.clusters => {
            let all = fleet::clusters(&cx.app.model.read());
            Ok(json!({"items": all}))
        }
        ["api", "v1", "pools"] if cx.sight.nodes && cx.sight.policies => {
            let all = pools::pools(&cx.app.model.read());
            Ok(json!({"items": all}))
        }
        ["api", "v1", "tenants"] => {
            let all = groups::tenants(&cx.app.model.read(), &cx.sight);
            Ok(json!({"items": all}))
        }
        ["api", "v1", "groups"] => value(&groups::groups(&cx.app.model.read(), &cx.sight, params)),
        ["api", "v1", "groups", tenant, name] => {
            page::group::seen(cx, tenant, name).await?;
            let key = ((*tenant).to_owned(), (*name).to_owned());
            let row = groups::row(&cx.app.model.read(), &key, cx.sight.releases.see(tenant));
            value(&row.ok_or(Fail::NotFound)?)
        }
        ["api", "v1", "groups", tenant, name, "instances"] => {
            page::group::seen(cx, tenant, name).await?;
            let key = ((*tenant).to_owned(), (*name).to_owned());
            value(&groups::instances(&cx.app.model.read(), &key, params))
        }
        ["api", "v1", "groups", tenant, name, "usage"] => {
            page::group::seen(cx, tenant, name).await?;
            let key = ((*tenant).to_owned(), (*name).to_owned());
            cx.app.model.look(&key, &cx.app.stop, &cx.app.tasks);
            let names: Vec<String> = {
                let state = cx.app.model.read();
                state.instances(&key).map(|(_, i)| i.name.clone()).collect()
            };
            let found = cx
                .app
                .model
                .usage
                .of(&key, names.iter().map(String::as_str));
            Ok(json!({"everySeconds": usage::EVERY.as_secs(), "instances": found}))
        }
        ["api", "v1", "groups", tenant, name, "revisions"] => {
            page::group::seen(cx, tenant, name).await?;
            let all = page::revisions::kept(cx, tenant, name).await?;
            let items: Vec<Value> = all
                .values()
                .map(|r| json!({"revision": r.number, "digest": r.digest, "spec": r.spec}))
                .collect();
            Ok(json!({"items": items}))
        }
        ["api", "v1", "releases"] => {
            value(&releases::releases(&cx.app.model.read(), &cx.sight, params))
        }
        ["api", "v1", "releases", tenant, name] => {
            let release = page::release_seen(cx, tenant, name).await?;
            Ok(json!({
                "release": releases::row(&release),
                "batches": page::release_columns(cx, &release, tenant),
                "moments": run::moments(&release),
                "buttons": buttons(&release),
            }))
        }
        ["api", "v1", "nodes"] if cx.sight.nodes => {
            value(&nodes::nodes(&cx.app.model.read(), params))
        }
        ["api", "v1", "nodes", "at"] if cx.sight.nodes => {
            let index = params.number("index").ok_or(Fail::NotFound)?;
            let row = nodes::at(
                &cx.app.model.read(),
                params.get("cluster"),
                params.get("cell"),
                index,
            );
            value(&row.ok_or(Fail::NotFound)?)
        }
        ["api", "v1", "nodes", cluster, name] => {
            let (row, instances, _) = page::node_seen(cx, cluster, name)?;
            Ok(json!({"node": row, "instances": instances}))
        }
        ["api", "v1", "instances", cluster, tenant, name] => {
            value(&*page::instance_seen(cx, cluster, tenant, name)?)
        }
        ["api", "v1", "instances", cluster, tenant, name, "placement"] => {
            value(&act::trial::explain(cx, cluster, tenant, name).await?)
        }
        ["api", "v1", "policies"] if cx.sight.policies => {
            value(&policies::policies(&cx.app.model.read(), params))
        }
        ["api", "v1", "quotas"] => {
            let sees = page::quotas::sees(cx).await;
            value(&quotas::quotas(&cx.app.model.read(), &sees, params))
        }
        ["api", "v1", "records"] => value(&page::records::found(cx, params).await?),
        ["api", "v1", "search"] => {
            let hits = search::search(&cx.app.model.read(), &cx.sight, params.get("q"), 20);
            Ok(json!({"items": hits}))
        }
        _ => Err(Fail::NotFound),
    }
}

fn buttons(release: &Release) -> Vec<&'static str> {
    run::Press::ALL
        .into_iter()
        .filter(|p| p.useful(release))
        .map(run::Press::name)
        .collect()
}

/// A JSON body as the form of the page that does the same.
fn form(value: &Value) -> Params {
    let text = |v: &Value| match v {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let mut all = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) => all.extend(list.iter().map(|v| (key.clone(), text(v)))),
            Value::Null => {}
            one => all.push((key.clone(), text(one))),
        }
    }
    Params(all)
}

async fn post(cx: &Cx, path: &[&str], sent: &Value) -> Result<Value, Fail> {
    match path {
        ["api", "v1", "groups", tenant, name, "scale"] => {
            page::group::seen(cx, tenant, name).await?;
            let replicas = sent["replicas"]
                .as_i64()
                .and_then(|n| i32::try_from(n).ok())
                .filter(|n| *n >= 0);
            let replicas =
                replicas.ok_or_else(|| Fail::Bad("replicas: a number from 0 on".to_owned()))?;
            act::group::scale(cx, tenant, name, replicas).await?;
            Ok(json!({"replicas": replicas}))
        }
        [
            "api",
            "v1",
            "groups",
            tenant,
            name,
            verb @ ("plan" | "releases"),
        ] => {
            let group = page::group::seen(cx, tenant, name).await?;
            let spec = page::plan::wish(&group, &form(sent), cx.session.name())?;
            if *verb == "releases" {
                let name = act::release::start(cx, &group, spec).await?;
                return Ok(json!({"tenant": tenant, "name": name}));
            }
            let seen = page::plan::look(cx, &group, spec).await?;
            Ok(
                json!({"from": seen.from.number, "target": seen.target.number, "plan": seen.plan, "summary": seen.summary, "problems": seen.problems, "waits": seen.waits}),
            )
        }
        ["api", "v1", "releases", tenant, name, action] => {
            let press = run::Press::named(action).ok_or(Fail::NotFound)?;
            page::release_seen(cx, tenant, name).await?;
            let told = act::release::press(cx, tenant, name, press, &form(sent)).await?;
            Ok(json!({"message": told}))
        }
        ["api", "v1", "groups", tenant, name, "instances"] => {
            let group = page::group::seen(cx, tenant, name).await?;
            let form = form(sent);
            let wish = act::wish::Wish::read(form.get("verb"), form.get("to"))
                .ok_or_else(|| Fail::Bad("verb: pull-out, put-back, restart or move".to_owned()))?;
            let names: Vec<String> = form.all("instances").map(str::to_owned).collect();
            if names.is_empty() {
                return Err(Fail::Bad("instances: name at least one".to_owned()));
            }
            act::wish::take(cx, &group, &names, &wish, form.get("reason")).await?;
            Ok(json!({"verb": wish.name(), "instances": names}))
        }
        ["api", "v1", "policies", "trial"] if cx.sight.policies => {
            let found = page::policies::trials(cx, &form(sent)).await;
            if found.is_empty() {
                return Err(Fail::Bad("cluster: name at least one".to_owned()));
            }
            let mut items = Vec::new();
            for (cluster, end) in found {
                let mut one = value(&end?)?;
                one["cluster"] = json!(cluster);
                items.push(one);
            }
            Ok(json!({"items": items}))
        }
        ["api", "v1", "nodes", cluster, name, action] => {
            let told = act::node::act(cx, cluster, name, action).await?;
            Ok(json!({"message": told}))
        }
        _ => Err(Fail::NotFound),
    }
}
