//! Logging in and out: with a credential, by the link of the start, with the identity provider.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use k8s_openapi::api::authentication::v1::UserInfo;
use tracing::info;

use crate::{
    app::{App, body, failed, html_answer, inside, peer, same_site, to, with_cookie},
    credential::{self, Credential},
    error::Fail,
    messages::M,
    oidc, page,
    prefs::{Prefs, cookie},
    session,
    view::Params,
};

/// The form.
pub async fn login_page(State(app): State<Arc<App>>, request: Request) -> Response {
    let headers = request.headers();
    let prefs = Prefs::of(headers);
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let code = params.get("code");
    if !code.is_empty() {
        return match door(&app, code, peer(&request)).await {
            Ok(cookie) => with_cookie(to("/"), &cookie),
            Err(_) => html_answer(
                StatusCode::FORBIDDEN,
                page::login::page(
                    &prefs,
                    "/",
                    Some(M::LoginDoorUsed.text(prefs.lang)),
                    host_of(&app),
                ),
                headers,
            ),
        };
    }
    let ended = M::SessionEnded.text(prefs.lang);
    let why = (params.get("ended") == "1").then_some(ended);
    html_answer(
        StatusCode::OK,
        page::login::page(&prefs, inside(params.get("next")), why, host_of(&app)),
        headers,
    )
}

fn host_of(app: &App) -> Option<&str> {
    app.oidc.as_deref().map(oidc::Provider::host)
}

/// Lets the first visitor with the door's code in, as the console itself.
async fn door(app: &App, code: &str, peer: Option<IpAddr>) -> Result<String, Fail> {
    app.sessions.brake(peer, std::time::Instant::now())?;
    {
        let mut door = app.door.lock();
        if !door
            .as_deref()
            .is_some_and(|right| session::same(right, code))
        {
            return Err(Fail::Login);
        }
        *door = None;
    }
    let client = app.model.client.clone();
    let user: UserInfo = credential::who(&client).await?;
    let (id, session) = app.sessions.open(user, client)?;
    info!(target: "gantry_console::audit", user = session.name(), ?peer, "login by the link of this start");
    Ok(session::set_cookie(&id))
}

/// The form was sent.
pub async fn login(State(app): State<Arc<App>>, request: Request) -> Response {
    let peer = peer(&request);
    let (parts, content) = request.into_parts();
    let headers = &parts.headers;
    let prefs = Prefs::of(headers);
    let form = match body(content).await {
        Ok(bytes) => Params::parse(&String::from_utf8_lossy(&bytes)),
        Err(fail) => return failed(&prefs, &fail, headers),
    };
    let next = inside(form.get("next")).to_owned();
    let entered = async {
        if !same_site(headers) {
            return Err(Fail::Forbidden(M::ErrorCsrf.text(prefs.lang).to_owned()));
        }
        let credential = Credential::read(&form.text("credential"))?;
        app.sessions.login(&credential, &app.hub, peer).await
    };
    match entered.await {
        Ok((id, session)) => {
            info!(target: "gantry_console::audit", user = session.name(), ?peer, "login");
            with_cookie(to(&next), &session::set_cookie(&id))
        }
        Err(fail) => {
            info!(target: "gantry_console::audit", ?peer, "login refused");
            let why = match &fail {
                Fail::Login => M::LoginUnknown.text(prefs.lang),
                Fail::TooMany => M::LoginTooMany.text(prefs.lang),
                other => other.detail(),
            };
            let status = if fail == Fail::TooMany {
                fail.status()
            } else {
                StatusCode::UNAUTHORIZED
            };
            html_answer(
                status,
                page::login::page(&prefs, &next, Some(why), host_of(&app)),
                headers,
            )
        }
    }
}

/// To the identity provider.
pub async fn oidc_begin(State(app): State<Arc<App>>, request: Request) -> Response {
    let headers = request.headers();
    let prefs = Prefs::of(headers);
    let Some(provider) = &app.oidc else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let host = host
        .or(request.uri().authority().map(|a| a.as_str()))
        .unwrap_or_default();
    match provider.begin(host, inside(params.get("next"))).await {
        Ok((place, state)) => with_cookie(to(&place), &oidc::set_cookie(&state)),
        Err(fail) => failed(&prefs, &fail, headers),
    }
}

/// Back from the identity provider.
pub async fn oidc_end(State(app): State<Arc<App>>, request: Request) -> Response {
    let peer = peer(&request);
    let headers = request.headers();
    let prefs = Prefs::of(headers);
    let Some(provider) = &app.oidc else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let kept = cookie(headers, oidc::COOKIE).unwrap_or_default();
    let entered = async {
        let (entered, next) = provider.finish(kept, &params).await?;
        let (id, session) = app.sessions.enter(entered, &app.hub, peer).await?;
        Ok::<_, Fail>((id, session, next))
    };
    let response = match entered.await {
        Ok((id, session, next)) => {
            info!(target: "gantry_console::audit", user = session.name(), ?peer, "login with the identity provider");
            // Not a redirect: the browser comes from another site, and would not send the session's cookie
            // (SameSite=Strict) along. From a page of ours it does.
            let page = page::login::onward(&prefs, inside(&next));
            with_cookie(
                html_answer(StatusCode::OK, page, headers),
                &session::set_cookie(&id),
            )
        }
        Err(fail) => {
            info!(target: "gantry_console::audit", ?peer, why = fail.detail(), "login refused");
            let why = match &fail {
                Fail::Login => M::LoginUnknown.text(prefs.lang),
                Fail::TooMany => M::LoginTooMany.text(prefs.lang),
                other => other.detail(),
            };
            let page = page::login::page(&prefs, "/", Some(why), Some(provider.host()));
            html_answer(StatusCode::UNAUTHORIZED, page, headers)
        }
    };
    with_cookie(response, &oidc::clear_cookie())
}

/// Ends the session.
pub async fn logout(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, content) = request.into_parts();
    let Ok(session) = app.sessions.of(&parts.headers, &app.hub, None).await else {
        return with_cookie(to("/login"), &session::clear_cookie());
    };
    let Ok(bytes) = body(content).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let form = Params::parse(&String::from_utf8_lossy(&bytes));
    if !same_site(&parts.headers) || !session::same(form.get("csrf"), &session.csrf) {
        return StatusCode::FORBIDDEN.into_response();
    }
    app.sessions.logout(&parts.headers);
    info!(target: "gantry_console::audit", user = session.name(), "logout");
    with_cookie(to("/login"), &session::clear_cookie())
}
