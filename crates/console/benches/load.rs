//! 200 release pages that are kept open over 10 releases of 1,000 instances each that run: what that costs the
//! server, and how long a change takes to a page.
//!
//! `cargo bench -p gantry-console --bench load [-- SECONDS]`. The pages are those of a second process, so that
//! what is measured here is the console (and the API server of the hub that says who may see what).
#![expect(clippy::unwrap_used, reason = "a bench that fails ends")]

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use gantry_api::{Group, Release};
use gantry_cluster::EmbeddedCluster;
use gantry_console::{
    Console, Options, Tls,
    model::{Instance, Member, State},
};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kube::{Config, config::KubeConfigOptions};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, from_value, json};

const PAGES: usize = 200;
const RELEASES: usize = 10;
const INSTANCES: usize = 1000;
/// How often each release moves on, and by how many instances.
const TICK: Duration = Duration::from_millis(500);
const STEP: usize = 5;
const ZONES: [&str; 20] = [
    "UTC",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Asia/Singapore",
    "Asia/Dubai",
    "Asia/Seoul",
    "Asia/Jakarta",
    "Europe/London",
    "Europe/Berlin",
    "Europe/Paris",
    "Europe/Madrid",
    "Europe/Rome",
    "Europe/Moscow",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Sao_Paulo",
    "Australia/Sydney",
];

fn millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

fn name(release: usize) -> (String, String) {
    ("shop".to_owned(), format!("app-{release:02}-prod"))
}

fn release(n: usize, done: usize, at: u64) -> Release {
    let (tenant, group) = name(n);
    from_value(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "Release",
        "metadata": {"name": format!("{group}-2"), "namespace": tenant, "creationTimestamp": "2026-11-21T08:00:00Z"},
        "spec": {"group": group, "revision": {"image": "r/a:2"}},
        "status": {"phase": "Batch", "message": format!("t={at}; {done} of {INSTANCES} instances are updated"),
            "target": {"revision": 2}, "progress": {"updated": format!("{done}/{INSTANCES}"), "batch": "1/2"},
            "plan": {"batches": [
                {"index": 0, "size": 1, "slices": [{"cell": "sh-a", "highest": 999, "lowest": 999}]},
                {"index": 1, "size": 999, "slices": [{"cell": "sh-a", "highest": 998, "lowest": 0}]}],
                "replicas": INSTANCES, "maxOut": 100, "tolerance": 0, "method": "InPlace", "strategy": {}}}}))
    .unwrap()
}

fn instance(n: usize, ordinal: usize, revision: i64) -> Instance {
    let (tenant, group) = name(n);
    Instance {
        name: format!("{group}-sh-a-{ordinal}"),
        tenant,
        app: format!("app-{n:02}"),
        group,
        cell: "sh-a".to_owned(),
        node: format!("node-{:03}", ordinal % 200),
        revision: Some(revision),
        ready: true,
        in_service: true,
        cpu: 1000,
        memory: 2 << 30,
        ..Instance::default()
    }
}

fn state() -> State {
    let mut state = State::default();
    let mut member = Member::default();
    for n in 0..RELEASES {
        let (tenant, group) = name(n);
        let object: Group = from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": group, "namespace": tenant},
            "spec": {"app": format!("app-{n:02}"), "environment": "prod", "replicas": INSTANCES,
                "placement": {"cells": [{"name": "sh-a"}]}, "revision": {"image": "r/a:1"}},
            "status": {"observedGeneration": 1, "current": {"revision": 1, "image": "r/a:1"}, "replicas": INSTANCES,
                "ready": INSTANCES, "inService": INSTANCES}}))
        .unwrap();
        state.put_group(object);
        state.put_release(release(n, 0, millis()));
        for ordinal in 0..INSTANCES {
            member.put(instance(n, ordinal, 1));
        }
    }
    state.members.insert("sh".to_owned(), member);
    state
}

/// Processor time of this process, and the memory that it holds now.
fn spent() -> (Duration, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = [11, 12]
        .iter()
        .map(|n| fields[*n].parse::<u64>().unwrap())
        .sum();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (Duration::from_millis(ticks * 10), kib / 1024)
}

