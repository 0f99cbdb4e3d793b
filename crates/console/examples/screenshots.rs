//! Pictures of each page, of a small fleet with everything that can be seen: `docs/console/*.png`.
//!
//! `cargo run -p gantry-console --example screenshots [FOLDER]`; needs chromium and chromium-driver.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "an example that fails ends"
)]

use std::path::PathBuf;

use gantry_api::Phase;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

#[path = "../tests/e2e/stage.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod stage;
#[path = "../tests/e2e/webdriver.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod webdriver;

use stage::Stage;
use webdriver::{Browser, there};

#[tokio::main]
async fn main() {
    let folder = PathBuf::from(
        std::env::args()
            .nth(1)
            .unwrap_or_else(|| "docs/console".to_owned()),
    );
    if !there() {
        return;
    }
    std::fs::create_dir_all(&folder).unwrap();
    let stage = Stage::start(60).await;
    people(&stage).await;
    let browser = Browser::start(1440, 900).await;
    browser.go(&stage.console.door().unwrap()).await;
    browser
        .until("logged in", "document.querySelector('#counts')")
        .await;
    for theme in ["light", "dark"] {
        set(&stage, &browser, "en", theme).await;
        let wanted = |name: &str| theme == "light" || DARK.contains(&name);
        for (name, path, height) in PAGES.iter().filter(|(name, ..)| wanted(name)) {
            shot(
                &stage,
                &browser,
                &folder,
                &format!("{name}-{theme}"),
                path,
                1440,
                *height,
            )
            .await;
        }
    }
    set(&stage, &browser, "zh-CN", "light").await;
    for name in CHINESE {
        let (_, path, height) = PAGES.iter().find(|(n, ..)| n == name).unwrap();
        let picture = format!("{name}-zh");
        shot(&stage, &browser, &folder, &picture, path, 1440, *height).await;
    }
    set(&stage, &browser, "en", "dark").await;
    for name in PHONE {
        let (_, path, _) = PAGES.iter().find(|(n, ..)| n == name).unwrap();
        let picture = format!("{name}-phone");
        shot(&stage, &browser, &folder, &picture, path, 420, 860).await;
    }
    browser.close().await;
    stage.shutdown().await;
}

/// Those that are shown in the dark as well.
const DARK: &[&str] = &[
    "fleet", "release", "create", "logs", "policy", "quotas", "terminal", "group",
];

/// Those in Chinese.
const CHINESE: &[&str] = &["fleet", "release", "move", "settings"];

/// Those at the width of a phone.
const PHONE: &[&str] = &["fleet", "group", "release", "terminal", "policy"];

const PAGES: &[(&str, &str, u32)] = &[
    ("fleet", "/", 1000),
    ("fleet-load", "/?by=load", 1000),
    ("services", "/services", 900),
    (
        "move",
        "/groups/shop/cart-prod/instances?verb=move&instance=cart-prod-sh-a-1&instance=cart-prod-sh-a-5&to=bj-b",
        640,
    ),
    ("group", "/groups/shop/checkout-prod", 1000),
    ("revisions", "/groups/shop/cart-prod?tab=revisions", 800),
    ("release", "/releases/shop/checkout-prod-2", 900),
    ("release-halted", "/releases/shop/front-prod-2", 1000),
    (
        "release-start",
        "/groups/shop/catalog-prod/release?image=registry.example.com/shop/catalog:2.0.0&strategy=inline&sizes=10%25,+30%25,+60%25&pause=AfterBastion",
        1100,
    ),
    ("rollback", "/releases/shop/front-prod-2/rollback", 520),
    ("scale", "/groups/shop/catalog-prod/scale", 620),
    ("instance", "/instances/sh/shop/cart-prod-sh-a-0", 760),
    ("logs", "/instances/sh/shop/cart-prod-sh-a-0?tab=logs", 860),
    ("nodes", "/nodes?sort=-instances", 900),
    ("node", "/nodes/sh/sh-a-001", 800),
    ("drain", "/nodes/sh/sh-a-001/drain", 700),
    (
        "create",
        "/create?tenant=shop&app=pay&image=registry.example.com/shop/pay:1.0.0&replicas=6&ports=8080&ready=/healthz&cpu=250m&memory=256Mi",
        1000,
    ),
    ("records", "/records", 900),
    ("policies", "/policies", 760),
    ("policy", "/policies/sh/checkout-reserved-first", 900),
    ("quotas", "/quotas", 860),
    ("quota", "/tenants/shop", 860),
    (
        "terminal",
        "/instances/sh/shop/cart-prod-sh-a-0?tab=terminal",
        860,
    ),
    (
        "placement",
        "/instances/sh/shop/cart-prod-sh-a-0?tab=placement",
        900,
    ),
    ("hooks", "/notifications/shop/chat", 900),
    ("lines", "/lines", 820),
    ("settings", "/settings", 720),
];

