//! The whole flow with the real binary: import, release, failure, rollback, scale, a crash in the
//! middle of a release; on an embedded fleet with a restart too.

use std::path::Path;

use crate::support::{Fleet, Up, wait};
use serde_json::{Value, json};

/// The namespace that the flow works in.
pub const TENANT: [&str; 2] = ["-n", "bookshop"];

fn shop() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/bookshop.yaml")
        .display()
        .to_string()
}

/// A field of a group's status.
fn group(up: &impl Fleet, name: &str, pointer: &str) -> Value {
    let group = up.json(&["get", "groups", name, "-n", "bookshop", "-o", "json"]);
    group.pointer(pointer).cloned().unwrap_or_default()
}

/// Waits until a group has so many instances in service.
fn serving(up: &impl Fleet, name: &str, n: i64) {
    wait(&format!("{n} instances of {name} in service"), || {
        (group(up, name, "/status/inService") == json!(n)
            && group(up, name, "/status/replicas") == json!(n))
        .then_some(())
    });
}

fn instances(up: &impl Fleet, name: &str) -> Vec<Value> {
    up.json(&["get", "instances", name, "-n", "bookshop", "-o", "json"])
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn names_and_addresses(up: &impl Fleet, name: &str) -> Vec<(Value, Value)> {
    instances(up, name)
        .into_iter()
        .map(|i| (i["name"].clone(), i["address"].clone()))
        .collect()
}

/// A client of a context, or of the current one.
pub async fn client(kubeconfig: &Path, context: Option<String>) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions {
        context,
        ..Default::default()
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

/// Tells the simulated nodes of every member that images tagged `broken` never become ready.
fn break_tag(up: &impl Fleet) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for context in up.members() {
            let client = client(up.kubeconfig(), Some(context)).await;
            let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
                kube::Api::namespaced(client, "kube-system");
            let map = serde_json::from_value(json!({
                "metadata": {"name": "hollow-behaviours"},
                "data": {"rules.yaml": "- image: \"*:broken\"\n  ready: never\n"},
            }));
            maps.create(&Default::default(), &map.unwrap())
                .await
                .unwrap();
        }
    });
}

#[test]
fn a_shop_is_imported_released_broken_scaled_and_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let up = whole_flow(Up::start(folder.path(), &["--nodes", "8"]), 4);

    // Started again after a clean stop, everything is as it was.
    let before = names_and_addresses(&up, "cart-prod");
    assert_eq!(up.interrupt(), Some(0));
    let up = Up::start(folder.path(), &[]);
    serving(&up, "cart-prod", 6);
    assert_eq!(names_and_addresses(&up, "cart-prod"), before);
}

/// From plain manifests to a release that outlives a crash, on any fleet of so many cells.
pub fn whole_flow<F: Fleet + Sync>(up: F, cells: usize) -> F {
    imported(&up, cells);
    // Of other groups, so that neither waits for the other.
    std::thread::scope(|scope| {
        scope.spawn(|| an_order_of_two(&up));
        released(&up);
        single_instances(&up);
    });
    outlives_a_crash(up)
}

/// The same without what does not depend on where the parts run: orders and what is done to single instances.
pub fn short_flow<F: Fleet>(up: F, cells: usize) -> F {
    imported(&up, cells);
    released(&up);
    outlives_a_crash(up)
}

fn imported(up: &impl Fleet, cells: usize) {
    // Import: every service becomes a group, and instances come into service in all cells.
    let said = up.ok(&[
        "import",
        "-f",
        &shop(),
        "--tenant",
        "bookshop",
        "--replicas",
        "4",
    ]);
    assert!(said.contains("12 apps and 12 groups made"), "{said}");
    for name in ["cart-prod", "checkout-prod"] {
        serving(up, name, 4);
    }
    let mut used: Vec<_> = instances(up, "cart-prod")
        .iter()
        .map(|i| i["cell"].clone())
        .collect();
    used.sort_by_key(Value::to_string);
    used.dedup();
    assert_eq!(used.len(), cells, "instances in every cell: {used:?}");
}

