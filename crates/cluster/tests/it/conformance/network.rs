//! Pods that reach each other: Networking and Services, with the server of the conformance tests, simulated, and
//! commands in pods that ask it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::conformance::harness::{Kube, name, on_cluster, pod};

const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";

/// A pod with the server that tells its name, over HTTP and UDP.
fn server(name: &str, labels: Value) -> Value {
    let container = json!({
        "image": AGNHOST, "args": ["netexec", "--http-port=8083", "--udp-port=8081"],
        "ports": [{"name": "http", "containerPort": 8083},
            {"name": "udp", "containerPort": 8081, "protocol": "UDP"}],
    });
    pod(name, labels, json!({}), container)
}

fn client(name: &str, spec: Value) -> Value {
    pod(
        name,
        json!({}),
        spec,
        json!({"image": AGNHOST, "args": ["pause"]}),
    )
}

async fn shell(kube: &Kube, pod: &str, script: &str) -> String {
    kube.exec(pod, "c", &["/bin/sh", "-c", script]).await
}

async fn address(kube: &Kube, pod: &str) -> String {
    let seen = kube.running(pod).await;
    seen["status"]["podIP"].as_str().unwrap().to_owned()
}

#[test]
fn pods_reach_pods_over_http_and_udp() {
    on_cluster(async |kube| {
        for name in ["net-0", "net-1"] {
            kube.create("v1", "pods", server(name, json!({}))).await;
        }
        kube.create("v1", "pods", client("asks", json!({}))).await;
        kube.create("v1", "pods", client("host", json!({"hostNetwork": true})))
            .await;
        kube.running("asks").await;
        kube.running("host").await;
        let (one, two) = (address(&kube, "net-0").await, address(&kube, "net-1").await);
        // A pod asks a server to ask another.
        for (protocol, port) in [("http", 8083), ("udp", 8081)] {
            let url = format!(
                "http://{one}:8083/dial?request=hostname&protocol={protocol}&host={two}&port={port}&tries=1"
            );
            let said = shell(&kube, "asks", &format!("curl -g -q -s '{url}'")).await;
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said, json!({"responses": ["net-1"]}), "{protocol}");
        }
        // A pod of the node's network asks directly.
        let script = format!(
            "curl -g -q -s --max-time 15 --connect-timeout 1 http://{one}:8083/hostName | grep -v '^\\s*$'"
        );
        assert_eq!(shell(&kube, "host", &script).await.trim(), "net-0");
        let script = format!("echo hostName | nc -w 1 -u {two} 8081 | grep -v '^\\s*$'");
        assert_eq!(shell(&kube, "host", &script).await.trim(), "net-1");
        let own = address(&kube, "asks").await;
        let script = format!("curl -s http://{one}:8083/clientip");
        assert!(shell(&kube, "asks", &script).await.starts_with(&own));
        // What nobody has declared is refused, what nobody has is not found.
        let script = format!("curl -s http://{one}:9 || echo $?; curl -s nowhere || echo $?");
        assert_eq!(shell(&kube, "asks", &script).await, "7\n6\n");
    });
}

/// Who answers a number of times.
async fn who(kube: &Kube, place: &str, times: u32) -> BTreeSet<String> {
    let script = format!(
        "for i in $(seq 1 {times}); do curl -q -s --connect-timeout 2 http://{place}/hostname; echo; done"
    );
    let said = shell(kube, "asks", &script).await;
    said.lines()
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn services_lead_to_their_pods() {
    on_cluster(async |kube| {
        let names = |all: &[&str]| {
            all.iter()
                .map(|it| (*it).to_owned())
                .collect::<BTreeSet<_>>()
        };
        kube.create("v1", "pods", client("asks", json!({}))).await;
        for name in ["web-0", "web-1"] {
            kube.create("v1", "pods", server(name, json!({"app": "web"})))
                .await;
        }
        let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "type": "NodePort", "ports": [{"name": "http", "port": 80, "targetPort": "http"},
                {"name": "udp", "port": 90, "targetPort": "udp", "protocol": "UDP"}]}});
        let service = kube.create("v1", "services", service).await;
        kube.running("asks").await;
        kube.ready_pods("app=web", 2).await;
        let endpoints = async || {
            kube.list(
                "discovery.k8s.io/v1",
                "endpointslices",
                "kubernetes.io/service-name=web",
            )
            .await
        };
        let both = |all: &Vec<Value>| {
            all.iter()
                .flat_map(|it| it["endpoints"].as_array().into_iter().flatten())
                .filter(|it| it["conditions"]["ready"] == true)
                .count()
                == 2
        };
        kube.until("two endpoints", endpoints, both).await;
        let node = kube.get("v1", "pods", "asks").await["status"]["hostIP"]
            .as_str()
            .unwrap()
            .to_owned();
        let own = service["spec"]["clusterIP"].as_str().unwrap();
        let port = &service["spec"]["ports"][0]["nodePort"];
        let namespace = kube.namespace.as_str();
        for place in [
            "web".to_owned(),
            format!("web.{namespace}"),
            format!("web.{namespace}.svc.cluster.local"),
            own.to_owned(),
            format!("{node}:{port}"),
        ] {
            assert_eq!(
                who(&kube, &place, 6).await,
                names(&["web-0", "web-1"]),
                "{place}"
            );
        }
        let script = "echo hostName | nc -v -t -w 2 web 80 > /dev/null && echo reached";
        assert_eq!(shell(&kube, "asks", script).await, "reached\n");
        let said = shell(&kube, "asks", "echo hostname | nc -u -w 1 web 90").await;
        assert!(said.starts_with("web-"), "{said}");
        // One who asks again meets the same, where that is wanted.
        let sticky = json!({"spec": {"sessionAffinity": "ClientIP"}});
        kube.merge("v1", "services", "web", sticky).await;
        assert_eq!(who(&kube, "web", 8).await.len(), 1);
        let anew = json!({"spec": {"sessionAffinity": "None"}});
        kube.merge("v1", "services", "web", anew).await;
        // Who is on the way out is not asked any more.
        kube.delete("v1", "pods", "web-0").await;
        kube.until(
            "one is left",
            async || who(&kube, "web", 4).await,
            |it| *it == names(&["web-1"]),
        )
        .await;
        // A name for another.
        let alias = json!({"metadata": {"name": "alias"}, "spec": {"type": "ExternalName",
            "externalName": format!("web.{namespace}.svc.cluster.local")}});
        kube.create("v1", "services", alias).await;
        assert_eq!(who(&kube, "alias", 2).await, names(&["web-1"]));
        // Without an address of its own a Service stands for those of its pods.
        let mut named = server("named", json!({"app": "named"}));
        named["spec"]["hostname"] = "first".into();
        named["spec"]["subdomain"] = "peers".into();
        let made = kube.create("v1", "pods", named).await;
        let peers = json!({"metadata": {"name": "peers"}, "spec": {"selector": {"app": "named"},
            "clusterIP": "None", "ports": [{"port": 8083}]}});
        kube.create("v1", "services", peers).await;
        kube.running(&name(&made)).await;
        let script =
            "curl -s http://first.peers.NS:8083/hostname || echo no".replace("NS", namespace);
        kube.until(
            "a name of a pod",
            async || shell(&kube, "asks", &script).await,
            |it| it == "named",
        )
        .await;
    });
}

