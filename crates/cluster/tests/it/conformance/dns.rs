//! DNS: pods that look names up over and over and leave what they find in files that another container of the pod
//! serves, as `test/e2e/network/dns.go` does it.

use serde_json::{Value, json};

use crate::conformance::harness::{Kube, name, on_cluster};

const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";
const JESSIE: &str = "registry.k8s.io/e2e-test-images/jessie-dnsutils:1.7";

/// What a container runs, and the files that it writes.
struct Probe {
    script: String,
    files: Vec<String>,
}

/// One that finds all of these: names in DNS, hosts in `/etc/hosts`, and the name of an address.
fn probe(prefix: &str, names: &[String], hosts: &[String], address: Option<&str>) -> Probe {
    let (mut steps, mut files) = (vec![], vec![]);
    let mut dig = |protocol: &str, what: &str, file: String| {
        steps.push(format!(
            "check=\"$$(dig +{protocol} +noall +answer +search {what})\" && test -n \"$$check\" && echo OK > /results/{file};"
        ));
        files.push(file);
    };
    for name in names {
        let kind = if name.starts_with('_') { "SRV" } else { "A" };
        for (protocol, short) in [("notcp", "udp"), ("tcp", "tcp")] {
            dig(
                protocol,
                &format!("{name} {kind}"),
                format!("{prefix}_{short}@{name}"),
            );
        }
    }
    if let Some(address) = address {
        let mut parts: Vec<&str> = address.split('.').collect();
        parts.reverse();
        let reversed = format!("{}.in-addr.arpa.", parts.join("."));
        for (protocol, short) in [("notcp", "udp"), ("tcp", "tcp")] {
            dig(
                protocol,
                &format!("{reversed} PTR"),
                format!("{address}_{short}@PTR"),
            );
        }
    }
    for host in hosts {
        let file = format!("{prefix}_hosts@{host}");
        steps.push(format!(
            "test -n \"$$(getent hosts {host})\" && echo OK > /results/{file};"
        ));
        files.push(file);
    }
    let script = format!("for i in `seq 1 600`; do {} sleep 1; done", steps.join(""));
    Probe { script, files }
}

/// The pod of two such containers.
fn prober(pod: &str, labels: Value, host: (&str, &str), scripts: [&str; 2]) -> Value {
    let mounts = json!([{"name": "results", "mountPath": "/results"}]);
    let [one, two] = scripts;
    json!({"metadata": {"name": pod, "labels": labels}, "spec": {
    "hostname": host.0, "subdomain": host.1, "volumes": [{"name": "results", "emptyDir": {}}],
    "containers": [
        {"name": "webserver", "image": AGNHOST, "args": ["test-webserver"], "volumeMounts": mounts},
        {"name": "agnhost-querier", "image": AGNHOST, "command": ["sh", "-c", one], "volumeMounts": mounts},
        {"name": "jessie-querier", "image": JESSIE, "command": ["sh", "-c", two], "volumeMounts": mounts},
    ]}})
}

/// What a file of the pod's shared folder holds, once it is there.
async fn result(kube: &Kube, pod: &str, file: &str, wanted: impl Fn(&str) -> bool) {
    let path = format!("{}/{pod}/proxy/results/{file}", kube.path("v1", "pods"));
    let read = async || match kube.ask("GET", &path, &[], "").await {
        (200, Value::String(text)) => text,
        (code, other) => format!("{code} {other}"),
    };
    kube.until(file, read, |it| wanted(it.trim())).await;
}

async fn finds(
    kube: &Kube,
    (pod, labels, host): (&str, Value, (&str, &str)),
    (names, hosts, address): (&[String], &[String], Option<&str>),
) {
    let probes = ["agnhost", "jessie"].map(|it| probe(it, names, hosts, address));
    let scripts = probes.each_ref().map(|it| it.script.as_str());
    kube.create("v1", "pods", prober(pod, labels, host, scripts))
        .await;
    kube.running(pod).await;
    for file in probes.iter().flat_map(|it| &it.files) {
        result(kube, pod, file, |it| it == "OK").await;
    }
}