/// The pages: each a connection that reads what is sent. Prints what it saw as JSON at the end.
async fn pages(address: SocketAddr, cert: &str, token: &str, seconds: u64, zones: usize) {
    let pem = std::fs::read(cert).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let (bytes, updates) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel::<u64>();
    for page in 0..PAGES {
        let (tls, token, tell) = (tls.clone(), token.to_owned(), tell.clone());
        let (bytes, updates) = (bytes.clone(), updates.clone());
        let zone = ZONES[(page / RELEASES) % zones];
        tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let server = ServerName::try_from("localhost").unwrap();
            let stream = tls.connect(server, stream).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let (tenant, group) = name(page % RELEASES);
            let request = Request::get(format!("/live?u=/releases/{tenant}/{group}-2&m=0"))
                .header(header::HOST, "localhost")
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .header(
                    header::COOKIE,
                    format!("__Host-gantry-prefs=en.light.{zone}"),
                )
                .body(Full::new(Bytes::new()))
                .unwrap();
            let mut body = sender.send_request(request).await.unwrap().into_body();
            // When what the page shows was changed. The first is of the whole page, which a browser has already: how
            // long ago that was says nothing about the server.
            let mut shown: Option<u64> = None;
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if shown.is_some() {
                    bytes.fetch_add(data.len() as u64, Relaxed);
                }
                let text = String::from_utf8_lossy(&data);
                let Some(at) = text.find("t=1").or(text.find("t=2")) else {
                    continue;
                };
                let digits: String = text[at + 2..]
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                let Ok(at) = digits.parse::<u64>() else {
                    continue;
                };
                let before = shown.replace(at);
                if before.is_some_and(|before| at > before) {
                    updates.fetch_add(1, Relaxed);
                    let _ = tell.send(millis().saturating_sub(at));
                }
            }
        });
        // The first begins the session that all share: a token that many bring at once for the first time is braked,
        // as guesses are.
        if page == 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut late = Vec::new();
    while let Ok(ms) = told.try_recv() {
        late.push(ms);
    }
    late.sort_unstable();
    let at = |share: f64| {
        late.get((late.len() as f64 * share) as usize)
            .copied()
            .unwrap_or(0)
    };
    let report = json!({"bytes": bytes.load(Relaxed), "updates": updates.load(Relaxed),
        "median": at(0.5), "p99": at(0.99), "worst": late.last()});
    println!("{report}");
    std::io::stdout().flush().unwrap();
}

async fn measure(console: &Console, cert: &str, token: &str, seconds: u64, zones: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "pages",
            &console.address().to_string(),
            cert,
            token,
            &seconds.to_string(),
            &zones.to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, _) = spent();
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < Duration::from_secs(seconds - 4) {
        done = (done + STEP) % INSTANCES;
        let revision = if done < STEP { 1 } else { 2 };
        console.model().change(|state| {
            let at = millis();
            let mut topics = Vec::new();
            for n in 0..RELEASES {
                topics.push(state.put_release(release(n, done, at)));
                if let Some(member) = state.members.get_mut("sh") {
                    for ordinal in (done.saturating_sub(STEP)..done).map(|o| INSTANCES - 1 - o) {
                        topics.extend(member.put(instance(n, ordinal, revision)));
                    }
                }
            }
            topics
        });
        tokio::time::sleep(TICK).await;
    }
    let (after, memory) = spent();
    let wall = begun.elapsed();
    let output = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
        child.wait().unwrap();
        text
    });
    let report: Value = serde_json::from_str(output.await.unwrap().trim()).unwrap();
    let (bytes, updates) = (
        report["bytes"].as_u64().unwrap(),
        report["updates"].as_u64().unwrap(),
    );
    println!(
        "{:>5} {:>8.1}% {:>9} MB {:>9} {:>11} {:>8} ms {:>6} ms {:>7} ms",
        RELEASES * zones,
        (after - before).as_secs_f64() * 100.0 / wall.as_secs_f64(),
        memory,
        updates,
        bytes.checked_div(updates).unwrap_or(0),
        report["median"],
        report["p99"],
        report["worst"],
    );
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "pages") {
        let address = args[2].parse().unwrap();
        let (seconds, zones) = (args[5].parse().unwrap(), args[6].parse().unwrap());
        return pages(address, &args[3], &args[4], seconds, zones).await;
    }
    let seconds: u64 = args.iter().find_map(|a| a.parse().ok()).unwrap_or(30);
    let hub = EmbeddedCluster::builder()
        .scheduler(false)
        .nodes(vec![])
        .start()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let context = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(hub.kubeconfig(), &context);
    let options = Options {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: Tls::Made {
            folder: Some(folder.path().to_owned()),
            addresses: vec![],
        },
        hub: config.await.unwrap(),
        client: Some(hub.client()),
        door: false,
        records: None,
        oidc: None,
    };
    let console = Console::start_with(options, Some(state())).await.unwrap();
    let cert = folder.path().join("console.crt").display().to_string();
    println!(
        "{PAGES} open pages of {RELEASES} releases of {INSTANCES} instances; each moves on by {STEP} every {TICK:?}; \
         {} cores; {seconds} s each",
        std::thread::available_parallelism().unwrap()
    );
    println!(
        "{:>5} {:>9} {:>12} {:>9} {:>11} {:>11} {:>9} {:>10}",
        "rooms", "one core", "memory", "updates", "bytes each", "median", "p99", "worst"
    );
    let token = hub.context().token;
    // People who see the same are in one room; then everybody differently.
    for zones in [1, 20] {
        measure(&console, &cert, &token, seconds, zones).await;
    }
    console.shutdown().await;
    hub.shutdown().await;
}
