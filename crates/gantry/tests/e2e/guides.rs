//! Guides as a reader follows them: every indented line of theirs, in order, by a shell, on one embedded fleet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::adopt;
use crate::fleet::client;
use crate::support::{Fleet, Up, gantry, wait};

/// What a reader puts his own word for. An entry that no command has any more fails the test.
const OWN_WORDS: [(&str, &str); 2] = [
    ("helm template web ./chart", "cat web.json"),
    // The guide shows two ways to leave, and a Group can leave once.
    (
        "unmanage web-prod -n shop --kind deployment",
        "unmanage db-prod -n shop --kind deployment",
    ),
];

/// Commands for which a Group or a release has to get somewhere first.
const LATER: [&str; 4] = [
    "release plan",
    "release continue",
    "release approve",
    "release abort",
];

fn guide(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

/// Lines that are indented by four blanks, outside of fences.
fn commands(guide: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut commands = vec![];
    for line in guide.lines() {
        fenced ^= line.starts_with("```");
        if let Some(command) = line.strip_prefix("    ").filter(|_| !fenced) {
            commands.push(command.trim());
        }
    }
    commands
}

/// What a fence holds whose text has this word.
fn fence<'a>(guide: &'a str, word: &str) -> &'a str {
    let fences = guide.split("```yaml\n").skip(1);
    let mut texts = fences.filter_map(|f| f.split("```").next());
    texts.find(|t| t.contains(word)).unwrap()
}

/// Blocks that are files: their first line is a comment with the name.
fn files(guide: &str) -> impl Iterator<Item = (&str, &str)> {
    let fences = guide.split("```yaml\n").skip(1);
    let texts = fences.filter_map(|f| f.split("```").next());
    texts.filter_map(|text| {
        let name = text.lines().next()?.strip_prefix("# ")?;
        name.ends_with(".yaml").then_some((name, text))
    })
}

/// A reader's shell: the binary is called `gantry` there, and the fleet is the one he works with.
struct Shell {
    folder: PathBuf,
    path: String,
    kubeconfig: PathBuf,
    used: BTreeSet<&'static str>,
}

impl Shell {
    fn new(folder: &Path, up: &Up) -> Shell {
        let bin = folder.join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(gantry().get_program(), bin.join("gantry")).unwrap();
        Shell {
            folder: folder.to_owned(),
            path: format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
            kubeconfig: up.kubeconfig().to_owned(),
            used: BTreeSet::new(),
        }
    }

    fn run(&self, line: &str) -> Output {
        // A command that stays until something has come about fails where it never does.
        let mut bash = Command::new("timeout");
        bash.args(["180", "bash", "-o", "pipefail", "-c", line])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .env_remove("GANTRY_DATA_DIR")
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1")
            .env("HOME", &self.folder)
            .env("PATH", &self.path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("GANTRY_KUBECONFIG", &self.kubeconfig);
        bash.output().unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:#?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A guide's command, with the reader's own words; it must succeed and say something.
    fn follow(&mut self, command: &str) -> String {
        let mut line = command.to_owned();
        for (theirs, own) in OWN_WORDS {
            if line.contains(theirs) {
                line = line.replace(theirs, own);
                self.used.insert(theirs);
            }
        }
        let said = self.ok(&line);
        assert!(!said.trim().is_empty(), "{line} says nothing");
        said
    }

    /// A guide's command. Some a reader gives when the release has got so far; before, they are refused and
    /// nothing is done.
    fn walk(&mut self, command: &str) {
        if LATER.iter().any(|l| command.contains(l)) {
            wait(&format!("{command} to be taken"), || {
                self.run(command).status.success().then_some(())
            });
        } else {
            self.follow(command);
        }
    }
}

fn adopting(up: &Up, shell: &mut Shell) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        adopt::make(&client(up.kubeconfig(), Some("sh".to_owned())).await).await;
    });
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": adopt::spec("web", 4)});
    std::fs::write(shell.folder.join("web.json"), web.to_string()).unwrap();
    // The guide is about what runs: a rollout under way is in the way.
    wait("the workloads to run", || {
        let said = shell
            .run("gantry adopt deployment/web statefulset/db -n shop --cluster sh --dry-run")
            .stdout;
        String::from_utf8(said)
            .unwrap()
            .contains("2 of 2 workloads can be adopted: 6 instances")
            .then_some(())
    });
    let text = guide("adopting.md");
    let mut dry = vec![];
    for command in commands(&text) {
        let said = shell.follow(command);
        if command.contains("adopt") && command.contains("--dry-run") {
            dry.push(said);
        }
    }
    let can = |n: usize| format!("{n} of {n} workload");
    assert_eq!(dry.len(), 3, "{dry:#?}");
    for (said, n) in dry.iter().zip([2, 2, 1]) {
        assert!(
            said.contains(&can(n)) && said.contains("can be adopted"),
            "{said}"
        );
    }
    // All have left again.
    let groups = up.json(&["get", "groups", "-n", "shop", "-o", "json"]);
    assert_eq!(groups["items"], json!([]), "{groups}");
}

