//! Scenarios through the binary: an example that ships, files with mistakes, the openb trace.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::Api;
use serde_json::{Value, json};

use crate::fleet::client;
use crate::support::{Fleet, Up, gantry, wait};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scenarios")
}

#[test]
fn a_mistake_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "name: a\nnodes:\n  - {class: web, count: none}\nevents:\n  - {at: 5m, kill: {class: wbe}}\n",
            &[
                ":3:25: nodes[0].count: \"none\" is no whole number from 0 on",
                ":5:28: events[0].kill.class: there is no such class among the scenario's nodes; did you mean web?",
            ][..],
        ),
        (
            "behaviours:\n  - image: a\n    memry: 1Gi\n",
            &[":3:5: behaviours[0].memry: there is no such field; did you mean memory?"],
        ),
        (
            "behaviours:\n  - cpu: {replay: {file: away.csv}}\n",
            &[":2:26: behaviours[0].cpu.replay.file: "],
        ),
        ("nodes: [\n", &[":"]),
    ];
    for (index, (text, wanted)) in cases.into_iter().enumerate() {
        let file = folder.path().join(format!("wrong-{index}.yaml"));
        std::fs::write(&file, text).unwrap();
        let name = file.to_str().unwrap();
        let data = folder.path().join("data");
        let ways: [&[&str]; 3] = [
            &["scenario", "check", name],
            &["hollow", "--kubeconfig", "/dev/null", "--scenario", name],
            &[
                "up",
                "--port",
                "0",
                "--data-dir",
                data.to_str().unwrap(),
                "--scenario",
                name,
            ],
        ];
        for args in ways {
            let output = gantry().args(args).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
            let told = String::from_utf8(output.stderr).unwrap();
            for wanted in wanted {
                assert!(
                    told.contains(&format!("{name}{wanted}")),
                    "{args:?}: {told}"
                );
            }
        }
        assert!(!data.exists(), "nothing was begun");
    }
    let output = gantry()
        .args(["scenario", "check", "/nowhere.yaml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("cannot read the scenario /nowhere.yaml: ")
    );
}

#[test]
fn an_embedded_fleet_plays_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let tour = examples().join("tour.yaml");
    let size = ["--port", "0", "--clusters", "1", "--cells", "2"];
    let up = Up::start(
        folder.path(),
        &[&size[..], &["--scenario", tour.to_str().unwrap()]].concat(),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let member = runtime.block_on(client(up.kubeconfig(), Some("sh".into())));
    let names = |nodes: Vec<Node>| -> Vec<String> {
        let mut names: Vec<_> = nodes
            .into_iter()
            .filter_map(|it| it.metadata.name)
            .collect();
        names.sort();
        names
    };
    let nodes = runtime
        .block_on(Api::<Node>::all(member.clone()).list(&Default::default()))
        .unwrap();
    let version = |it: &Node| {
        it.status
            .clone()
            .unwrap()
            .node_info
            .unwrap()
            .kubelet_version
    };
    assert!(nodes.items.iter().any(|it| version(it) == "v1.35.2"));
    let names = names(nodes.items);
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!(
        (names[0].as_str(), names[9].as_str()),
        ("sh-a-numa-001", "sh-b-web-004")
    );
    let maps: Api<ConfigMap> = Api::namespaced(member.clone(), "kube-system");
    let map = runtime.block_on(maps.get("hollow-scenario")).unwrap();
    assert_eq!(map.data.unwrap()["name"], "tour");
    let pods: Api<Pod> = Api::namespaced(member, "kube-system");
    let phase = |name: &str| runtime.block_on(pods.get_opt(name)).unwrap()?.status?.phase;
    wait("the static pods to run", || {
        let agents = names.iter().filter(|it| it.contains("-web-"));
        let running =
            |node: &String| phase(&format!("node-agent-{node}")).as_deref() == Some("Running");
        agents.into_iter().all(running).then_some(())
    });
    assert_eq!(up.interrupt(), Some(0));
}

/// A small trace in the form of openb's.
fn trace(folder: &Path) {
    let nodes = "sn,cpu_milli,memory_mib,gpu,model\na,8000,16384,0,\nb,16000,32768,2,T4\n";
    let pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n\
                p-0,1000,1024,0,0,,LS,Running,0,40,0\n\
                p-1,1000,1024,1,500,T4,BE,Running,1,40,1\n\
                p-2,1000,1024,0,0,,LS,Succeeded,2,40,2\n";
    std::fs::write(folder.join("openb_node_list_all_node.csv"), nodes).unwrap();
    std::fs::write(folder.join("openb_pod_list_default.csv"), pods).unwrap();
}

#[test]
fn a_trace_is_replayed_and_its_nodes_are_a_scenario() {
    let folder = tempfile::tempdir().unwrap();
    trace(folder.path());
    let told = gantry()
        .args(["scenario", "openb"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(told.status.success(), "{told:?}");
    let file = folder.path().join("openb.yaml");
    std::fs::write(&file, &told.stdout).unwrap();
    let checked = gantry()
        .args(["scenario", "check"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.contains("Nodes: 2, of 2 classes"), "{text}");

    // On a slow machine a pod may take seconds: they stay for twenty.
    let output = gantry()
        .args(["bench", "openb", "--within", "20", "--output", "json"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["nodes"], &report["pods"], &report["compression"]),
        (&json!(2), &json!(3), &json!(2.0)),
        "{report}"
    );
    assert_eq!(report["neverRan"], 0, "{report}");
    assert!(
        report["createdToRunning"]["p99"].as_f64() > Some(0.0),
        "{report}"
    );
}