fn service(name: &str, headless: bool, labels: &Value) -> Value {
    let mut spec = json!({"selector": labels,
        "ports": [{"port": 80, "name": "http", "protocol": "TCP"}]});
    if headless {
        spec["clusterIP"] = "None".into();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[test]
fn names_of_the_cluster_and_of_the_pod_itself() {
    on_cluster(async |kube| {
        let names = [
            "kubernetes.default.svc.cluster.local",
            "kubernetes.default",
            "kubernetes.default.svc",
        ]
        .map(str::to_owned);
        let whole = format!(
            "dns-querier-1.dns-test-service.{}.svc.cluster.local",
            kube.namespace
        );
        let hosts = [whole, "dns-querier-1".to_owned()];
        let pod = ("dns-test", json!({}), ("dns-querier-1", "dns-test-service"));
        finds(&kube, pod, (&names, &hosts, None)).await;
        // What nobody has is not found.
        let path = kube.path("v1", "pods");
        let path = format!("{path}/dns-test/proxy/results/agnhost_udp@nobody");
        assert_eq!(kube.ask("GET", &path, &[], "").await.0, 404);
        let said = kube
            .exec(
                "dns-test",
                "webserver",
                &[
                    "sh",
                    "-c",
                    "dig +short nobody.default.svc.cluster.local; getent hosts nobody || echo $?",
                ],
            )
            .await;
        assert_eq!(said, "2\n");
    });
}

#[test]
fn names_of_services_whole_and_in_part() {
    on_cluster(async |kube| {
        let labels = json!({"dns-test": "true"});
        kube.create("v1", "services", service("dns-test-service", true, &labels))
            .await;
        let regular = service("test-service-2", false, &labels);
        let regular = kube.create("v1", "services", regular).await;
        let address = regular["spec"]["clusterIP"].as_str().unwrap();
        let in_namespace = format!("{}.svc", kube.namespace);
        let names: Vec<String> = [
            format!("dns-test-service.{in_namespace}.cluster.local"),
            format!("_http._tcp.dns-test-service.{in_namespace}.cluster.local"),
            format!("_http._tcp.test-service-2.{in_namespace}.cluster.local"),
            "dns-test-service".to_owned(),
            format!("dns-test-service.{}", kube.namespace),
            format!("dns-test-service.{in_namespace}"),
            format!("_http._tcp.dns-test-service.{in_namespace}"),
            format!("_http._tcp.test-service-2.{in_namespace}"),
        ]
        .into();
        let pod = ("dns-test", labels, ("dns-querier-1", "dns-test-service"));
        finds(&kube, pod, (&names, &[], Some(address))).await;
    });
}

#[test]
fn names_of_pods_by_hostname_and_subdomain() {
    on_cluster(async |kube| {
        let labels = json!({"dns-test-hostname-attribute": "true"});
        kube.create(
            "v1",
            "services",
            service("dns-test-service-2", true, &labels),
        )
        .await;
        let subdomain = format!("dns-test-service-2.{}.svc.cluster.local", kube.namespace);
        let whole = format!("dns-querier-2.{subdomain}");
        let (names, hosts) = (
            [whole.clone(), subdomain],
            [whole, "dns-querier-2".to_owned()],
        );
        let pod = ("dns-test", labels, ("dns-querier-2", "dns-test-service-2"));
        finds(&kube, pod, (&names, &hosts, None)).await;
        // Its address, forwards and backwards.
        let seen = kube.get("v1", "pods", "dns-test").await;
        let address = seen["status"]["podIP"].as_str().unwrap();
        let script = format!("dig +short {}; dig +short -x {address}", names[0]);
        let said = kube
            .exec("dns-test", "webserver", &["sh", "-c", &script])
            .await;
        assert_eq!(said, format!("{address}\n{}.\n", names[0]));
    });
}

#[test]
fn other_names_of_a_service_that_changes() {
    on_cluster(async |kube| {
        let external = json!({"metadata": {"name": "dns-test-service-3"},
            "spec": {"type": "ExternalName", "externalName": "foo.example.com"}});
        kube.create("v1", "services", external).await;
        let whole = format!("dns-test-service-3.{}.svc.cluster.local", kube.namespace);
        let told = async |pod: &str, kind: &str, expected: &str| {
            let script = |prefix: &str| {
                format!(
                    "for i in `seq 1 30`; do dig +short {whole} {kind} > /results/{prefix}_udp@{whole}; sleep 1; done"
                )
            };
            let (one, two) = (script("agnhost"), script("jessie"));
            let host = ("dns-querier-1", "dns-test-service");
            kube.create("v1", "pods", prober(pod, json!({}), host, [&one, &two]))
                .await;
            kube.running(pod).await;
            for prefix in ["agnhost", "jessie"] {
                let file = format!("{prefix}_udp@{whole}");
                result(&kube, pod, &file, |it| it == expected).await;
            }
        };
        let change = async |spec: Value| {
            let patch = json!({"spec": spec});
            kube.merge("v1", "services", "dns-test-service-3", patch)
                .await
        };
        told("one", "CNAME", "foo.example.com.").await;
        change(json!({"externalName": "bar.example.com"})).await;
        told("two", "CNAME", "bar.example.com.").await;
        let ports = json!([{"port": 80, "name": "http", "protocol": "TCP"}]);
        let service =
            change(json!({"type": "ClusterIP", "externalName": null, "ports": ports})).await;
        told("three", "A", service["spec"]["clusterIP"].as_str().unwrap()).await;
    });
}

#[test]
fn name_servers_that_a_pod_brings() {
    on_cluster(async |kube| {
        let pod = json!({"metadata": {"name": "test-dns-nameservers"}, "spec": {
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]},
            "containers": [{"name": "agnhost-container", "image": AGNHOST, "args": ["pause"]}]}});
        let pod = name(&kube.create("v1", "pods", pod).await);
        kube.running(&pod).await;
        for (command, expected) in [
            ("dns-suffix", "resolv.conf.local\n"),
            ("dns-server-list", "1.1.1.1\n"),
        ] {
            let said = kube
                .exec(&pod, "agnhost-container", &["/agnhost", command])
                .await;
            assert_eq!(said, expected, "{command}");
        }
    });
}