#[test]
fn pods_and_services_are_proxied_with_their_links() {
    on_cluster(async |kube| {
        let page = "<a href=\"/rewriteme\">test</a>";
        let env: Vec<Value> = [
            ("SERVE_PORT_80", page),
            ("SERVE_PORT_160", "foo"),
            ("SERVE_PORT_162", "bar"),
            ("SERVE_TLS_PORT_443", "<a href=\"/tlsrewriteme\">test</a>"),
            ("SERVE_TLS_PORT_460", "tls baz"),
        ]
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
        let container = json!({"image": AGNHOST, "command": ["/agnhost", "porter"], "env": env,
            "ports": [{"name": "dest1", "containerPort": 160}, {"name": "tlsdest1", "containerPort": 460}]});
        let server = pod("porter", json!({"app": "porter"}), json!({}), container);
        kube.create("v1", "pods", server).await;
        let json = json!({"image": AGNHOST, "command": ["/agnhost", "porter", "--json-response"],
            "env": [{"name": "SERVE_PORT_80", "value": "foo"}]});
        kube.create(
            "v1",
            "pods",
            pod("agnhost", json!({"app": "json"}), json!({}), json),
        )
        .await;
        let service = |name: &str, app: &str, ports: Value| json!({"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": ports}});
        let ports = json!([{"name": "portname1", "port": 80, "targetPort": "dest1"},
            {"name": "portname2", "port": 81, "targetPort": 162},
            {"name": "tlsportname1", "port": 443, "targetPort": "tlsdest1"}]);
        kube.create("v1", "services", service("proxied", "porter", ports))
            .await;
        let ports = json!([{"port": 80, "targetPort": 80}]);
        kube.create("v1", "services", service("test-service", "json", ports))
            .await;
        kube.running("porter").await;
        kube.running("agnhost").await;
        for name in ["proxied", "test-service"] {
            let label = format!("kubernetes.io/service-name={name}");
            let look = async || {
                kube.list("discovery.k8s.io/v1", "endpointslices", &label)
                    .await
            };
            let ready = |all: &Vec<Value>| {
                all.iter()
                    .any(|it| it["endpoints"][0]["conditions"]["ready"] == true)
            };
            kube.until("an endpoint", look, ready).await;
        }
        let (pods, services) = (kube.path("v1", "pods"), kube.path("v1", "services"));
        let linked = |root: &str, to: &str| format!("<a href=\"{root}{to}\">test</a>");
        let plain = |path: String, said: &str| (path, said.to_owned());
        let of_pod = |id: &str| format!("{pods}/{id}/proxy");
        let cases = [
            plain(format!("{services}/proxied:portname1/proxy/"), "foo"),
            plain(format!("{services}/http:proxied:portname2/proxy/"), "bar"),
            plain(
                format!("{services}/https:proxied:tlsportname1/proxy/"),
                "tls baz",
            ),
            plain(format!("{}/", of_pod("porter:160")), "foo"),
            plain(format!("{}/", of_pod("https:porter:460")), "tls baz"),
            (
                format!("{}/", of_pod("porter:80")),
                linked(&of_pod("porter:80"), "/rewriteme"),
            ),
            (
                format!("{}/", of_pod("https:porter:443")),
                linked(&of_pod("https:porter:443"), "/tlsrewriteme"),
            ),
        ];
        for (path, expected) in cases {
            let (code, said) = kube.ask("GET", &path, &[], "").await;
            assert_eq!(
                (code, said.as_str()),
                (200, Some(expected.as_str())),
                "{path}"
            );
        }
        for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
            for place in [
                format!("{pods}/agnhost"),
                format!("{services}/test-service"),
            ] {
                let path = format!("{place}/proxy/some/path/with/{method}");
                let said = kube.ask(method, &path, &[], "").await;
                assert_eq!(
                    said,
                    (200, json!({"Method": method, "Body": "foo"})),
                    "{path}"
                );
            }
        }
    });
}
