//! Health, version and the few other paths that need no resource.

use std::sync::Arc;

use http::{HeaderValue, header};
use serde_json::json;

use crate::{
    api::Api,
    pretty,
    request::Query,
    respond::{self, Reply},
};

pub const CHECKS: [&str; 3] = ["ping", "log", "etcd"];

pub fn serve(api: &Arc<Api>, path: &str, query: &Query) -> Option<Reply> {
    let mut parts = path.trim_matches('/').split('/');
    let first = parts.next()?;
    let accounts = &api.authenticator.accounts;
    match first {
        "healthz" | "livez" | "readyz" => {
            let ready = first != "readyz" || !api.stop.is_cancelled();
            Some(match parts.next() {
                None if !ready => respond::text(500, "shutdown: stopping\n"),
                None if query.get("verbose").is_some() => {
                    let lines: String = CHECKS.iter().map(|c| format!("[+]{c} ok\n")).collect();
                    respond::bytes(200, respond::TEXT, format!("{lines}{first} check passed\n"))
                }
                None => respond::text(200, "ok"),
                Some(check) if CHECKS.contains(&check) && parts.next().is_none() => {
                    respond::text(200, "ok")
                }
                Some(_) => respond::text(404, "404 page not found\n"),
            })
        }
        "version" if parts.next().is_none() => {
            // For eyes, whoever asks.
            Some(pretty::print(respond::json(200, &version(api))))
        }
        ".well-known" if parts.next() == Some("openid-configuration") => Some(published(
            respond::JSON,
            &json!({
                "issuer": accounts.issuer(),
                "jwks_uri": jwks_uri(api),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": accounts.algorithms(),
            }),
        )),
        "openid" if path == "/openid/v1/jwks" => {
            Some(published("application/jwk-set+json", &accounts.jwks()))
        }
        _ => None,
    }
}

/// What those who check tokens read, and may keep for an hour.
fn published(kind: &'static str, document: &serde_json::Value) -> Reply {
    let mut reply = respond::bytes(200, kind, document.to_string());
    let hour = HeaderValue::from_static("public, max-age=3600");
    reply.headers_mut().insert(header::CACHE_CONTROL, hour);
    reply
}

/// Where the keys of ServiceAccount tokens are: where it was said, else at this server.
fn jwks_uri(api: &Api) -> String {
    match &api.authenticator.jwks_uri {
        Some(uri) => uri.clone(),
        None => format!("https://{}/openid/v1/jwks", api.external),
    }
}

fn version(api: &Api) -> serde_json::Value {
    let v = &api.config.version;
    json!({
        "major": v.major, "minor": v.minor,
        "emulationMajor": v.major, "emulationMinor": v.minor,
        "minCompatibilityMajor": v.major, "minCompatibilityMinor": v.minor,
        "gitVersion": v.git_version, "gitCommit": v.git_commit, "gitTreeState": "clean",
        "buildDate": v.build_date, "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
