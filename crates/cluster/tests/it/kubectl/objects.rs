//! Objects made, changed and removed by every way; nodes.

use serde_json::{Value, json};

use crate::kubectl::harness::{pod, session};

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