/// Tenants, services, and releases in every state.
async fn people(stage: &Stage) {
    let shop = [
        ("cart", 24, "L1", "4", "8Gi"),
        ("checkout", 60, "L0", "6", "12Gi"),
        ("front", 16, "L1", "2", "4Gi"),
        ("catalog", 40, "L1", "3", "16Gi"),
        ("ads", 8, "L3", "1", "2Gi"),
        ("currency", 8, "L2", "500m", "1Gi"),
        ("mail", 4, "L3", "500m", "1Gi"),
        ("shipping", 12, "L2", "1", "4Gi"),
    ];
    for (app, replicas, level, cpu, memory) in shop {
        let more = json!({"level": level, "cpu": cpu, "memory": memory});
        stage.service("shop", app, replicas, more).await;
    }
    let bank = [("ledger", 20, "8"), ("vault", 12, "2"), ("fraud", 16, "12")];
    for (app, replicas, cpu) in bank {
        let more = json!({"level": "L0", "cpu": cpu, "memory": "24Gi"});
        stage.service("bank", app, replicas, more).await;
    }
    for (app, ..) in shop {
        stage.in_service("shop", &format!("{app}-prod")).await;
    }
    for (app, ..) in bank {
        stage.in_service("bank", &format!("{app}-prod")).await;
    }
    let quick = json!({"bastion": {"instances": 1, "accept": "Auto"}, "batches": {"sizes": ["50%"]}, "maxUnavailable": "50%"});
    stage
        .release("shop", "cart-prod", "1.5.0", quick.clone())
        .await;
    stage.release("bank", "ledger-prod", "3.1.0", json!({"bastion": {"instances": 1}, "batches": {"sizes": ["25%"]},
        "gates": [{"name": "sre-approves", "at": ["Bastion"], "approval": {"count": 2, "groups": ["sre"]}}]})).await;
    stage.release("shop", "front-prod", "broken", json!({"bastion": {"instances": 0}, "batches": {"sizes": [2, "50%"]}, "maxUnavailable": 2, "deadlines": {"instance": "4s"}})).await;
    let done = |r: &gantry_api::Release| {
        r.status
            .as_ref()
            .is_some_and(|s| s.phase == Phase::Succeeded)
    };
    stage.release_is("shop", "cart-prod-2", "done", done).await;
    stage
        .release_is("shop", "front-prod-2", "halted", |r| {
            r.status.as_ref().is_some_and(|s| s.halt.is_some())
        })
        .await;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(stage.members[1].client());
    for node in ["bj-a-003", "bj-b-017"] {
        nodes
            .patch(
                node,
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": {"unschedulable": true}})),
            )
            .await
            .unwrap();
    }
    limits(stage).await;
    // In the middle of its batches when it is looked at: it waits after the second.
    let slow = json!({"bastion": {"instances": 1, "accept": "Auto"}, "batches": {"sizes": ["20%", "30%", "50%"]}, "maxUnavailable": 6, "minReady": "4s", "interval": "2s",
        "pause": "Never", "gates": [{"name": "soak", "at": ["Batch"], "wait": "600s"}]});
    stage.release("shop", "checkout-prod", "2.3.0", slow).await;
    stage
        .release_is(
            "shop",
            "checkout-prod-2",
            "in its first batch's gate",
            |r| {
                r.status
                    .as_ref()
                    .is_some_and(|s| s.gates.iter().any(|g| g.batch == 1))
            },
        )
        .await;
}

