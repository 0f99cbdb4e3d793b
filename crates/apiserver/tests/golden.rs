//! Replays the recorded conversations with Kubernetes 1.36's API server, where they are there
//! (`../shared/golden`, or `$GANTRY_SHARED/golden`), and holds the outcome against the committed
//! list of cases known to differ.
//!
//! `GANTRY_GOLDEN_PRINT=1` prints every differing case.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use gantry_apiserver::{Authentication, Config, Server, StaticToken};
use gantry_store::{Options, Store};

const AREAS: [&str; 11] = [
    "apply",
    "auth",
    "crd",
    "crud",
    "lifecycle",
    "list-watch",
    "meta",
    "patch",
    "quota-and-limits",
    "subresources",
    "validation",
];

fn golden() -> Option<PathBuf> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("GANTRY_SHARED").map(PathBuf::from);
    let near = ["../../../shared", "../../../../shared"]
        .iter()
        .map(|p| crate_dir.join(p));
    given
        .into_iter()
        .chain(near)
        .map(|p| p.join("golden"))
        .find(|p| p.join("replay.py").exists())
}

/// `area/case` and why it is known to differ.
fn known() -> BTreeMap<&'static str, &'static str> {
    include_str!("golden-known-failures.txt")
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|l| l.split_once(' ').unwrap_or((l, "")))
        .collect()
}

#[test]
fn recorded_conversations_are_answered_as_kubernetes_does() {
    let Some(golden) = golden() else {
        println!("skipped: no recorded conversations beside the project");
        return;
    };
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: no python3 to replay them with");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let token = "golden-token";
    let config = Config {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        authentication: Authentication {
            tokens: vec![StaticToken {
                token: token.to_owned(),
                user: "admin".to_owned(),
                uid: "admin".to_owned(),
                groups: vec!["system:masters".to_owned()],
            }],
            ..Authentication::default()
        },
        allow_privileged: false,
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    let store = Store::in_memory(Options::default());
    let server = runtime
        .block_on(Server::start(config, store))
        .expect("the server starts");
    let url = format!("https://{}", server.address());
    let runs: Vec<_> = AREAS
        .map(|area| {
            let (golden, url) = (golden.clone(), url.clone());
            thread::spawn(move || {
                Command::new("python3")
                    .arg(golden.join("replay.py"))
                    .args(["--server", &url, "--token", token])
                    .args(["--insecure", "--lenient-messages"])
                    .arg(golden.join("cases").join(area))
                    .output()
                    .expect("replay.py runs")
            })
        })
        .into_iter()
        .collect();
    let mut failed = BTreeMap::new();
    let mut passed = 0;
    for (run, area) in runs.into_iter().zip(AREAS) {
        let output = run.join().expect("a thread");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = text.lines().last().unwrap_or_default().to_owned();
        let count = summary
            .split(' ')
            .next()
            .and_then(|n| n.parse::<u32>().ok());
        passed += count.unwrap_or_else(|| {
            panic!(
                "{area}: no summary: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        println!("{area}: {summary}");
        for line in text.lines().filter_map(|l| l.strip_prefix("FAIL ")) {
            if let Some((case, what)) = line.split_once(": ") {
                failed.insert(case.to_owned(), what.to_owned());
            }
        }
    }
    runtime.block_on(server.shutdown());
    println!("{passed} passed, {} differ", failed.len());
    if std::env::var_os("GANTRY_GOLDEN_PRINT").is_some() {
        for (case, what) in &failed {
            println!("DIFFERS {case} {what}");
        }
    }
    let known = known();
    let better: Vec<_> = known
        .keys()
        .filter(|case| !failed.contains_key(**case))
        .collect();
    if !better.is_empty() {
        println!("no longer differ, take them off the list: {better:?}");
    }
    let worse: Vec<String> = failed
        .iter()
        .filter(|(case, _)| !known.contains_key(case.as_str()))
        .map(|(case, what)| format!("{case}: {what}"))
        .collect();
    assert!(
        worse.is_empty(),
        "{} conversations differ that did not:\n{}",
        worse.len(),
        worse.join("\n")
    );
    assert!(passed > 0, "nothing was replayed");
}
