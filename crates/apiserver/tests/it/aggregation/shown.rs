//! How extension servers show: their condition, discovery, OpenAPI.

use std::sync::Arc;

use futures::future::BoxFuture;
use gantry_apiserver::{Config, Network, Stream};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::{Cluster, extension::GROUP};

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The extension's version in aggregated discovery, and the groups before it.
fn in_list(all: &Value) -> Option<(Vec<&str>, &Value)> {
    let items = all["items"].as_array()?;
    let names: Vec<&str> = items
        .iter()
        .map(|g| g["metadata"]["name"].as_str().unwrap_or_default())
        .collect();
    let at = names.iter().position(|n| *n == GROUP)?;
    Some((names[..at].to_vec(), &items[at]["versions"][0]))
}

#[tokio::test]
async fn its_resources_are_in_discovery_and_stale_when_it_is_gone() {
    for modern in [true, false] {
        let (cluster, extension) = Cluster::extended(modern).await;
        let (_, all) = cluster.accepting("/apis", V2).await;
        let (before, version) = in_list(&all).unwrap();
        assert_eq!(before.last(), Some(&"networking.k8s.io"), "17110 < 17200");
        assert_eq!(version["freshness"], "Current");
        let resource = &version["resources"][0];
        assert_eq!(resource["resource"], "things");
        assert_eq!(resource["responseKind"]["kind"], "Thing");
        assert_eq!(resource["scope"], "Cluster");
        assert_eq!(resource.get("categories").is_some(), modern);

        let (_, groups) = cluster.get("/apis").await;
        let preferred = json!({"groupVersion": format!("{GROUP}/v1"), "version": "v1"});
        let groups = groups["groups"].as_array().unwrap();
        let group = groups.iter().find(|g| g["name"] == GROUP).unwrap();
        assert_eq!(group["preferredVersion"], preferred);
        let (_, group) = cluster.get(&format!("/apis/{GROUP}")).await;
        assert_eq!(
            (&group["kind"], &group["name"]),
            (&json!("APIGroup"), &json!(GROUP))
        );
        let (_, list) = cluster.get(&format!("/apis/{GROUP}/v1")).await;
        assert_eq!(list["resources"][0]["name"], "things");
        let (_, root) = cluster.get("/").await;
        let paths = root["paths"].as_array().unwrap();
        assert!(paths.contains(&format!("/apis/{GROUP}/v1").into()));

        extension.stop();
        // Any write to the APIService's spec has it looked at again.
        let path = format!(
            "/apis/apiregistration.k8s.io/v1/apiservices/{}",
            super::NAME
        );
        let patch = json!({"spec": {"versionPriority": 11}});
        cluster.patch(&path, &patch).await;
        let message = cluster.comes_to("False", "FailedDiscoveryCheck").await;
        let url = format!(
            "https://localhost:{}/apis/{GROUP}/v1",
            extension.address.port()
        );
        let expected = format!("failing or missing response from {url}: Get \"{url}\": ");
        assert!(message.starts_with(&expected), "{message}");
        let all = cluster
            .until_accepting("/apis", V2, |_, all| {
                in_list(all).is_some_and(|(_, v)| v["freshness"] == "Stale")
            })
            .await;
        let (_, version) = in_list(&all).unwrap();
        assert_eq!(
            version["resources"][0]["resource"], "things",
            "as last heard"
        );
        let (status, said) = cluster.get(&format!("/apis/{GROUP}/v1/things")).await;
        assert_eq!(
            (status.as_u16(), &said),
            (503, &json!("service unavailable\n"))
        );
        let (_, metrics) = cluster.get("/metrics").await;
        let metrics = metrics.as_str().unwrap();
        for line in [
            "aggregator_unavailable_apiservice{name=\"v1.ext.example.com\"} 1",
            "aggregator_unavailable_apiservice_total{name=\"v1.ext.example.com\",reason=\"FailedDiscoveryCheck\"} 1",
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line}");
        }

        cluster.delete(&path).await;
        let (status, _) = cluster.get(&format!("/apis/{GROUP}/v1/things")).await;
        assert_eq!(status, 404);
        let (_, all) = cluster.accepting("/apis", V2).await;
        assert!(in_list(&all).is_none());
        cluster.server.shutdown().await;
    }
}

