//! The server through in-process clients and over TLS, as controllers and users see it.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use gantry_apiserver::{Authentication, Config, Server, StaticToken};
use gantry_store::{Options, Store};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Pod, ResourceQuota, Service, ServiceAccount,
};
use kube::{
    Api, Error, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);

#[expect(
    clippy::expect_used,
    reason = "a test's helper, which clippy does not see as one"
)]
async fn start() -> Server {
    let config = Config {
        authentication: Authentication {
            tokens: vec![StaticToken {
                token: "secret".to_owned(),
                user: "ann".to_owned(),
                uid: String::new(),
                groups: vec!["system:masters".to_owned()],
            }],
            ..Authentication::default()
        },
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

#[expect(
    clippy::expect_used,
    reason = "a test's helper, which clippy does not see as one"
)]
fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": value}}))
        .expect("a ConfigMap")
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        _ => 0,
    }
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let server = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let made = maps
        .create(&PostParams::default(), &config_map("x", "1"))
        .await
        .expect("created");
    assert!(made.uid().is_some() && made.resource_version().is_some());
    let again = maps
        .create(&PostParams::default(), &config_map("x", "1"))
        .await
        .expect_err("the name is taken");
    assert_eq!(code(&again), 409);
    let patch = json!({"data": {"b": "2"}});
    let patched = maps
        .patch("x", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
    assert_eq!(patched.data.as_ref().map(|d| d.len()), Some(2));
    let mut stale = made.clone();
    stale.data = None;
    let conflict = maps
        .replace("x", &PostParams::default(), &stale)
        .await
        .expect_err("an old version");
    assert_eq!(code(&conflict), 409);
    maps.delete("x", &DeleteParams::default())
        .await
        .expect("deleted");
    assert!(maps.get_opt("x").await.expect("answered").is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn an_update_that_is_refused_keeps_its_services_ports_taken() {
    let server = start().await;
    let client = server.client();
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let quotas: Api<ResourceQuota> = Api::namespaced(client, "default");
    let service = |name: &str, kind: &str, port: u16| -> Service {
        let spec = json!({"type": kind, "ports": [{"port": 80, "nodePort": port}]});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))
            .expect("a Service")
    };
    let quota =
        json!({"metadata": {"name": "none"}, "spec": {"hard": {"services.loadbalancers": "0"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).expect("a quota");
    let post = PostParams::default();
    quotas.create(&post, &quota).await.expect("created");
    let counted = json!({"status": {
        "hard": {"services.loadbalancers": "0"}, "used": {"services.loadbalancers": "0"},
    }});
    quotas
        .patch_status("none", &PatchParams::default(), &Patch::Merge(&counted))
        .await
        .expect("counted");
    let first = service("first", "NodePort", 30_100);
    services.create(&post, &first).await.expect("created");
    let patch = PatchParams::default();
    let change = |kind: &str, port: u16| json!({"spec": {"type": kind, "ports": [{"port": 80, "nodePort": port}]}});
    let refused = services
        .patch(
            "first",
            &patch,
            &Patch::Merge(&change("LoadBalancer", 30_101)),
        )
        .await
        .expect_err("over the quota");
    assert_eq!(code(&refused), 403, "{refused}");
    let taken = services
        .create(&post, &service("second", "NodePort", 30_100))
        .await
        .expect_err("the port is the first one's still");
    assert_eq!(code(&taken), 422, "{taken}");
    services
        .patch("first", &patch, &Patch::Merge(&change("NodePort", 30_101)))
        .await
        .expect("what the refused update had taken is free");
    services
        .create(&post, &service("second", "NodePort", 30_100))
        .await
        .expect("free since the first one moved");
    server.shutdown().await;
}

#[tokio::test]
async fn a_pod_in_a_new_namespace_waits_for_its_account() {
    let config = Config::default();
    let store = Store::in_memory(Options::default());
    let server = Server::start(config, store).await.expect("it starts");
    let pods: Api<Pod> = Api::namespaced(server.client(), "default");
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client(), "default");
    let containers = json!([{"name": "a", "image": "b"}]);
    let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": containers}});
    let pod: Pod = serde_json::from_value(pod).expect("a Pod");
    let refused = pods.create(&PostParams::default(), &pod).await;
    assert_eq!(code(&refused.expect_err("nobody makes the account")), 403);
    let account = json!({"metadata": {"name": "default"}});
    let account: ServiceAccount = serde_json::from_value(account).expect("an account");
    let post = PostParams::default();
    // Polled in this order: the pod's creation waits before the account is made.
    let (made, account) = tokio::join!(pods.create(&post, &pod), accounts.create(&post, &account));
    account.expect("created");
    let spec = made.expect("the account came").spec.expect("a spec");
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    server.shutdown().await;
}

#[tokio::test]
async fn a_watch_sees_every_change_after_its_version() {
    let server = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let list = maps.list(&ListParams::default()).await.expect("listed");
    let version = list.metadata.resource_version.expect("a version");
    let params = WatchParams::default().labels("a=1");
    let mut events = maps
        .watch(&params, &version)
        .await
        .expect("watching")
        .boxed();
    maps.create(&PostParams::default(), &config_map("other", "1"))
        .await
        .expect("created");
    let mut mine = config_map("mine", "1");
    mine.metadata.labels = Some([("a".to_owned(), "1".to_owned())].into());
    maps.create(&PostParams::default(), &mine)
        .await
        .expect("created");
    let unlabel = json!({"metadata": {"labels": {"a": null}}});
    maps.patch("mine", &PatchParams::default(), &Patch::Merge(&unlabel))
        .await
        .expect("patched");
    let mut seen = vec![];
    while seen.len() < 2 {
        let next = tokio::time::timeout(SOON, events.try_next()).await;
        match next.expect("in time").expect("no error") {
            Some(WatchEvent::Added(o)) => seen.push(format!("added {}", o.name_any())),
            Some(WatchEvent::Deleted(o)) => seen.push(format!("deleted {}", o.name_any())),
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(seen, ["added mine", "deleted mine"]);
    // A stopping server ends its watches.
    server.shutdown().await;
    let end = tokio::time::timeout(SOON, events.try_next()).await;
    assert!(end.expect("in time").expect("no error").is_none());
}

#[tokio::test]
async fn what_a_user_may_do_holds_in_process_too() {
    let server = start().await;
    let eve: Api<ConfigMap> = Api::namespaced(server.client_as("eve", &[]), "default");
    let refused = eve
        .list(&ListParams::default())
        .await
        .expect_err("no rights");
    assert_eq!(code(&refused), 403);
    let anonymous = server.client_as("system:anonymous", &["system:unauthenticated"]);
    let version = anonymous.apiserver_version().await.expect("for everyone");
    assert_eq!(version.minor, "36");
    server.shutdown().await;
}

#[tokio::test]
async fn bound_pods_end_gracefully_and_namespaces_wait_for_their_finalizer() {
    let server = start().await;
    let client = server.client();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "nodeName": "n1"},
    }))
    .expect("a Pod");
    pods.create(&PostParams::default(), &pod)
        .await
        .expect("created");
    pods.delete("p", &DeleteParams::default())
        .await
        .expect("marked");
    let marked = pods.get("p").await.expect("still there");
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .expect("removed");
    assert!(pods.get_opt("p").await.expect("answered").is_none());

    let namespaces: Api<Namespace> = Api::all(client.clone());
    let team: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "team"}})).expect("a Namespace");
    namespaces
        .create(&PostParams::default(), &team)
        .await
        .expect("created");
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .expect("marked");
    let maps: Api<ConfigMap> = Api::namespaced(client, "team");
    let refused = maps
        .create(&PostParams::default(), &config_map("x", "1"))
        .await
        .expect_err("terminating");
    assert_eq!(code(&refused), 403);
    server.shutdown().await;
}

