//! What people do with the real kubectl, where it is installed, on an embedded cluster.

#![expect(clippy::unwrap_used, reason = "a test fails where its helpers do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_cluster::{EmbeddedCluster, NodeGroup, write_private};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use serde_json::{Value, json};

/// How long anything may take before the test fails. Generous: CI has two slow cores.
const DEADLINE: Duration = Duration::from_secs(120);

/// kubectl on a cluster of its own.
struct Kubectl {
    folder: PathBuf,
    config: PathBuf,
}

/// What a command printed on both streams, and whether it succeeded.
struct Said {
    code: i32,
    text: String,
}

impl Kubectl {
    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.config)
            .args(line)
            .env("HOME", &self.folder)
            .current_dir(&self.folder);
        command
    }

    fn fed(&self, line: &[&str], input: &str) -> Said {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input has ended before.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        Said {
            code: output.status.code().unwrap_or(-1),
            text,
        }
    }

    /// Runs a command line, split at blanks, that must succeed and say this.
    fn says(&self, line: &str, expected: &str) -> String {
        self.takes(line, "", expected)
    }

    /// The same with an input.
    fn takes(&self, line: &str, input: &str, expected: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let said = self.fed(&words, input);
        assert!(
            said.code == 0 && said.text.contains(expected),
            "kubectl {line}: wanted {expected:?}, got {}:\n{}",
            said.code,
            said.text
        );
        said.text
    }

    /// Runs a command line until it succeeds and says this.
    fn comes_to(&self, line: &str, expected: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let begun = Instant::now();
        loop {
            let said = self.fed(&words, "");
            if said.code == 0 && said.text.contains(expected) {
                return said.text;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "kubectl {line}: waited in vain for {expected:?}, got {}:\n{}",
                said.code,
                said.text
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command line that must fail with this code and say this.
    fn fails(&self, line: &str, code: i32, expected: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let said = self.fed(&words, "");
        assert!(
            said.code == code && said.text.contains(expected),
            "kubectl {line}: wanted {code} and {expected:?}, got {}:\n{}",
            said.code,
            said.text
        );
    }

    fn applied(&self, object: &Value) {
        self.takes("apply -f -", &object.to_string(), "");
    }
}

/// A child that does not outlive its test.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn installed() -> bool {
    let version = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    if version.is_err() {
        eprintln!("skipped: kubectl is not installed");
    }
    version.is_ok()
}

/// Runs a session of kubectl on a cluster with two nodes.
async fn session(act: impl FnOnce(&Kubectl) + Send + 'static) {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let nodes = vec![NodeGroup {
        count: 2,
        ..NodeGroup::default()
    }];
    let cluster = EmbeddedCluster::builder()
        .nodes(nodes)
        .start()
        .await
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client());
    tokio::time::timeout(DEADLINE, async {
        while accounts.get_opt("default").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let config = folder.path().join("config");
    let text = serde_saphyr::to_string(&cluster.kubeconfig()).unwrap();
    write_private(&config, text.as_bytes()).unwrap();
    let kubectl = Kubectl {
        folder: folder.path().to_owned(),
        config,
    };
    let acting = tokio::task::spawn_blocking(move || act(&kubectl));
    if let Err(panic) = acting.await {
        std::panic::resume_unwind(panic.into_panic());
    }
    cluster.shutdown().await;
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{
            "name": "app", "image": "registry.example.com/app:1", "ports": [{"containerPort": 80}],
            "env": [{"name": "GREETING", "value": "hello"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }]},
    })
}

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
async fn rollouts_scaling_and_services() {
    session(|k| {
        k.says(
            "create deployment web --image=registry.example.com/web:1 --replicas=2 --port=80",
            "deployment.apps/web created",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says(
            "set image deployment/web web=registry.example.com/web:2",
            "image updated",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says("rollout history deployment/web", "REVISION");
        k.says(
            "rollout history deployment/web --revision=2",
            "registry.example.com/web:2",
        );
        k.says("rollout undo deployment/web", "rolled back");
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says("get deployment web -o jsonpath={..image}", "web:1");
        k.says("rollout restart deployment/web", "restarted");
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says("rollout pause deployment/web", "paused");
        k.says("set env deployment/web STAGE=test", "env updated");
        k.says("rollout resume deployment/web", "resumed");
        k.says(
            "set resources deployment/web --requests=cpu=50m",
            "resource requirements updated",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says(
            "autoscale deployment web --min=1 --max=3 --cpu-percent=80",
            "autoscaled",
        );
        k.says("get hpa web", "Deployment/web");
        k.says(
            "scale deployment/web --replicas=3 --current-replicas=2",
            "scaled",
        );
        k.says(
            "expose deployment web --port=8080 --target-port=80 --type=NodePort",
            "exposed",
        );
        k.says("get service web -o jsonpath={.spec.ports[0].nodePort}", "3");
        k.comes_to("describe service web", "Endpoints:");
        k.says("describe deployment web", "RollingUpdateStrategy");
        k.says("get all -l app=web", "deployment.apps/web");
        k.comes_to("logs deployment/web", "simulated by Gantry");
        k.comes_to("exec deployment/web -- printenv STAGE", "test");
        k.says("delete deployment,service,hpa web --timeout=90s", "deleted");
        k.says("wait pod -l app=web --for=delete --timeout=90s", "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_generator() {
    session(|k| {
        std::fs::write(k.folder.join("file"), "content\n").unwrap();
        for (line, made) in [
            ("clusterrole reader --verb=get,list --resource=pods,deployments.apps", "clusterrole.rbac.authorization.k8s.io/reader"),
            ("clusterrole health --verb=get --non-resource-url=/healthz", "clusterrole.rbac.authorization.k8s.io/health"),
            ("clusterrolebinding readers --clusterrole=reader --user=ann --group=all", "clusterrolebinding.rbac.authorization.k8s.io/readers"),
            ("configmap settings --from-literal=a=b --from-file=file", "configmap/settings"),
            ("cronjob tick --image=busybox --schedule=*/5_*_*_*_*", "cronjob.batch/tick"),
            ("deployment web --image=web:1", "deployment.apps/web"),
            ("ingress site --rule=example.com/*=web:80", "ingress.networking.k8s.io/site"),
            ("job once --image=busybox -- true", "job.batch/once"),
            ("job again --from=cronjob/tick", "job.batch/again"),
            ("namespace other", "namespace/other"),
            ("poddisruptionbudget keep --selector=app=web --min-available=1", "poddisruptionbudget.policy/keep"),
            ("priorityclass high --value=1000", "priorityclass.scheduling.k8s.io/high"),
            ("quota small --hard=pods=100 -n other", "resourcequota/small"),
            ("role reader --verb=get --resource=pods", "role.rbac.authorization.k8s.io/reader"),
            ("rolebinding readers --role=reader --serviceaccount=default:robot", "rolebinding.rbac.authorization.k8s.io/readers"),
            ("secret generic key --from-literal=k=v", "secret/key"),
            ("secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p", "secret/pull"),
            ("service clusterip inner --tcp=80:8080", "service/inner"),
            ("service externalname outer --external-name=example.com", "service/outer"),
            ("service loadbalancer front --tcp=80", "service/front"),
            ("service nodeport side --tcp=80", "service/side"),
            ("serviceaccount robot", "serviceaccount/robot"),
        ] {
            let line = format!("create {line}");
            let words: Vec<String> = line.split(' ').map(|it| it.replace('_', " ")).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let said = k.fed(&words, "");
            assert!(said.code == 0 && said.text.contains(&format!("{made} created")), "kubectl {line}: {}", said.text);
        }
        let token = k.says("create token robot --duration=1h", ".");
        assert_eq!(token.trim().split('.').count(), 3);
        k.says("get secret key -o jsonpath={.data.k}", "dg==");
        k.says("get configmap settings -o jsonpath={.data.file}", "content");
        for kind in ["role", "cronjob", "ingress", "pdb", "secret", "serviceaccount", "namespace", "priorityclass", "job"] {
            k.says(&format!("describe {kind}"), "Name:");
        }
        k.says("describe quota -n other", "small");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_objects_by_every_way() {
    session(|k| {
        let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "m", "labels": {"set": "one"}}, "data": data}).to_string();
        k.takes("apply -f -", &map(json!({"a": "1"})), "configmap/m created");
        k.takes("apply -f -", &map(json!({"a": "1"})), "unchanged");
        let said = k.fed(&["diff", "-f", "-"], &map(json!({"a": "2"})));
        assert!(said.code == 1 && said.text.contains("+  a: \"2\""), "{}: {}", said.code, said.text);
        k.takes("diff -f -", &map(json!({"a": "1"})), "");
        k.takes("apply --server-side --force-conflicts -f -", &map(json!({"a": "2"})), "serverside-applied");
        k.takes("replace -f -", &map(json!({"a": "3"})), "replaced");
        k.takes("replace --force -f -", &map(json!({"a": "4"})), "replaced");
        k.says("patch configmap m --type=merge -p {\"data\":{\"b\":\"x\"}}", "patched");
        k.says("patch configmap m --type=json -p [{\"op\":\"remove\",\"path\":\"/data/b\"}]", "patched");
        let edited = k.command(&["edit", "configmap", "m"]).env("KUBE_EDITOR", "sed -i s/\\\"4\\\"/\\\"5\\\"/").output().unwrap();
        assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
        k.says("get configmap m -o jsonpath={.data.a}", "5");
        k.says("label configmap m tier=front", "labeled");
        k.says("label configmap m tier-", "unlabeled");
        k.says("annotate configmap m note=x", "annotated");
        k.says("wait configmap/m --for=jsonpath={.data.a}=5 --timeout=30s", "condition met");
        let other = map(json!({})).replace("\"m\"", "\"n\"");
        k.takes("apply --prune -l set=one --prune-allowlist=core/v1/ConfigMap -f -", &other, "configmap/n created");
        k.takes("apply -f -", &map(json!({"a": "1"})), "configmap/m");
        k.takes("apply --prune -l set=one --prune-allowlist=core/v1/ConfigMap -f -", &other, "configmap/m pruned");
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r", "namespace": "default"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}).to_string();
        k.takes("auth reconcile -f -", &role, "reconciled");
        k.says("auth can-i create pods", "yes");
        k.fails("auth can-i create pods --as=nobody", 1, "no");
        k.says("auth can-i --list", "*.*");
        k.says("auth whoami", "admin");
        k.says("explain pod.spec --recursive", "terminationGracePeriodSeconds");
        k.says("explain deployment.spec.strategy", "RollingUpdate");
        k.says(
            "explain pod.spec.containers.resources",
            "limits\t<map[string]Quantity>\n    Limits describes the maximum amount",
        );
        k.says("api-versions", "apps/v1");
        k.says("api-resources --verbs=list --namespaced", "configmaps");
        k.says("cluster-info", "is running at");
        k.says("get --raw /readyz", "ok");
        k.says("get configmaps -A -o wide", "kube-root-ca.crt");
        k.says("get configmap n -o yaml --show-managed-fields", "managedFields");
        k.says("delete configmap n", "deleted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_kept_and_emptied() {
    session(|k| {
        k.says(
            "create deployment web --image=web:1 --replicas=2",
            "created",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.applied(&pod("alone"));
        k.says(
            "wait pod/alone --for=condition=Ready --timeout=90s",
            "condition met",
        );
        k.comes_to("events", "Scheduled");
        k.says("events --for=pod/alone", "Started");
        let node = k.says("get pod alone -o jsonpath={.spec.nodeName}", "");
        k.says(&format!("describe node {node}"), "Allocated resources");
        k.says(
            &format!("taint node {node} keep=off:PreferNoSchedule"),
            "tainted",
        );
        k.says(&format!("taint node {node} keep-"), "untainted");
        k.says(&format!("cordon {node}"), "cordoned");
        k.says("get nodes", "SchedulingDisabled");
        k.fails(&format!("drain {node} --timeout=60s"), 1, "cannot delete");
        k.says(
            &format!(
                "drain {node} --force --ignore-daemonsets --delete-emptydir-data --timeout=90s"
            ),
            "drained",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says(&format!("uncordon {node}"), "uncordoned");
        k.says(
            &format!("debug node/{node} --image=busybox -- true"),
            "Creating debugging pod",
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

/// What two conformance tests of StatefulSets walk: a page is moved away from under a server, whose probe
/// sees it; sets in order stand still then, others do not.
#[tokio::test(flavor = "multi_thread")]
async fn stateful_sets_halt_at_a_pod_whose_page_is_gone() {
    session(|k| {
        let set = |name: &str, policy: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
                "spec": {
                    "serviceName": name, "replicas": 1, "podManagementPolicy": policy,
                    "selector": {"matchLabels": {"set": name}},
                    "template": {
                        "metadata": {"labels": {"set": name}},
                        "spec": {"containers": [{
                            "name": "webserver", "image": "registry.k8s.io/e2e-test-images/httpd:2.4.38-4",
                            "readinessProbe": {
                                "httpGet": {"path": "/index.html", "port": 80},
                                "periodSeconds": 1, "failureThreshold": 1,
                            },
                        }]},
                    },
                },
            })
        };
        for (name, policy) in [("orderly", "OrderedReady"), ("burst", "Parallel")] {
            k.applied(&set(name, policy));
        }
        for name in ["orderly", "burst"] {
            k.comes_to(&format!("get sts {name} -o jsonpath={{.status.readyReplicas}}"), "1");
            k.says(
                &format!("exec {name}-0 -- mv -v /usr/local/apache2/htdocs/index.html /tmp/"),
                "renamed",
            );
        }
        for name in ["orderly", "burst"] {
            k.comes_to(
                &format!("get pod {name}-0 -o jsonpath={{.status.conditions[?(@.type=='Ready')].status}}"),
                "False",
            );
            k.says(&format!("scale sts {name} --replicas=3"), "scaled");
        }
        k.comes_to("get sts burst -o jsonpath={.status.readyReplicas}", "2");
        // The other set has had as much time.
        k.comes_to("get sts orderly -o jsonpath={.status.observedGeneration}", "2");
        k.says("get sts orderly -o jsonpath=of{.status.replicas}", "of1");
        k.says(
            "exec orderly-0 -- mv -v /tmp/index.html /usr/local/apache2/htdocs/",
            "renamed",
        );
        k.comes_to("get sts orderly -o jsonpath={.status.readyReplicas}", "3");
    })
    .await;
}
