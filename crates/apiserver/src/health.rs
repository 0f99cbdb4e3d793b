//! Health, version and the few other paths that need no resource.

use std::sync::Arc;

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
        ".well-known" if parts.next() == Some("openid-configuration") => Some(respond::json(
            200,
            &json!({
                "issuer": api.authenticator.issuer,
                "jwks_uri": format!("{}/openid/v1/jwks", api.authenticator.issuer),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
        )),
        "openid" if path == "/openid/v1/jwks" => {
            Some(respond::json(200, &api.authenticator.jwks()))
        }
        _ => None,
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
