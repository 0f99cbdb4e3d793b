//! What requests share, and where each goes.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use flate2::Compression;
use gantry_records::Records;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use kube::Config;
use maud::{Markup, html};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    access::{Right, Sight},
    act, api, assets, enter,
    error::Fail,
    live,
    messages::M,
    model::{Key, Model},
    oidc,
    page::{self, Page},
    prefs::{Lang, Prefs, cookie, with_favourite},
    routes,
    server::Peer,
    session::{self, Session, Sessions},
    view::Params,
};

pub use api::PATHS as API_PATHS;

/// Questions at once that each read a whole member.
const HEAVY: usize = 2;
/// A form or an object's YAML is smaller.
const LONGEST_BODY: usize = 1024 * 1024;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What requests share.
pub struct App {
    /// The reading models.
    pub model: Arc<Model>,
    /// The hub: where users' clients go.
    pub hub: Config,
    /// Who is logged in.
    pub sessions: Sessions,
    /// Pages that are kept current.
    pub rooms: live::Rooms,
    /// Records of what was done, where they are kept.
    pub records: Option<Arc<dyn Records>>,
    /// The identity provider, where there is one.
    pub oidc: Option<Arc<oidc::Provider>>,
    /// Turns of what reads a whole member to answer one question.
    pub heavy: Semaphore,
    /// Places for open terminals.
    pub terminals: Arc<Semaphore>,
    /// Ends everything.
    pub stop: CancellationToken,
    /// Work that goes on beside requests.
    pub tasks: TaskTracker,
    /// The code of the link of this start, until somebody has used it.
    pub door: Mutex<Option<String>>,
}

impl App {
    /// With the code of the door, if there is one.
    pub fn new(
        model: Arc<Model>,
        hub: Config,
        door: bool,
        (records, oidc): (Option<Arc<dyn Records>>, Option<Arc<oidc::Provider>>),
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> (Arc<Self>, Option<String>) {
        let code = door.then(|| session::random().ok()).flatten();
        let app = Self {
            model,
            hub,
            sessions: Sessions::new(oidc.clone()),
            rooms: live::Rooms::default(),
            records,
            oidc,
            heavy: Semaphore::new(HEAVY),
            terminals: Arc::new(Semaphore::new(act::exec::TERMINALS)),
            stop,
            tasks,
            door: Mutex::new(code.clone()),
        };
        (Arc::new(app), code)
    }
}

/// One request of someone who is logged in.
#[derive(Clone)]
pub struct Cx {
    /// What requests share.
    pub app: Arc<App>,
    /// Who asks.
    pub session: Arc<Session>,
    /// What they see.
    pub sight: Arc<Sight>,
    /// What they have chosen.
    pub prefs: Arc<Prefs>,
    /// When.
    pub now: Timestamp,
}

impl Cx {
    /// Of a request.
    ///
    /// # Errors
    /// If nobody is logged in.
    pub async fn of(
        app: &Arc<App>,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Self, Fail> {
        let session = app.sessions.of(headers, &app.hub, peer).await?;
        let prefs = Arc::new(Prefs::of(headers));
        Ok(Self::with(app, session, prefs).await)
    }

    /// Of a session.
    pub async fn with(app: &Arc<App>, session: Arc<Session>, prefs: Arc<Prefs>) -> Self {
        Self {
            sight: Sight::of(&session, &app.model).await,
            app: app.clone(),
            session,
            prefs,
            now: Timestamp::now(),
        }
    }

    /// A text in the user's language.
    pub fn t(&self, message: M) -> &'static str {
        message.text(self.prefs.lang)
    }

    /// A text with `{}` filled in, in order.
    pub fn f(&self, message: M, values: &[&dyn std::fmt::Display]) -> String {
        message.fill(self.prefs.lang, values)
    }

    /// Whether they may.
    pub async fn may(&self, right: Right) -> bool {
        self.session.may(right).await
    }