/// The guide's two looks are `kubectl`'s; its export is applied as it stands there.
fn fleet_services(shell: &mut Shell) {
    let text = guide("fleet-services.md");
    std::fs::write(
        shell.folder.join("export.yaml"),
        fence(&text, "ServiceExport"),
    )
    .unwrap();
    wait("the hub to bring the definitions", || {
        let seen = shell.run("kubectl --context sh get serviceexport,serviceimport -A");
        seen.status.success().then_some(())
    });
    shell.run("kubectl --context bj create namespace shop");
    shell.ok("kubectl --context sh create service clusterip cart-prod -n shop --tcp=80");
    shell.ok("kubectl --context sh apply -f export.yaml");
    wait("the import to be in the other member", || {
        let seen = shell.run("kubectl --context bj get serviceimport cart-prod -n shop -o name");
        seen.status.success().then_some(())
    });
    let condition = "kubectl --context sh wait serviceexport/cart-prod -n shop --for=condition=Ready --timeout=60s";
    shell.ok(condition);
    let said: Vec<String> = commands(&text).iter().map(|c| shell.follow(c)).collect();
    assert!(
        said[0].contains("serviceimport.multicluster.x-k8s.io/cart-prod"),
        "{said:?}"
    );
    for kind in ["Valid", "Ready", "Conflict"] {
        assert!(said[1].contains(&format!("type: {kind}")), "{said:?}");
    }
}

/// The shop of the README's "Use it", and what kubectl does there; how to start is what the other tests do.
fn readme(up: &Up, shell: &mut Shell) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::os::unix::fs::symlink(root.join("examples"), shell.folder.join("examples")).unwrap();
    let text = std::fs::read_to_string(root.join("README.md")).unwrap();
    let used = text.split("## Use it").nth(1).unwrap();
    let blocks: Vec<&str> = used
        .split("```sh\n")
        .filter_map(|b| b.split("```").next())
        .collect();
    for word in ["gantry import", "kubectl get releases"] {
        let block = blocks.iter().find(|b| b.contains(word)).unwrap();
        // This shell has its kubeconfig.
        for command in block.lines().filter(|l| !l.starts_with("export ")) {
            shell.walk(command);
        }
    }
    wait("8 instances in service, as kubectl wished", || {
        let seen = up.json(&["get", "groups", "cart-prod", "-n", "bookshop", "-o", "json"]);
        (seen["status"]["inService"] == 8).then_some(())
    });
    // Who did that is in the records, though no object says so.
    wait("the name of whoever scaled", || {
        let said = up.ok(&[
            "history",
            "cart-prod",
            "-n",
            "bookshop",
            "--verb",
            "scale",
            "-o",
            "json",
        ]);
        let last: serde_json::Value = serde_json::from_str(said.lines().next()?).unwrap();
        (last["after"]["replicas"] == 8 && last["who"]["user"] == "admin").then(|| {
            assert_eq!(last["who"]["via"], "kubectl", "{last}");
            assert_eq!(last["before"]["replicas"], 12, "{last}");
        })
    });
}