#[tokio::test]
async fn its_documents_are_among_ours() {
    let (cluster, _extension) = Cluster::extended(true).await;
    let (_, index) = cluster.get("/openapi/v3").await;
    let path = format!("apis/{GROUP}/v1");
    let url = index["paths"][&path]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(url, format!("/openapi/v3/apis/{GROUP}/v1?hash=THEIRS"));
    let (status, document) = cluster.get(url).await;
    assert_eq!(status, StatusCode::OK);
    let things = format!("/apis/{GROUP}/v1/things");
    assert!(document["paths"].get(&things).is_some(), "{document}");
    let (_, all) = cluster.get("/openapi/v2").await;
    assert!(all["paths"].get(&things).is_some());
    assert!(all["paths"].get("/apis/other/v1/x").is_none());
    assert!(all["paths"].get("/apis/apps/v1/deployments").is_some());
    assert_eq!(all["definitions"]["Thing"]["description"], "theirs");
    assert!(all["definitions"].get("Other").is_none());
    cluster.server.shutdown().await;
}

/// A network with one server in it, which answers everything with 200.
#[derive(Debug)]
struct One;

impl Network for One {
    fn covers(&self, host: &str) -> bool {
        host == "10.77.0.1"
    }

    fn connect(&self, _: String, port: u16) -> BoxFuture<'static, std::io::Result<Stream>> {
        Box::pin(async move {
            if port != 6443 {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new("{}\n".into())))
            });
            let service = hyper_answers(service);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(far), service),
            );
            Ok(Box::new(near) as Stream)
        })
    }
}

/// Helps the compiler to find out about a closure's types.
fn hyper_answers<S>(service: S) -> S
where
    S: hyper::service::Service<
            http::Request<hyper::body::Incoming>,
            Response = Response<Full<bytes::Bytes>>,
            Error = std::convert::Infallible,
        >,
{
    service
}

#[tokio::test]
async fn a_service_leads_to_its_endpoints_or_it_is_told_why_not() {
    let cluster = Cluster::of(Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        network: Some(Arc::new(One)),
        ..Config::default()
    })
    .await;
    let spec = json!({"insecureSkipTLSVerify": true,
        "service": {"namespace": "default", "name": "far", "port": 443}});
    cluster.api_service(spec).await;
    let message = cluster.comes_to("False", "ServiceNotFound").await;
    assert_eq!(message, "service/far in \"default\" is not present");
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "far"},
        "spec": {"ports": [{"name": "https", "port": 8443}]}});
    cluster.post(services, &service).await;
    cluster.comes_to("False", "ServicePortError").await;
    let patch = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
    cluster.patch(&format!("{services}/far"), &patch).await;
    cluster.comes_to("False", "EndpointsNotFound").await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "far-1", "labels": {"kubernetes.io/service-name": "far"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": 6443}],
        "endpoints": [{"addresses": ["10.77.0.1"], "conditions": {"ready": false}}]});
    cluster.post(slices, &slice).await;
    cluster.comes_to("False", "MissingEndpoints").await;
    let (status, said) = cluster.get(&format!("/apis/{GROUP}/v1/things")).await;
    assert_eq!(
        (status.as_u16(), &said),
        (503, &json!("service unavailable\n"))
    );
    let ready = json!({"endpoints": [{"addresses": ["10.77.0.1"], "conditions": {"ready": true}}]});
    cluster.patch(&format!("{slices}/far-1"), &ready).await;
    cluster.comes_to("True", "Passed").await;
    let (status, said) = cluster.get(&format!("/apis/{GROUP}/v1/things")).await;
    assert_eq!((status, &said), (StatusCode::OK, &json!({})));
    let refused = json!({"ports": [{"name": "https", "port": 6444}]});
    cluster.patch(&format!("{slices}/far-1"), &refused).await;
    let message = cluster.comes_to("False", "FailedDiscoveryCheck").await;
    assert!(message.ends_with(": connection refused"), "{message}");
    cluster.server.shutdown().await;
}