    /// Whether they may do something to what runs on a member: as the hub says, or as the member itself says
    /// of them, which is where the roles of Tenants give rights on pods.
    pub async fn may_on(&self, cluster: &str, right: Right) -> bool {
        if self.may(right.clone()).await {
            return true;
        }
        let Ok(client) = act::instance::writer(self, cluster) else {
            return false;
        };
        self.session.may_at(cluster, &client, right).await
    }

    /// The same of a Group's pods: on one of the members that hold them.
    pub async fn may_on_any(&self, key: &Key, right: Right) -> bool {
        if self.may(right.clone()).await {
            return true;
        }
        let members: Vec<String> = {
            let state = self.app.model.read();
            let all = state.members.iter();
            all.filter(|(_, m)| m.of_group(key).next().is_some())
                .map(|(name, _)| name.clone())
                .collect()
        };
        for member in members {
            if self.may_on(&member, right.clone()).await {
                return true;
            }
        }
        false
    }

    /// The audit line of a write.
    pub fn audit(&self, action: &str, object: &str, end: &Result<impl Sized, Fail>) {
        let outcome = match end {
            Ok(_) => "done",
            Err(fail) => fail.detail(),
        };
        info!(target: "gantry_console::audit", user = self.session.name(), action, object, outcome, "write");
    }
}

#[cfg(test)]
impl Cx {
    /// Of someone who sees everything, over a model that nothing feeds: for tests of pages.
    pub fn still(state: crate::model::State, lang: Lang) -> Self {
        let hub = Config::new("https://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(hub.clone()).unwrap();
        let model = Model::still(client.clone(), state);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (app, _) = App::new(model, hub, false, (None, None), stop, tasks);
        let user = k8s_openapi::api::authentication::v1::UserInfo {
            username: Some("alice".to_owned()),
            ..Default::default()
        };
        let prefs = Prefs {
            lang,
            ..Prefs::default()
        };
        Self {
            app,
            session: Arc::new(Session::new(user, client, false).unwrap()),
            sight: Arc::new(Sight::everything()),
            prefs: Arc::new(prefs),
            now: "2026-11-27T08:00:00Z".parse().unwrap(),
        }
    }
}

/// All routes. Pages are found by [`page::find`], so that the stream of changes finds the same ones.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/assets/{file}", get(asset))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/login", get(enter::login_page).post(enter::login))
        .route("/login/oidc", get(enter::oidc_begin))
        .route(oidc::CALLBACK, get(enter::oidc_end))
        .route("/logout", post(enter::logout))
        .route("/prefs", post(set_prefs))
        .route("/favourites", post(set_favourite))
        .route("/live", get(live::stream))
        .route(routes::LOGS, get(act::logs::stream))
        .route(routes::GROUP_LOGS, get(act::logs::of_group))
        .route(routes::EXEC, get(act::exec::open))
        .route(routes::EXPORT, get(act::export::records))
        .route("/api/openapi.json", get(api::document))
        .route("/api", any(api::handle))
        .route("/api/{*rest}", any(api::handle))
        .fallback(pages)
        .layer(middleware::from_fn(guard))
        .with_state(app)
}

/// Headers that every answer carries.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "same-origin");
    set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    set(
        header::HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(
        header::HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn asset(request: Request) -> Response {
    let Some(found) = assets::find(request.uri().path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let zipped = takes_gzip(request.headers());
    let body = if zipped {
        found.gzip.clone()
    } else {
        found.plain.clone()
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(found.kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if zipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether the client takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.contains("gzip"))
}

/// An answer with a text; compressed where it is worth it. That a session's cookie is never sent along
/// from another site (`SameSite=Strict`) is what makes that safe beside a secret.
pub fn text(status: StatusCode, kind: &'static str, body: String, headers: &HeaderMap) -> Response {
    let zipped = body.len() > 1024 && takes_gzip(headers);
    let bytes = if zipped {
        assets::gzip(body.as_bytes(), Compression::fast())
    } else {
        Bytes::from(body)
    };
    let mut response = (status, bytes).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if zipped {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// A page as an answer.
pub fn html_answer(status: StatusCode, body: Markup, headers: &HeaderMap) -> Response {
    text(
        status,
        "text/html; charset=utf-8",
        body.into_string(),
        headers,
    )
}

/// To another page, by GET.
pub fn to(place: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(value) = HeaderValue::from_str(place) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// The same with a cookie.
pub fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

/// Who is at the other end.
pub fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|p| p.0)
}

/// The body, bounded.
///
/// # Errors
/// If it is too long or breaks off.
pub async fn body(body: Body) -> Result<Bytes, Fail> {
    let read = Limited::new(body, LONGEST_BODY).collect().await;
    Ok(read
        .map_err(|_| Fail::Bad("the request is too long".to_owned()))?
        .to_bytes())
}

/// Whether a write was sent by a page of this console: what browsers themselves say of it.
pub fn same_site(headers: &HeaderMap) -> bool {
    let get = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(site) = get("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    match (get("origin"), get("host")) {
        (Some(origin), Some(host)) => origin.strip_prefix("https://") == Some(host),
        // Neither: no browser. The token has still to be right.
        _ => true,
    }
}

/// A place inside of this console, or its first page.
pub fn inside(next: &str) -> &str {
    let plain =
        next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n']);
    if plain && next.is_ascii() { next } else { "/" }
}

/// To log in, and then back: to the page, or to that from which a form was sent.
fn to_login(method: &Method, place: &str, headers: &HeaderMap) -> Response {
    let get = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let from = || {
        let url: http::Uri = get(header::REFERER)?.parse().ok()?;
        url.path_and_query().map(|p| p.as_str().to_owned())
    };
    let next = match *method {
        Method::POST => from().unwrap_or_else(|| "/".to_owned()),
        _ => place.to_owned(),
    };
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    // Who comes with a session's cookie had one.
    let ended = if cookie(headers, session::COOKIE).is_some() {
        "&ended=1"
    } else {
        ""
    };
    to(&format!("/login?next={next}{ended}"))
}

async fn pages(State(app): State<Arc<App>>, request: Request) -> Response {
    let peer = peer(&request);
    let (parts, content) = request.into_parts();
    let headers = &parts.headers;
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let place = if query.is_empty() {
        path.clone()
    } else {
        format!("{path}?{query}")
    };
    let cx = match Cx::of(&app, headers, peer).await {
        Ok(cx) => cx,
        Err(Fail::Login) => return to_login(&parts.method, &place, headers),
        Err(fail) => return failed(&Prefs::of(headers), &fail, headers),
    };
    let params = Params::parse(query);
    match parts.method {
        Method::GET | Method::HEAD => match page::find(&cx, &path, &params).await {
            Ok(page) => shown(&cx, &page, &place, headers),
            Err(Fail::Login) => to_login(&parts.method, &place, headers),
            Err(fail) => {
                let body = page::frame::error(&cx, &fail);
                html_answer(
                    fail.status(),
                    page::frame::whole(&cx, &body, &place),
                    headers,
                )
            }
        },
        Method::POST => {
            let form = match body(content).await {
                Ok(bytes) => Params::parse(&String::from_utf8_lossy(&bytes)),
                Err(fail) => return failed(&cx.prefs, &fail, headers),
            };
            let token = headers.get("x-gantry-csrf").and_then(|v| v.to_str().ok());
            let token = token.unwrap_or(form.get("csrf"));
            if !same_site(headers) || !session::same(token, &cx.session.csrf) {
                let fail = Fail::Forbidden(cx.t(M::ErrorCsrf).to_owned());
                return html_answer(
                    fail.status(),
                    page::frame::whole(&cx, &page::frame::error(&cx, &fail), &place),
                    headers,
                );
            }
            match act::post(&cx, &path, &form).await {
                Ok(act::Done::Go(place, told)) => {
                    if let Some(told) = told {
                        *cx.session.told.lock() = Some(told);
                    }
                    to(&place)
                }
                Ok(act::Done::Piece(markup)) => html_answer(StatusCode::OK, markup, headers),
                Ok(act::Done::Answer(page)) => shown(&cx, &page, &place, headers),
                Ok(act::Done::Page(page)) => html_answer(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    page::frame::whole(&cx, &page, &place),
                    headers,
                ),
                Err(Fail::Login) => to_login(&parts.method, &place, headers),
                Err(fail) => html_answer(
                    fail.status(),
                    page::frame::whole(&cx, &page::frame::error(&cx, &fail), &place),
                    headers,
                ),
            }
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn shown(cx: &Cx, page: &Page, place: &str, headers: &HeaderMap) -> Response {
    html_answer(StatusCode::OK, page::frame::whole(cx, page, place), headers)
}

/// What went wrong, for who is not logged in.
pub fn failed(prefs: &Prefs, fail: &Fail, headers: &HeaderMap) -> Response {
    let body = page::frame::bare(prefs, M::ErrorTitle, &html! { p { (fail.detail()) } });
    html_answer(fail.status(), body, headers)
}

/// Language, theme and time zone: no secret, and wanted before anyone has logged in.
async fn set_prefs(request: Request) -> Response {
    let (parts, content) = request.into_parts();
    let Ok(bytes) = body(content).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if !same_site(&parts.headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let form = Params::parse(&String::from_utf8_lossy(&bytes));
    let now = Prefs::of(&parts.headers);
    let or = |name: &str, old: &str| {
        let new = form.get(name).to_owned();
        if new.is_empty() { old.to_owned() } else { new }
    };
    let prefs = Prefs::new(
        &or("lang", now.lang.code()),
        &or("theme", now.theme.code()),
        &or("zone", &now.zone_name),
    );
    with_cookie(to(inside(form.get("next"))), &prefs.set_cookie())
}

/// A Group as a favourite, or no longer: a choice of this browser, and no write to anything.
async fn set_favourite(request: Request) -> Response {
    let (parts, content) = request.into_parts();
    let Ok(bytes) = body(content).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if !same_site(&parts.headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let form = Params::parse(&String::from_utf8_lossy(&bytes));
    let now = Prefs::of(&parts.headers).favourites;
    let (tenant, name) = (form.get("tenant"), form.get("group"));
    let next = to(inside(form.get("next")));
    match with_favourite(&now, tenant, name, form.get("on") == "1") {
        Some(cookie) => with_cookie(next, &cookie),
        None => next,
    }
}

/// The languages there are, with their own names.
pub const LANGUAGES: [(Lang, &str); 2] = [(Lang::En, "English"), (Lang::Zh, "中文")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_inside() {
        for (next, want) in [
            ("/groups/a/b?x=1", "/groups/a/b?x=1"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
            ("", "/"),
        ] {
            assert_eq!(inside(next), want, "{next:?}");
        }
    }

    #[test]
    fn what_browsers_say_of_where_a_form_was_sent() {
        let headers = |list: &[(&'static str, &'static str)]| {
            let mut all = HeaderMap::new();
            for (name, value) in list {
                all.insert(*name, HeaderValue::from_static(value));
            }
            all
        };
        assert!(same_site(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(!same_site(&headers(&[("sec-fetch-site", "cross-site")])));
        assert!(!same_site(&headers(&[("sec-fetch-site", "same-site")])));
        assert!(same_site(&headers(&[
            ("origin", "https://a:1"),
            ("host", "a:1")
        ])));
        assert!(!same_site(&headers(&[
            ("origin", "https://b"),
            ("host", "a:1")
        ])));
    }
}