/// Policies, quotas and a hook, of which some bind.
async fn limits(stage: &Stage) {
    let policies = [
        (
            "checkout-reserved-first",
            json!({"priority": 50, "pods": {"namespaces": ["shop"], "apps": ["checkout"]},
                "pools": [{"name": "reserved", "nodeSelector": {"example.com/pool": "reserved"}}, {"name": "elastic", "nodeSelector": {"example.com/pool": "elastic"}}], "spread": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 2}], "load": {"cpu": 80, "memory": 85}}),
        ),
        (
            "batch-packed",
            json!({"priority": 10, "pods": {"levels": ["L3"]}, "strategy": "Pack"}),
        ),
        (
            "bank-apart",
            json!({"priority": 90, "pods": {"namespaces": ["bank"]}, "avoid": [{"selector": {"matchLabels": {"gantry.dev/level": "L3"}}, "topologyKey": "kubernetes.io/hostname", "weight": 60}]}),
        ),
    ];
    for member in &stage.members {
        for (name, spec) in &policies {
            let object = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": name}, "spec": spec});
            let api: Api<gantry_api::PlacementPolicy> = Api::all(member.client());
            api.create(
                &PostParams::default(),
                &serde_json::from_value(object).unwrap(),
            )
            .await
            .unwrap();
        }
        for (tenant, pods, cpu) in [("shop", "110", "420"), ("bank", "60", "260")] {
            let object = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "compute"}, "spec": {"hard": {"pods": pods, "requests.cpu": cpu, "requests.memory": "2Ti"}}});
            let api: Api<k8s_openapi::api::core::v1::ResourceQuota> =
                Api::namespaced(member.client(), tenant);
            api.create(
                &PostParams::default(),
                &serde_json::from_value(object).unwrap(),
            )
            .await
            .unwrap();
        }
    }
    let hub = stage.client();
    let tenant = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "shop"}, "spec": {"description": "The web shop", "namespaces": ["shop"],
        "quotas": [{"pool": "default", "hard": {"pods": "240", "requests.cpu": "800", "requests.memory": "4Ti"}}]}});
    let api: Api<gantry_api::Tenant> = Api::all(hub.clone());
    api.create(
        &PostParams::default(),
        &serde_json::from_value(tenant).unwrap(),
    )
    .await
    .unwrap();
    let hook = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Notification", "metadata": {"name": "chat", "namespace": "shop"},
        "spec": {"url": "https://127.0.0.1:9/hook", "format": "Feishu", "retryFor": "1s", "events": [{"kinds": ["Release"]}]}});
    let api: Api<gantry_api::Notification> = Api::namespaced(hub, "shop");
    api.create(
        &PostParams::default(),
        &serde_json::from_value(hook).unwrap(),
    )
    .await
    .unwrap();
}

async fn set(stage: &Stage, browser: &Browser, lang: &str, theme: &str) {
    browser
        .go(&format!("{}settings", stage.console.url()))
        .await;
    browser.click(&format!("input[value='{lang}']")).await;
    browser.click(&format!("input[value='{theme}']")).await;
    browser.fill("#zone", "Asia/Shanghai").await;
    browser.click("#settings button.primary").await;
    browser.until("set", &format!("document.documentElement.lang === '{lang}' && document.documentElement.dataset.theme === '{theme}' && document.readyState === 'complete'")).await;
}

async fn shot(
    stage: &Stage,
    browser: &Browser,
    folder: &std::path::Path,
    name: &str,
    path: &str,
    width: u32,
    height: u32,
) {
    browser.size(width, height).await;
    browser
        .go(&format!(
            "{}{path}",
            stage.console.url().trim_end_matches('/')
        ))
        .await;
    browser.until("loaded", "document.readyState === 'complete' && (!document.querySelector('#page').dataset.live || document.querySelector('#link').classList.contains('on'))").await;
    if path.contains("tab=logs") {
        browser
            .until(
                "lines",
                "document.querySelector('pre.logs').textContent.length > 0",
            )
            .await;
    }
    if path.contains("by=load") {
        browser
            .until(
                "measured",
                "document.querySelector('#map svg.nodes .k-2, #map svg.nodes .k-3')",
            )
            .await;
    }
    if path.starts_with("/groups/") && !path.contains('?') && !path.contains("/scale") {
        browser
            .until(
                "used",
                "document.querySelector('#instances .spark polyline')",
            )
            .await;
    }
    if path.contains("tab=placement") {
        browser
            .until(
                "explained",
                "document.querySelector('#placement-says .badge')",
            )
            .await;
    }
    if path.contains("tab=terminal") {
        browser
            .until("open", "document.activeElement.closest('[data-terminal]')")
            .await;
        for line in ["hostname", "env", "ls -l /"] {
            let keys: Vec<String> = line.chars().map(|c| c.to_string()).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            browser.keys(&keys).await;
            browser.keys(&[webdriver::ENTER]).await;
        }
        browser
            .until(
                "listed",
                "/^var$/m.test(document.querySelector('[data-terminal]').dataset.text)",
            )
            .await;
    }
    if path.starts_with("/policies/") {
        browser.run("const y = document.querySelector('#yaml'); y.value = y.value.replace('cpu: 80', 'cpu: 25'); y.dispatchEvent(new Event('input', {bubbles: true}))").await;
        browser
            .until("judged", "document.querySelector('#verdict .badge')")
            .await;
        browser.click("[data-press]").await;
        browser
            .until("tried", "document.querySelector('#trial p')")
            .await;
    }
    browser.run("window.scrollTo(0, 0)").await;
    let picture = browser.picture().await;
    let file = folder.join(format!("{name}.png"));
    std::fs::write(&file, &picture).unwrap();
    println!("{}  {} KB", file.display(), picture.len() / 1024);
}