fn released(up: &impl Fleet) {
    let before = names_and_addresses(up, "cart-prod");

    // A good release: everything on the new image, names and addresses as before. First its plan, which
    // changes nothing.
    let image = "registry.example.com/bookshop/cart:1.1.0";
    let plan = ["release", "plan", "cart-prod", "--image", image];
    let said = up.ok(&[&plan[..], &TENANT, &["--batches", "1,2"]].concat());
    assert!(
        said.contains("update in place of 4 instances in 2 batches") && said.contains("bastion"),
        "{said}"
    );
    assert_eq!(group(up, "cart-prod", "/status/current/revision"), json!(1));
    let args = [
        "release",
        "start",
        "cart-prod",
        "--image",
        image,
        "--accept",
        "auto",
        "--batches",
        "50%",
    ];
    let output = up.run(&[&args[..], &TENANT, &["--watch", "--timeout", "3m"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    assert_eq!(
        group(up, "cart-prod", "/status/current/image"),
        json!(image)
    );
    serving(up, "cart-prod", 4);
    assert!(
        instances(up, "cart-prod")
            .iter()
            .all(|i| i["image"] == image),
        "{:#?}",
        instances(up, "cart-prod")
    );
    assert_eq!(names_and_addresses(up, "cart-prod"), before);

    // What is in it; then one of the environment alone, which a stopped line halts before it begins.
    let said = up.ok(&[&["revision", "list", "cart-prod"], &TENANT[..]].concat());
    assert!(said.contains(image) && said.contains("current"), "{said}");
    let said = up.ok(&[&["revision", "diff", "cart-prod", "1", "2"], &TENANT[..]].concat());
    assert!(
        said.contains("revision 1 → 2") && said.contains("cart:1.1.0"),
        "{said}"
    );
    let stop = ["line", "stop", "e2e", "--of-tenant", TENANT[1]];
    up.ok(&[&stop[..], &["--reason", "end-to-end test"]].concat());
    let args = ["release", "start", "cart-prod", "--env", "LOG=debug"];
    let how = [
        "--accept",
        "auto",
        "--batches",
        "100%",
        "--max-unavailable",
        "2",
    ];
    up.ok(&[&args[..], &how, &TENANT].concat());
    let release = wait("the stopped line to be told of", || {
        let args = ["release", "status", "cart-prod", "-o", "json"];
        let release = up.json(&[&args[..], &TENANT].concat());
        (release["status"]["reason"] == "LineStopped").then_some(release)
    });
    let message = release["status"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("has stopped the line of tenant bookshop: end-to-end test"),
        "{message}"
    );
    up.ok(&["line", "go", "e2e"]);
    let watch = ["--watch", "--timeout", "3m"];
    let output = up.run(&[&["release", "status", "cart-prod"], &TENANT[..], &watch].concat());
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    serving(up, "cart-prod", 4);
    assert_eq!(
        names_and_addresses(up, "cart-prod")
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>(),
        before
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    );

    // A broken one: stopped at the bastion, said why, taken back; the exit code tells.
    break_tag(up);
    let args = [
        "release",
        "start",
        "checkout-prod",
        "--image",
        "registry.example.com/bookshop/checkout:broken",
    ];
    let how = [
        "--accept",
        "auto",
        "--instance-deadline",
        "5s",
        "--on-failure",
        "rollback",
        "--watch",
        "--timeout",
        "3m",
    ];
    let output = up.run(&[&args[..], &TENANT, &how].concat());
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    let release = up.json(&[
        "release",
        "status",
        "checkout-prod",
        "-n",
        "bookshop",
        "-o",
        "json",
    ]);
    assert_eq!(release["status"]["phase"], "RolledBack", "{release:#}");
    let updated = release["status"]["batches"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|b| b["index"] != 0);
    assert!(
        updated
            .clone()
            .all(|b| b["updated"] == 0 || b["updated"].is_null()),
        "no batch was touched: {release:#}"
    );
    serving(up, "checkout-prod", 4);
    assert!(
        instances(up, "checkout-prod")
            .iter()
            .all(|i| i["revision"] == "1")
    );

    // Scale, by the scale subresource.
    up.ok(&[
        &["scale", "cart-prod", "--replicas", "6"],
        &TENANT[..],
        &["--watch", "--timeout", "2m"],
    ]
    .concat());
    assert_eq!(instances(up, "cart-prod").len(), 6);
    assert!(
        instances(up, "cart-prod")
            .iter()
            .all(|i| i["image"] == image)
    );
}

/// A release waits for a person; the process dies; another goes on from where it was.
fn outlives_a_crash<F: Fleet>(up: F) -> F {
    let image = "registry.example.com/bookshop/cart:1.2.0";
    up.ok(&[
        &[
            "release",
            "start",
            "cart-prod",
            "--image",
            image,
            "--batches",
            "2",
            "--max-unavailable",
            "2",
        ],
        &TENANT[..],
    ]
    .concat());
    wait("the bastion to be ready", || {
        let release = up.json(&[
            "release",
            "status",
            "cart-prod",
            "-n",
            "bookshop",
            "-o",
            "json",
        ]);
        (release["status"]["batches"][0]["state"] == "Ready").then_some(())
    });
    up.ok(&[&["release", "continue", "cart-prod"], &TENANT[..]].concat());
    let up = up.crash();
    let watch = ["--watch", "--timeout", "3m"];
    let output = up.run(&[&["release", "status", "cart-prod"], &TENANT[..], &watch].concat());
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    serving(&up, "cart-prod", 6);
    assert!(
        instances(&up, "cart-prod")
            .iter()
            .all(|i| i["image"] == image)
    );
    up
}

/// Nothing to give up; single instances out of service, back, and restarted.
fn single_instances(up: &impl Fleet) {
    let watch = ["--watch", "--timeout", "3m"];
    let said = up.ok(&[&["scale", "cart-prod", "--cancel"], &TENANT[..]].concat());
    assert!(said.contains("nothing is under way"), "{said}");
    let name = instances(up, "cart-prod")[0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let pull = ["instance", "pull-out", &name, "--reason", "end-to-end test"];
    up.ok(&[&pull[..], &TENANT].concat());
    wait("the instance to be out of service", || {
        let pulled = instances(up, "cart-prod")
            .into_iter()
            .find(|i| i["name"] == *name);
        (pulled.unwrap()["inService"] == false).then_some(())
    });
    up.ok(&[&["instance", "put-back", &name], &TENANT[..]].concat());
    serving(up, "cart-prod", 6);
    up.ok(&[&["instance", "restart", &name], &TENANT[..]].concat());
    let output = up.run(&[&["restart", "cart-prod"], &TENANT[..], &watch].concat());
    assert_eq!(output.status.code(), Some(0), "{output:#?}");

    let said = up.ok(&[&["promotions", "cart"], &TENANT[..]].concat());
    assert!(
        said.contains("cart-prod") && said.contains("Settled"),
        "{said}"
    );
    let args = ["promote", "cart", "--to", "moon"];
    let output = up.run(&[&args[..], &TENANT].concat());
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
}

/// One release order over two groups, one after the other, and back.
fn an_order_of_two(up: &impl Fleet) {
    let watch = ["--watch", "--timeout", "3m"];
    for name in ["search-prod", "reviews-prod"] {
        serving(up, name, 4);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("night.yaml");
    let quick =
        "{inline: {bastion: {instances: 0}, batches: {count: 1}, pause: Never, maxUnavailable: 3}}";
    let node = |name: &str, after: &str| {
        format!(
            "- {{name: {name}, after: [{after}], release: {{group: {name}-prod, revision: {{env: [{{name: NIGHT, value: '1'}}]}}, strategy: {quick}}}}}\n"
        )
    };
    std::fs::write(
        &file,
        format!(
            "nodes:\n{}{}",
            node("search", ""),
            node("reviews", "search")
        ),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let said = up.ok(&[&["order", "plan", "-f", file], &TENANT[..]].concat());
    assert!(said.contains("release search-prod"), "{said}");
    let start = ["order", "start", "-f", file, "--name", "night"];
    let output = up.run(&[&start[..], &TENANT, &watch].concat());
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    let said = up.ok(&[&["get", "orders"], &TENANT[..]].concat());
    assert!(
        said.contains("night") && said.contains("Succeeded") && said.contains("2/2"),
        "{said}"
    );
    up.ok(&[&["order", "status", "night"], &TENANT[..]].concat());
    let back = ["order", "rollback", "night"];
    let output = up.run(&[&back[..], &TENANT, &watch].concat());
    assert_eq!(output.status.code(), Some(3), "{output:#?}");
    let order = up.json(&[&["order", "status", "night", "-o", "json"], &TENANT[..]].concat());
    assert_eq!(order["status"]["phase"], "RolledBack", "{order:#}");
    serving(up, "reviews-prod", 4);
}
