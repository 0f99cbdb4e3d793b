//! Replays the recorded conversations with Kubernetes 1.36's API server, where they are there
//! (`../shared/golden`, or `$GANTRY_SHARED/golden`), and holds the outcome against two committed
//! lists: of cases known to differ, and of those that differ in the wording of messages and
//! warnings only.
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
fn known(list: &'static str) -> BTreeMap<&'static str, &'static str> {
    list.lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|l| l.split_once(' ').unwrap_or((l, "")))
        .collect()
}

/// What one run of replay.py said: how many cases passed, and of the others the first difference.
struct Outcome {
    passed: u32,
    failed: BTreeMap<String, String>,
}

struct Replay {
    golden: PathBuf,
    url: String,
    token: &'static str,
}

impl Replay {
    fn run(&self, options: &[&str], paths: Vec<PathBuf>) -> Result<Outcome, String> {
        let output = Command::new("python3")
            .arg(self.golden.join("replay.py"))
            .args(["--server", &self.url, "--token", self.token])
            .arg("--insecure")
            .args(options)
            .args(&paths)
            .output()
            .map_err(|e| format!("replay.py does not run: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = text.lines().last().unwrap_or_default();
        let count = summary.split(' ').next().and_then(|n| n.parse().ok());
        let passed = count.ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!("{paths:?}: no summary: {text}{errors}")
        })?;
        let failed = text
            .lines()
            .filter_map(|l| l.strip_prefix("FAIL ")?.split_once(": "))
            .map(|(case, what)| (case.to_owned(), what.to_owned()))
            .collect();
        Ok(Outcome { passed, failed })
    }
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
    let replay = Replay {
        golden,
        url: format!("https://{}", server.address()),
        token,
    };
    let mut exact = Outcome {
        passed: 0,
        failed: BTreeMap::new(),
    };
    thread::scope(|scope| {
        let runs: Vec<_> = AREAS
            .map(|area| {
                let replay = &replay;
                let run = move || replay.run(&[], vec![replay.golden.join("cases").join(area)]);
                (area, scope.spawn(run))
            })
            .into_iter()
            .collect();
        for (area, run) in runs {
            let outcome = run.join().expect("a thread").expect("an outcome");
            println!(
                "{area}: {} passed, {} differ",
                outcome.passed,
                outcome.failed.len()
            );
            exact.passed += outcome.passed;
            exact.failed.extend(outcome.failed);
        }
    });
    // Cases end at their first difference: what is wrong beyond words is seen without them.
    let files = exact.failed.keys();
    let files = files.map(|case| replay.golden.join("cases").join(format!("{case}.json")));
    let lenient = match files.collect::<Vec<_>>() {
        files if files.is_empty() => BTreeMap::new(),
        files => {
            let outcome = replay.run(&["--lenient-messages"], files);
            outcome.expect("an outcome").failed
        }
    };
    runtime.block_on(server.shutdown());
    println!(
        "{} passed word for word, {} in all but words, {} differ",
        exact.passed,
        exact.failed.len() - lenient.len(),
        lenient.len()
    );
    assert!(exact.passed > 0, "nothing was replayed");
    let wording: BTreeMap<String, String> = exact
        .failed
        .into_iter()
        .filter(|(case, _)| !lenient.contains_key(case))
        .collect();
    let mut worse = compare(
        &lenient,
        &known(include_str!("../golden-known-failures.txt")),
        "",
    );
    worse.extend(compare(
        &wording,
        &known(include_str!("../golden-known-wording.txt")),
        "words only: ",
    ));
    assert!(
        worse.is_empty(),
        "{} conversations differ that did not:\n{}",
        worse.len(),
        worse.join("\n")
    );
}

/// What differs and is not on the list.
fn compare(
    failed: &BTreeMap<String, String>,
    known: &BTreeMap<&str, &str>,
    how: &str,
) -> Vec<String> {
    if std::env::var_os("GANTRY_GOLDEN_PRINT").is_some() {
        for (case, what) in failed {
            println!("DIFFERS {how}{case} {what}");
        }
    }
    let better: Vec<_> = known
        .keys()
        .filter(|case| !failed.contains_key(**case))
        .collect();
    if !better.is_empty() {
        println!("no longer differ, take them off the list: {better:?}");
    }
    failed
        .iter()
        .filter(|(case, _)| !known.contains_key(case.as_str()))
        .map(|(case, what)| format!("{how}{case}: {what}"))
        .collect()
}
