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
    api::{Patch, PatchParams},
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
    shot(&stage, &browser, &folder, "fleet-zh", "/", 1440, 900).await;
    set(&stage, &browser, "en", "dark").await;
    shot(
        &stage,
        &browser,
        &folder,
        "release-phone",
        "/releases/shop/checkout-prod-2",
        420,
        860,
    )
    .await;
    browser.close().await;
    stage.shutdown().await;
}

/// Those that are shown in the dark as well.
const DARK: &[&str] = &["fleet", "release", "create", "logs"];

const PAGES: &[(&str, &str, u32)] = &[
    ("fleet", "/", 1000),
    ("services", "/services", 900),
    ("group", "/groups/shop/checkout-prod", 1000),
    ("revisions", "/groups/shop/cart-prod?tab=revisions", 800),
    ("release", "/releases/shop/checkout-prod-2", 900),
    ("release-halted", "/releases/shop/front-prod-2", 1000),
    (
        "release-start",
        "/groups/shop/catalog-prod/release?image=registry.example.com/shop/catalog:2.0.0&strategy=inline&sizes=10%25,+30%25,+60%25",
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
        "/create?tenant=shop&app=pay&image=registry.example.com/shop/pay:1.0.0&replicas=6&port=8080&ready=/healthz&cpu=250m&memory=256Mi",
        1000,
    ),
    ("records", "/records", 820),
    ("lines", "/lines", 820),
    ("settings", "/settings", 720),
];

/// Tenants, services, and releases in every state.
async fn people(stage: &Stage) {
    let shop = [
        ("cart", 24, "L1"),
        ("checkout", 60, "L0"),
        ("front", 16, "L1"),
        ("catalog", 40, "L1"),
        ("ads", 8, "L3"),
        ("currency", 8, "L2"),
        ("mail", 4, "L3"),
        ("shipping", 12, "L2"),
    ];
    for (app, replicas, level) in shop {
        stage
            .service("shop", app, replicas, json!({"level": level}))
            .await;
    }
    for (app, replicas) in [("ledger", 20), ("vault", 12), ("fraud", 16)] {
        stage
            .service("bank", app, replicas, json!({"level": "L0"}))
            .await;
    }
    for (app, ..) in shop {
        stage.in_service("shop", &format!("{app}-prod")).await;
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
    let picture = browser.picture().await;
    let file = folder.join(format!("{name}.png"));
    std::fs::write(&file, &picture).unwrap();
    println!("{}  {} KB", file.display(), picture.len() / 1024);
}
