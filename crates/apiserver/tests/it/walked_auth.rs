//! What the tests of test/integration/auth ask of tokens and of paths, as far as walking through them found it missing.

use gantry_apiserver::{Authentication, Config, Server};
use gantry_store::{Options, Store};
use serde_json::{Value, json};

use crate::asking::{ask, ask_as, ask_raw, start};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// `TestServiceAccountAnnotationDeprecation`.
#[tokio::test]
async fn an_account_that_bounds_its_secrets_is_warned_of() {
    let server = start().await;
    let client = server.client();
    let account = |annotation: &str| {
        let meta = json!({"name": "a", "annotations": {annotation: "true"}});
        json!({"metadata": meta}).to_string()
    };
    let enforced = account("kubernetes.io/enforce-mountable-secrets");
    let warning = "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    let named = format!("{ACCOUNTS}/a");
    for (method, path, body, warnings) in [
        ("POST", ACCOUNTS, &account("other"), &[][..]),
        ("PUT", &named, &enforced, &[warning]),
        // It was there before.
        ("PUT", &named, &enforced, &[]),
    ] {
        let (code, said, answer) = ask_raw(&client, method, path, "application/json", body).await;
        assert!(code < 300, "{answer}");
        assert_eq!(said, warnings, "{method}");
    }
    server.shutdown().await;
}

/// `TestServiceAccountTokenCreate`: tokens that live longer than they may be asked for, one for another account, and
/// what those read who check tokens.
#[tokio::test]
async fn tokens_of_accounts() {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        authentication: Authentication {
            longest_token: Some(7200),
            ..Default::default()
        },
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts");
    let client = server.client();
    let account = json!({"metadata": {"name": "a"}});
    let (_, account) = ask(&client, "POST", ACCOUNTS, account).await;
    let pods = "/api/v1/namespaces/default/pods";
    let spec = json!({"serviceAccountName": "a", "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    assert_eq!(ask(&client, "POST", pods, pod).await.0, 201);

    let tokens = format!("{ACCOUNTS}/a/token");
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "p"});
    let request = |meta: Value, spec: Value| json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": meta, "spec": spec});
    let spec = json!({"boundObjectRef": reference, "expirationSeconds": 3607});
    let (code, answer) = ask(&client, "POST", &tokens, request(json!({}), spec)).await;
    assert_eq!(code, 201, "{answer}");
    let claims = claims(answer["status"]["token"].as_str().unwrap_or_default());
    let life = claims["exp"].as_i64().zip(claims["iat"].as_i64());
    assert_eq!(life.map(|(e, i)| e - i), Some(365 * 86_400), "{claims}");
    assert_eq!(answer["spec"]["expirationSeconds"], 3607);

    let other = request(json!({"uid": "other"}), json!({}));
    let (code, answer) = ask(&client, "POST", &tokens, other).await;
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
    let why = format!(
        "Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"a\": the UID in the token request (other) does not match the UID of the service account ({uid})"
    );
    assert_eq!((code, &answer["message"]), (409, &json!(why)));

    for (path, kind) in [
        ("/.well-known/openid-configuration", "application/json"),
        ("/openid/v1/jwks", "application/jwk-set+json"),
    ] {
        let media = ("application/json", "application/json");
        let (code, headers, _) = ask_as(&client, "GET", path, media, Value::Null).await;
        assert_eq!(code, 200);
        assert_eq!(headers["content-type"], kind);
        assert_eq!(headers["cache-control"], "public, max-age=3600");
    }
    server.shutdown().await;
}

fn claims(token: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = token.split('.').nth(1).unwrap_or_default();
    let part = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&part).unwrap_or_default()
}

/// `TestAuthModeAlwaysAllow`: what can only be created has no place for an object.
#[tokio::test]
async fn there_is_no_path_to_a_binding() {
    let server = start().await;
    let client = server.client();
    let bindings = "/api/v1/namespaces/default/bindings";
    for (method, path, wanted) in [
        ("GET", bindings.to_owned(), 405),
        ("GET", format!("{bindings}/a"), 404),
        ("PUT", format!("{bindings}/a"), 404),
        ("DELETE", format!("{bindings}/a"), 404),
    ] {
        let (code, said) = ask(&client, method, &path, json!({})).await;
        assert_eq!(code, wanted, "{method} {path}: {said}");
    }
    server.shutdown().await;
}
