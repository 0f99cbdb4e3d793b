//! Who is who in a whole cluster: certificates that are requested, approved and signed; tokens that
//! Secrets keep; roles that gather others.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_cluster::EmbeddedCluster;
use kube::Client;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, u16> {
    let media = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let bytes = if body.is_null() {
        vec![]
    } else {
        body.to_string().into_bytes()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(bytes)
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(e) => panic!("{method} {path}: {e:?}"),
    }
}

/// Reads an object until it is as wished.
async fn until(client: &Client, path: &str, wished: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = send(client, "GET", path, &Value::Null).await;
        if let Ok(object) = &found
            && wished(object)
        {
            return object.clone();
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{path} is not as wished: {found:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client over TLS without credentials.
fn outside(cluster: &EmbeddedCluster) -> kube::Config {
    let context = cluster.context();
    let mut config = kube::Config::new(context.server.parse().unwrap());
    let ca = CertificateDer::from_pem_slice(context.ca_pem.as_bytes()).unwrap();
    config.root_cert = Some(vec![ca.to_vec()]);
    config
}

async fn who(config: kube::Config) -> Result<Value, u16> {
    let client = Client::try_from(config).unwrap();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = send(&client, "POST", path, &review).await?;
    Ok(answer["status"]["userInfo"].clone())
}

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn signing_request(name: &str, signer: &str, group: &str, user: &str) -> (Value, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, user);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let object = json!({
        "metadata": {"name": name},
        "spec": {
            "request": STANDARD.encode(pem), "signerName": signer,
            "usages": ["client auth", "digital signature"],
        },
    });
    (object, key)
}

async fn cluster() -> EmbeddedCluster {
    EmbeddedCluster::builder()
        .nodes(vec![])
        .scheduler(false)
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_requested_approved_signed_and_used() {
    let cluster = cluster().await;
    let admin = cluster.client();
    let client_signer = "kubernetes.io/kube-apiserver-client";
    let (object, key) = signing_request("ann", client_signer, "dev", "ann");
    let made = send(&admin, "POST", REQUESTS, &object).await.unwrap();
    assert_eq!(made["spec"]["username"], "system:admin");
    let path = format!("{REQUESTS}/ann");
    let approved = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Test", "message": "by hand"},
    ]}});
    let approval = format!("{path}/approval");
    let approved = send(&admin, "PATCH", &approval, &approved).await.unwrap();
    let condition = &approved["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string(), "{condition}");
    // What was decided stays.
    let none = json!({"status": {"conditions": []}});
    assert_eq!(send(&admin, "PATCH", &approval, &none).await, Err(422));
    let signed = until(&admin, &path, |o| o["status"]["certificate"].is_string()).await;
    let mut config = outside(&cluster);
    let certificate = signed["status"]["certificate"].as_str().unwrap();
    config.auth_info.client_certificate_data = Some(certificate.to_owned());
    config.auth_info.client_key_data = Some(STANDARD.encode(key.serialize_pem()).into());
    let user = who(config).await.unwrap();
    assert_eq!(user["username"], "ann");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    // Nobody becomes a master that way, and what cannot be signed is said to have failed.
    let (masters, _) = signing_request("m", client_signer, "system:masters", "m");
    assert_eq!(send(&admin, "POST", REQUESTS, &masters).await, Err(403));
    let kubelet = "kubernetes.io/kube-apiserver-client-kubelet";
    let (wrong, _) = signing_request("wrong", kubelet, "dev", "ann");
    send(&admin, "POST", REQUESTS, &wrong).await.unwrap();
    let path = format!("{REQUESTS}/wrong");
    let approval = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    send(&admin, "PATCH", &format!("{path}/approval"), &approval)
        .await
        .unwrap();
    let failed = until(&admin, &path, |o| {
        o["status"]["conditions"][1]["type"] == "Failed"
    })
    .await;
    assert!(failed["status"]["certificate"].is_null());
    // A node's own request is approved without anybody.
    let (node, _) = signing_request("node", kubelet, "system:nodes", "system:node:n");
    send(&admin, "POST", REQUESTS, &node).await.unwrap();
    until(&admin, &format!("{REQUESTS}/node"), |o| {
        o["status"]["certificate"].is_string()
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_filled_with_a_token_and_goes_with_its_account() {
    let cluster = cluster().await;
    let admin = cluster.client();
    let base = "/api/v1/namespaces/default";
    let account = json!({"metadata": {"name": "robot"}});
    send(&admin, "POST", &format!("{base}/serviceaccounts"), &account)
        .await
        .unwrap();
    let secret = json!({
        "metadata": {
            "name": "kept", "annotations": {"kubernetes.io/service-account.name": "robot"},
        },
        "type": "kubernetes.io/service-account-token",
    });
    send(&admin, "POST", &format!("{base}/secrets"), &secret)
        .await
        .unwrap();
    let path = format!("{base}/secrets/kept");
    let filled = until(&admin, &path, |o| o["data"]["token"].is_string()).await;
    let field = |name: &str| {
        let text = filled["data"][name].as_str().unwrap();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    };
    assert_eq!(field("namespace"), "default");
    assert_eq!(field("ca.crt"), cluster.context().ca_pem);
    let with = |token: &str| {
        let mut config = outside(&cluster);
        config.auth_info.token = Some(token.to_owned().into());
        config
    };
    let user = who(with(&field("token"))).await.unwrap();
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    let account = format!("{base}/serviceaccounts/robot");
    send(&admin, "DELETE", &account, &Value::Null)
        .await
        .unwrap();
    assert_eq!(who(with(&field("token"))).await, Err(401));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while send(&admin, "GET", &path, &Value::Null).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_gather_the_rules_of_others() {
    let cluster = cluster().await;
    let admin = cluster.client();
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let view = format!("{roles}/view");
    until(&admin, &view, |o| {
        o["rules"].as_array().is_some_and(|r| !r.is_empty())
    })
    .await;
    let more = json!({
        "metadata": {
            "name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
        },
        "rules": [{"apiGroups": ["shop.test"], "resources": ["carts"], "verbs": ["get"]}],
    });
    send(&admin, "POST", roles, &more).await.unwrap();
    let has = |o: &Value| {
        let rules = o["rules"].as_array();
        rules.is_some_and(|r| r.iter().any(|r| r["apiGroups"][0] == "shop.test"))
    };
    // Through `edit`, which gathers `view`, to `admin`.
    for role in ["view", "edit", "admin"] {
        until(&admin, &format!("{roles}/{role}"), has).await;
    }
    let path = format!("{roles}/more");
    send(&admin, "DELETE", &path, &Value::Null).await.unwrap();
    until(&admin, &format!("{roles}/admin"), |o| !has(o)).await;
    cluster.shutdown().await;
}
