//! What passes between clients and an extension server.

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use gantry_apiserver::Config;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::{
    Cluster,
    extension::{Extension, GROUP, SERVICE},
};

fn things(rest: &str) -> String {
    format!("/apis/{GROUP}/v1/things{rest}")
}

#[tokio::test]
async fn requests_come_as_from_who_asks() {
    let (cluster, _extension) = Cluster::extended(true).await;
    let request = Request::post(things("/a%2Fb?x=1&y=%20"))
        .header("impersonate-user", "ann")
        .header("impersonate-uid", "u-1")
        .header("impersonate-group", "staff")
        .header("impersonate-extra-scopes.example.com%2fa", "view")
        .header("authorization", "Bearer x")
        .header("x-remote-user", "root")
        .header("x-remote-group", "system:masters")
        .header("x-remote-extra-evil", "1")
        .header("content-type", "application/json")
        .body(b"{}".to_vec())
        .unwrap();
    let (status, said) = cluster.text(request).await;
    assert_eq!(status, 403, "ann may do nothing yet: {said}");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "things"},
        "rules": [{"apiGroups": [GROUP], "resources": ["things"], "verbs": ["*"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "things"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "things"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    cluster.post(&format!("{rbac}/clusterroles"), &role).await;
    cluster
        .post(&format!("{rbac}/clusterrolebindings"), &binding)
        .await;
    let request = Request::post(things("/a%2Fb?x=1&y=%20"))
        .header("impersonate-user", "ann")
        .header("impersonate-uid", "u-1")
        .header("impersonate-group", "staff")
        .header("impersonate-extra-scopes.example.com%2fa", "view")
        .header("authorization", "Bearer x")
        .header("x-remote-user", "root")
        .header("x-remote-group", "system:masters")
        .header("x-remote-extra-evil", "1")
        .header("audit-id", "named-here")
        .header("content-type", "application/json")
        .body(b"{}".to_vec())
        .unwrap();
    let (status, said) = cluster.text(request).await;
    assert_eq!(status, 200, "{said}");
    let seen: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(seen["caller"], "CN=front-proxy-client");
    assert_eq!(seen["serverName"], format!("{SERVICE}.default.svc"));
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["path"], things("/a%2Fb"));
    assert_eq!(seen["query"], "x=1&y=%20");
    assert_eq!(seen["version"], "HTTP/2.0");
    let headers = &seen["headers"];
    assert_eq!(headers["x-remote-user"], "ann");
    assert_eq!(headers["x-remote-uid"], "u-1");
    assert_eq!(headers["x-remote-group"], "staff,system:authenticated");
    assert_eq!(headers["x-remote-extra-scopes.example.com%2fa"], "view");
    assert_eq!(headers["audit-id"], "named-here");
    for gone in ["authorization", "impersonate-user", "x-remote-extra-evil"] {
        assert!(headers.get(gone).is_none(), "{gone}: {headers}");
    }
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn a_watch_is_passed_on_event_by_event() {
    let (cluster, extension) = Cluster::extended(true).await;
    let (events, given) = mpsc::unbounded();
    *extension.shared.events.lock() = Some(given);
    let say = |text: &'static str| {
        let frame = Frame::data(Bytes::from_static(text.as_bytes()));
        events.unbounded_send(Ok(frame)).unwrap();
    };
    say("{\"type\":\"ADDED\"}\n");
    let request = Request::get(things("?watch=true")).body(vec![]).unwrap();
    let response = cluster.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert_eq!(&first[..], b"{\"type\":\"ADDED\"}\n");
    say("{\"type\":\"DELETED\"}\n");
    let second = body.next().await.unwrap().unwrap();
    assert_eq!(&second[..], b"{\"type\":\"DELETED\"}\n");
    // The watch is still open on the other side: a stop ends it here.
    let stopping = tokio::spawn(cluster.server.shutdown());
    assert!(body.next().await.is_none());
    stopping.await.unwrap();
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let (cluster, _extension) = Cluster::extended(true).await;
    let request = Request::get(things("/a/exec"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(Body::empty())
        .unwrap();
    let response = cluster.client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut user = [0; 12];
    stream.read_exact(&mut user).await.unwrap();
    assert_eq!(&user, b"system:admin");
    stream.write_all(b"across").await.unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"across");
    drop(stream);
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_believed_is_not_asked() {
    let cluster = Cluster::start().await;
    let extension = cluster.extension(false).await;
    let other = cluster.extension(false).await;
    cluster.registered(&extension, &other.bundle).await;
    // Whether it answers is looked at without a look at its certificate, as Kubernetes does.
    cluster.comes_to("True", "Passed").await;
    let (status, said) = cluster.get(&things("")).await;
    assert_eq!(status, 503);
    assert_eq!(
        said,
        "tls: failed to verify certificate: x509: certificate signed by unknown authority\n"
    );
    let path = format!(
        "/apis/apiregistration.k8s.io/v1/apiservices/{}",
        super::NAME
    );
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    cluster.patch(&path, &patch).await;
    let seen = cluster
        .until(&things(""), |status, _| status == StatusCode::OK)
        .await;
    assert_eq!(seen["headers"]["x-remote-user"], "system:admin");
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn the_server_shows_the_certificate_that_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let own = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default();
    let leaf = leaf.signed_by(&own, &Issuer::new(params, key)).unwrap();
    let files = (folder.path().join("cert"), folder.path().join("key"));
    std::fs::write(&files.0, leaf.pem()).unwrap();
    std::fs::write(&files.1, own.serialize_pem()).unwrap();
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        proxy_client: Some(files),
        ..Config::default()
    };
    let cluster = Cluster::of(config).await;
    // One that knows nobody whom the server's own authority has signed.
    let extension = Extension::start(&authority, true).await;
    cluster.registered(&extension, &extension.bundle).await;
    cluster.comes_to("True", "Passed").await;
}