#[test]
fn the_guides_to_adopting_and_to_services_do_as_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--nodes", "8"]);
    let mut shell = Shell::new(folder.path(), &up);
    adopting(&up, &mut shell);
    if shell.run("kubectl version --client").status.success() {
        fleet_services(&mut shell);
        readme(&up, &mut shell);
    } else {
        eprintln!("kubectl is not installed: docs/fleet-services.md and README.md are not run");
    }
    let theirs: BTreeSet<&str> = OWN_WORDS.iter().map(|w| w.0).collect();
    assert_eq!(shell.used, theirs, "own words that no command has any more");
    assert_eq!(up.interrupt(), Some(0));
}

/// How a release or an order stands, once it stands so.
fn stands(up: &Up, kind: &str, name: &str, phase: &str) -> serde_json::Value {
    wait(&format!("{kind} {name} to be {phase}"), || {
        let found = up.json(&[kind, "status", name, "-n", "shop", "-o", "json"]);
        (found["status"]["phase"] == phase).then_some(found)
    })
}

#[test]
fn the_guide_to_releasing_does_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--nodes", "8"]);
    let mut shell = Shell::new(folder.path(), &up);
    if !shell.run("kubectl version --client").status.success() {
        eprintln!("kubectl is not installed: docs/releasing.md is not run");
        return;
    }
    let text = guide("releasing.md");
    for (name, text) in files(&text) {
        std::fs::write(shell.folder.join(name), text).unwrap();
    }
    for command in commands(&text) {
        shell.walk(command);
    }

    // What the buttons made of the releases, in the guide's order.
    let cart = [
        ("cart-prod-2", "Succeeded"),
        ("cart-prod-3", "RolledBack"),
        ("cart-prod-4", "Succeeded"),
        ("cart-prod-5", "Succeeded"),
        ("cart-prod-6", "Succeeded"),
    ];
    let others = [("api-prod-2", "RolledBack"), ("night-42-api", "Aborted")];
    for (name, phase) in cart.into_iter().chain(others) {
        stands(&up, "release", name, phase);
    }
    let forced = stands(&up, "release", "cart-test-2", "Succeeded");
    assert_eq!(
        forced["status"]["overrides"][0]["reason"], "CVE-2026-0001",
        "{forced:#}"
    );
    stands(&up, "order", "night-42", "RolledBack");
    stands(&up, "order", "night-43", "Aborted");
    let promoted = stands(&up, "release", "cart-prod-5", "Succeeded");
    assert!(
        promoted["status"]["overrides"][0].is_object(),
        "{promoted:#}"
    );
    let orders = [
        "history",
        "--kind",
        "ReleaseOrder",
        "-n",
        "shop",
        "-o",
        "json",
    ];
    wait("the orders to be recorded", || {
        let said = up.ok(&orders);
        let of = |what: &str| said.lines().any(|l| l.contains(what));
        (of("night-42") && of("night-43")).then_some(())
    });
    wait("the instance to be moved to sh-a", || {
        let seen = up.json(&["get", "groups", "cart-prod", "-n", "shop", "-o", "json"]);
        let cells = seen["status"]["cells"].as_array()?;
        let sh = cells.iter().find(|c| c["name"] == "sh-a")?;
        (sh["replicas"] == 2 && seen["status"]["inService"] == 6).then_some(())
    });
    wait("the instance to be moved to its node", || {
        let seen = up.json(&["get", "instances", "cart-prod", "-n", "shop", "-o", "json"]);
        let mut all = seen.as_array()?.iter();
        let moved = all.find(|i| i["name"] == "cart-prod-sh-a-0")?;
        (moved["node"] == "sh-a-002" && moved["inService"] == true).then_some(())
    });
    assert_eq!(up.interrupt(), Some(0));
}
