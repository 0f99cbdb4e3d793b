//! Pods: logs, commands, files, ports, debugging, usage.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::json;

use crate::kubectl::harness::{Reaped, pod, session};

#[tokio::test(flavor = "multi_thread")]
async fn logs_commands_and_files_of_pods() {
    session(|k| {
        k.applied(&pod("web"));
        k.says(
            "wait pod/web --for=condition=Ready --timeout=90s",
            "condition met",
        );
        k.says("logs web", "simulated by Gantry: container app");
        let stamped = k.says("logs web --timestamps --tail=1", "simulated by Gantry");
        assert!(
            stamped.starts_with("20") && stamped.lines().count() == 1,
            "{stamped}"
        );
        k.says("logs -l app=web --prefix", "[pod/web/app] simulated");
        k.fails(
            "logs web --previous",
            1,
            "previous terminated container \"app\" in pod \"web\" not found",
        );
        k.fails(
            "logs web -c other",
            1,
            "container other is not valid for pod web",
        );
        k.says("exec web -- echo to be seen", "to be seen");
        k.says("exec web -- printenv GREETING", "hello");
        k.says("exec web -- hostname", "web");
        k.takes("exec -i web -- cat", "over there", "over there");
        k.fails(
            "exec web -- false",
            1,
            "command terminated with exit code 1",
        );
        k.fails("exec web -- nginx", 127, "nothing");
        k.fails(
            "exec web -c other -- true",
            1,
            "container other is not valid for pod web",
        );
        let script = "echo one >&2; for i in a b; do echo $i; done | wc -l; exit 7";
        let said = k.fed(&["exec", "web", "--", "sh", "-c", script], "");
        assert_eq!(said.code, 7, "{}", said.text);
        assert!(
            said.text.contains("one\n") && said.text.contains("2\n"),
            "{}",
            said.text
        );

        // What a container has from ConfigMaps is there for whoever looks.
        k.says("create configmap words --from-literal=say=hello", "created");
        let reader = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": {
            "volumes": [{"name": "words", "configMap": {"name": "words"}}],
            "containers": [{"name": "app", "image": "r/reader:1", "command": ["sh", "-c", "echo begun > /tmp/begun; sleep 1d"],
                "envFrom": [{"configMapRef": {"name": "words"}}],
                "volumeMounts": [{"name": "words", "mountPath": "/etc/words"}]}]}});
        k.takes("apply -f -", &reader.to_string(), "created");
        k.says("wait pod reader --for=condition=Ready --timeout=60s", "met");
        let script = "cat /etc/words/say; echo \" $say\"; cat /tmp/begun; cat - > /tmp/typed";
        let said = k.fed(&["exec", "-i", "reader", "--", "sh", "-c", script], "typed");
        assert_eq!((said.code, said.text.as_str()), (0, "hello hello\nbegun\n"));
        k.says("exec reader -- cat /tmp/typed", "typed");
        k.says("cp reader:/etc/words copied", "");
        assert_eq!(
            std::fs::read_to_string(k.folder.join("copied/say")).unwrap(),
            "hello"
        );

        std::fs::write(k.folder.join("sent"), "there and back\n").unwrap();
        k.says("cp sent web:/tmp/kept", "");
        k.says("exec web -- cat /tmp/kept", "there and back");
        k.says("cp web:/tmp/kept back", "");
        assert_eq!(
            std::fs::read_to_string(k.folder.join("back")).unwrap(),
            "there and back\n"
        );

        // A log that is followed ends with its pod.
        let mut following = Reaped(
            k.command(&["logs", "-f", "web"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut log = BufReader::new(following.0.stdout.take().unwrap());
        let mut first = String::new();
        log.read_line(&mut first).unwrap();
        assert!(first.contains("nothing runs here"), "{first}");
        k.says("delete pod web --now", "deleted");
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_ports_and_debugging() {
    session(|k| {
        k.applied(&pod("web"));
        k.says(
            "wait pod/web --for=condition=Ready --timeout=90s",
            "condition met",
        );
        k.takes(
            "run once -i --rm --restart=Never --image=busybox",
            "echo typed $HOSTNAME\nexit 0\n",
            "typed once",
        );
        let said = k.fed(
            &[
                "run",
                "bad",
                "-i",
                "--rm",
                "--restart=Never",
                "--image=busybox",
            ],
            "exit 3\n",
        );
        assert_eq!(said.code, 3, "{}", said.text);

        k.says("debug web --image=busybox -c helper", "");
        k.comes_to(
            "get pod web -o jsonpath={.status.ephemeralContainerStatuses[0].state.running}",
            "startedAt",
        );
        k.says("exec web -c helper -- hostname", "web");
        k.says("logs web -c helper", "container helper");
        k.takes(
            "debug web -i --image=busybox -c shell",
            "echo within\n",
            "within",
        );

        let mut forwarding = Reaped(
            k.command(&["port-forward", "pod/web", ":80"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut told = String::new();
        // Kept open: kubectl says more, and ends when nobody listens.
        let mut words = BufReader::new(forwarding.0.stdout.take().unwrap());
        words.read_line(&mut told).unwrap();
        let port: u16 = told
            .split(' ')
            .find_map(|it| it.strip_prefix("127.0.0.1:")?.parse().ok())
            .unwrap_or_else(|| panic!("{told}"));
        for path in ["a", "b"] {
            let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            write!(
                socket,
                "GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            .unwrap();
            let mut page = String::new();
            socket.read_to_string(&mut page).unwrap();
            assert!(
                page.contains("pod default/web, port 80") && page.contains(&format!("GET /{path}")),
                "{page}"
            );
        }
        drop(forwarding);
        k.says(
            "get --raw /api/v1/namespaces/default/pods/web:80/proxy/x",
            "pod default/web, port 80",
        );
        k.says("expose pod web --port=8080 --target-port=80", "exposed");
        k.comes_to(
            "get --raw /api/v1/namespaces/default/services/web:8080/proxy/y",
            "GET /y",
        );
        let node = k.says("get pod web -o jsonpath={.spec.nodeName}", "");
        k.says(
            &format!("get --raw /api/v1/nodes/{node}/proxy/metrics/resource"),
            "pod=\"web\"",
        );
        k.says(
            &format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary"),
            "\"podRef\"",
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_by_the_simulated_metrics_server() {
    session(|k| {
        k.applied(&pod("web"));
        k.says(
            "wait pod/web --for=condition=Ready --timeout=90s",
            "condition met",
        );
        k.says(
            "wait apiservice/v1beta1.metrics.k8s.io --for=condition=Available --timeout=90s",
            "condition met",
        );
        k.says("get apiservices", "kube-system/metrics-server");
        k.says("get apiservice v1.apps", "Local");
        let nodes = k.says("top nodes", "CPU(cores)");
        assert_eq!(nodes.lines().count(), 3, "{nodes}");
        let node = k.says("get pod web -o jsonpath={.spec.nodeName}", "");
        k.says(&format!("top node {node} --no-headers"), &node);
        let pods = k.says("top pods", "MEMORY(bytes)");
        assert!(pods.contains("web"), "{pods}");
        k.says("top pod web --containers", "app");
        k.says("top pods -l app=web --sum=true", "________");
        k.says("top pods -A --sort-by=cpu", "web");
        k.says("api-resources --api-group=metrics.k8s.io", "NodeMetrics");
        k.says(
            "get --raw /apis/metrics.k8s.io/v1beta1/namespaces/default/pods/web",
            "PodMetrics",
        );
    })
    .await;
}