#[tokio::test]
async fn over_tls_the_authority_and_the_token_are_what_it_takes() {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let server = start().await;
    let client = |token: &str| -> kube::Client {
        let url = format!("https://{}", server.address());
        let mut config = kube::Config::new(url.parse().expect("a URL"));
        let authority = CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).expect("PEM");
        config.root_cert = Some(vec![authority.to_vec()]);
        config.auth_info.token = Some(token.to_owned().into());
        kube::Client::try_from(config).expect("a client")
    };
    let maps: Api<ConfigMap> = Api::namespaced(client("secret"), "default");
    maps.list(&ListParams::default()).await.expect("listed");
    let maps: Api<ConfigMap> = Api::namespaced(client("wrong"), "default");
    let refused = maps
        .list(&ListParams::default())
        .await
        .expect_err("a wrong token");
    assert_eq!(code(&refused), 401);
    server.shutdown().await;
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = || Config {
        cert_dir: Some(dir.path().join("pki")),
        ..Config::default()
    };
    let open = || Store::open(&dir.path().join("data"), Options::default()).expect("opened");
    let store = open();
    let server = Server::start(config(), store.clone())
        .await
        .expect("starts");
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let made = maps
        .create(&PostParams::default(), &config_map("x", "1"))
        .await
        .expect("created");
    let ca = server.ca_pem().to_owned();
    drop(maps);
    server.shutdown().await;
    store.close().await;
    let store = open();
    let server = Server::start(config(), store).await.expect("starts again");
    assert_eq!(server.ca_pem(), ca);
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    assert_eq!(maps.get("x").await.expect("there").uid(), made.uid());
    server.shutdown().await;
}

/// Where this machine has an address that others can reach.
#[tokio::test]
async fn the_servers_own_service_leads_to_it() {
    let server = Server::start(
        Config {
            advertise: Some([10, 11, 12, 13].into()),
            ..Config::default()
        },
        Store::in_memory(Options::default()),
    )
    .await
    .expect("the server starts");
    let port = i32::from(server.address().port());
    let endpoints: Api<k8s_openapi::api::core::v1::Endpoints> =
        Api::namespaced(server.client(), "default");
    let found = endpoints.get("kubernetes").await.expect("Endpoints");
    let subsets = found.subsets.expect("subsets");
    let ports = subsets[0].ports.as_ref().expect("ports");
    let addresses = subsets[0].addresses.as_ref().expect("addresses");
    assert_eq!(addresses[0].ip, "10.11.12.13");
    assert_eq!(
        (ports[0].name.as_deref(), ports[0].port),
        (Some("https"), port)
    );
    let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> =
        Api::namespaced(server.client(), "default");
    let of_service = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let found = slices.list(&of_service).await.expect("EndpointSlices");
    let ends = found.items[0].endpoints.as_ref().expect("endpoints");
    assert_eq!(ends[0].addresses, ["10.11.12.13"]);
    server.shutdown().await;
}
