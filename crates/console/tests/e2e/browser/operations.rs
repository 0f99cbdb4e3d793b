//! What platform engineers and those on call do.

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{from_value, json};

use super::url;
use crate::{
    stage::{Stage, until},
    webdriver::{Browser, ENTER},
};

/// A policy made on both members with the server's and the scheduler's dry run, edited; a quota that is used up.
pub async fn policies_and_quotas(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/create/policy")).await;
    let edit = |text: &str| {
        format!(
            "const y = document.querySelector('#yaml'); y.value = y.value.{text}; y.dispatchEvent(new Event('input', {{bubbles: true}}))"
        )
    };
    browser
        .run(&edit("replace('maxSkew: 1', 'maxSkew: 0')"))
        .await;
    browser
        .until(
            "the members refuse it by the field",
            "document.querySelectorAll('#verdict .badge.bad').length === 2 && document.querySelector('#verdict').textContent.includes('maxSkew')",
        )
        .await;
    browser
        .run(&edit("replace('maxSkew: 0', 'maxSkew: 1')"))
        .await;
    browser
        .until(
            "both would take it",
            "document.querySelectorAll('#verdict .badge.good').length === 2",
        )
        .await;
    browser.click("[data-press]").await;
    browser
        .until(
            "the scheduler says how many it selects",
            "document.querySelector('#trial').textContent.includes('pods that run')",
        )
        .await;
    browser.click("#edit-form button.primary").await;
    browser
        .until(
            "its page",
            "/^\\/policies\\/(sh|bj)\\/spread-zones$/.test(location.pathname) && document.querySelector('#yaml')",
        )
        .await;
    browser
        .run(&edit("replace('priority: 0', 'priority: 5')"))
        .await;
    browser
        .until(
            "what changes",
            "[...document.querySelectorAll('#verdict ins')].some(i => i.textContent.includes('spec.priority: 5'))",
        )
        .await;
    browser.click("#edit-form button.primary").await;
    browser
        .until("saved", "document.querySelector('.told') && document.querySelector('#yaml').value.includes('priority: 5')")
        .await;
    browser.go(&url(stage, "/policies?q=spread")).await;
    browser
        .until(
            "both are listed, the higher first",
            "document.querySelectorAll('#rows [data-row]').length === 2 && document.querySelector('#rows tbody .num').textContent === '5'",
        )
        .await;

    let quotas: Api<ResourceQuota> = Api::namespaced(stage.members[0].client(), "shop");
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "compute"}, "spec": {"hard": {"pods": "10", "requests.cpu": "40"}}});
    quotas
        .create(&PostParams::default(), &from_value(quota).unwrap())
        .await
        .unwrap();
    browser.go(&url(stage, "/quotas?q=compute")).await;
    browser
        .until(
            "what binds first, as the controller counts it",
            "document.querySelector('#rows .badge.warn, #rows .badge.bad') && document.querySelector('#rows').textContent.includes('pods')",
        )
        .await;
    browser.click("#rows [data-row]").await;
    browser
        .until("its text", "document.querySelector('#yaml')")
        .await;
    browser
        .run(&edit("replace(/pods: .*/, 'pods: many')"))
        .await;
    browser
        .until("refused", "document.querySelector('#verdict .badge.bad')")
        .await;
    browser
        .run(&edit("replace(/pods: .*/, 'pods: \"90\"')"))
        .await;
    browser
        .until("taken", "document.querySelector('#verdict .badge.good')")
        .await;
    // What is used changes while one writes: that is no other quota.
    let used = json!({"status": {"used": {"pods": "1"}}});
    quotas
        .patch_status("compute", &PatchParams::default(), &Patch::Merge(used))
        .await
        .unwrap();
    browser.click("#edit-form button.primary").await;
    until("the quota is wider", async || {
        let hard = quotas.get("compute").await.unwrap().spec.unwrap().hard;
        hard.unwrap()["pods"].0 == "90"
    })
    .await;
}

/// A hook that is made and tried; a line that is stopped and let go; a token that is issued and works.
pub async fn hooks_lines_tokens(stage: &Stage, browser: &Browser) {
    browser
        .go(&url(stage, "/create/notification?namespace=shop"))
        .await;
    browser
        .run("const y = document.querySelector('#yaml'); y.value = y.value.replace('name: releases', 'name: chat').replace('hooks.example.com', '127.0.0.1:9'); y.dispatchEvent(new Event('input', {bubbles: true}))")
        .await;
    browser
        .until(
            "the hub would take it",
            "document.querySelector('#verdict .badge.good')",
        )
        .await;
    browser.click("#edit-form button.primary").await;
    browser
        .until(
            "its page",
            "location.pathname === '/notifications/shop/chat'",
        )
        .await;
    browser.click("form[action$='/test'] button").await;
    browser
        .until(
            "what came of the test: it is not delivered, and why",
            "document.querySelector('h1 .badge.bad') && document.querySelector('#head .said').textContent.includes('127.0.0.1')",
        )
        .await;

    browser.go(&url(stage, "/lines")).await;
    browser.fill("#name", "night").await;
    browser.fill("#tenants", "bank").await;
    browser.fill("#reason", "the books are closed").await;
    browser.click("form[action='/lines'] button.danger").await;
    browser
        .until(
            "it is stopped, by whom and why",
            "document.querySelector('table') && document.querySelector('table').textContent.includes('the books are closed')",
        )
        .await;
    let lines: Api<gantry_api::StopLine> = Api::all(stage.client());
    assert_eq!(lines.get("night").await.unwrap().spec.tenants, ["bank"]);
    browser.click("form[action='/lines/night/go'] button").await;
    until("it goes on", async || {
        lines.get_opt("night").await.unwrap().is_none()
    })
    .await;

    browser.go(&url(stage, "/settings")).await;
    browser.fill("#account", "shop/dev").await;
    browser.click("form[action='/settings/token'] button").await;
    browser
        .until(
            "the token, this once",
            "document.querySelector('textarea.token').value.split('.').length === 3",
        )
        .await;
    let token = browser
        .run("return document.querySelector('textarea.token').value")
        .await;
    let mut script = crate::http::Visitor::new(stage.console.address(), &stage.cert);
    script.bearer = token.as_str().map(str::to_owned);
    let me = script.get("/api/v1/me").await;
    assert!(
        me.text.contains("system:serviceaccount:shop:dev"),
        "{}",
        me.text
    );
}

/// A shell in a simulated container, by keyboard; it fits its window, and stands in the records.
pub async fn terminal(stage: &Stage, browser: &Browser) {
    let page = "/instances/sh/shop/cart-prod-sh-a-0?tab=terminal";
    browser.go(&url(stage, page)).await;
    browser
        .until(
            "it is open",
            "document.activeElement.closest('[data-terminal]')",
        )
        .await;
    browser
        .keys(&[
            "e", "c", "h", "o", " ", "h", "e", "l", "l", "o", "-", "u", ENTER,
        ])
        .await;
    browser
        .until(
            "what it answers",
            "/^hello-u$/m.test(document.querySelector('[data-terminal]').dataset.text)",
        )
        .await;
    let size = "return document.querySelector('[data-terminal]').dataset.size";
    let wide = browser.run(size).await;
    browser.size(900, 700).await;
    until("it fits a smaller window", async || {
        browser.run(size).await != wide
    })
    .await;
    browser.size(1440, 900).await;
    browser.keys(&["e", "x", "i", "t", ENTER]).await;
    browser
        .until(
            "it ends",
            "document.querySelector('[data-terminal-says]').textContent.includes('ended')",
        )
        .await;
    browser.go(&url(stage, "/records?verb=exec")).await;
    browser
        .until(
            "it stands in the records, with its end",
            "location.search && document.querySelector('#rows tbody tr .badge.good') && document.querySelector('#rows').textContent.includes('cart-prod-sh-a-0')",
        )
        .await;
}

pub async fn node_buttons(stage: &Stage, browser: &Browser) {
    let page = "/nodes/sh/sh-b-002";
    browser.go(&url(stage, page)).await;
    browser.click("a[href$='/cordon']").await;
    browser.click("#confirm button[type=submit]").await;
    browser
        .until("it is shut", "location.pathname.endsWith('sh-b-002') && document.querySelector('h1').textContent.includes('Cordoned')")
        .await;
    browser.click("a[href$='/uncordon']").await;
    browser.click("#confirm button[type=submit]").await;
    browser
        .until("it is open", "location.pathname.endsWith('sh-b-002') && !document.querySelector('h1').textContent.includes('Cordoned')")
        .await;
    browser.click("a[href$='/drain']").await;
    browser
        .until(
            "it says what that moves",
            "document.querySelector('#confirm input#typed')",
        )
        .await;
    browser.fill("input#typed", "sh-b-002").await;
    browser.click("#confirm form button").await;
    browser
        .until(
            "its instances go elsewhere",
            "location.pathname.endsWith('sh-b-002') && document.querySelectorAll('[data-rows] [data-row]').length === 0",
        )
        .await;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(stage.members[0].client());
    let open = json!({"spec": {"unschedulable": null}});
    nodes
        .patch("sh-b-002", &PatchParams::default(), &Patch::Merge(open))
        .await
        .unwrap();
}

/// The map: what is under the pointer is named, a click leads there.
pub async fn map(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/")).await;
    browser
        .until("the map", "document.querySelector('#map svg[data-map]')")
        .await;
    // The middle of the second mark of the second cell.
    let place = browser
        .run("const s = document.querySelectorAll('#map svg[data-map]')[1]; s.scrollIntoView({block: 'center'}); const r = s.getBoundingClientRect(), side = r.width / s.dataset.columns; return [Math.round(r.left + side * 1.5), Math.round(r.top + side / 2), s.dataset.cluster, s.dataset.cell]")
        .await;
    let at = (place[0].as_i64().unwrap(), place[1].as_i64().unwrap());
    let (cluster, cell) = (place[2].as_str().unwrap(), place[3].as_str().unwrap());
    let tip = "document.querySelector('.tip')";
    browser.point((2, 2), false).await;
    browser.point(at, false).await;
    browser
        .until(
            "the node is named, with what is asked of it",
            &format!("!{tip}.hidden && {tip}.textContent.startsWith('{cell}-') && {tip}.textContent.includes('CPU')"),
        )
        .await;
    let named = browser
        .run(&format!("return {tip}.textContent.split(' ')[0]"))
        .await;
    let named = named.as_str().unwrap();
    browser.point(at, true).await;
    browser
        .until(
            "a click leads to it",
            &format!("location.pathname === '/nodes/{cluster}/{named}'"),
        )
        .await;
    // By what is wrong: one that is shut is marked.
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(stage.members[0].client());
    let shut = async |is: serde_json::Value| {
        let patch = json!({"spec": {"unschedulable": is}});
        nodes
            .patch("sh-a-001", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    };
    browser.go(&url(stage, "/?by=problems")).await;
    let marks = "document.querySelectorAll('#map svg[data-cell=\"sh-a\"] .k-shut').length";
    browser
        .until("none is shut", &format!("{marks} === 0"))
        .await;
    shut(json!(true)).await;
    browser
        .until("it is marked without a reload", &format!("{marks} === 1"))
        .await;
    shut(json!(null)).await;
}

/// The logs of a Group's instances over two members, merged by time, searched, and followed over the end of one.
pub async fn logs(stage: &Stage, browser: &Browser) {
    browser
        .go(&url(stage, "/groups/shop/cart-prod?tab=logs"))
        .await;
    let text = "document.querySelector('pre.logs').textContent";
    browser
        .until(
            "lines of both members",
            &format!("['cart-prod-sh-b-0', 'cart-prod-bj-a-0'].every(n => {text}.includes(n))"),
        )
        .await;
    let starts = format!(
        "{text}.split('\\n').filter(l => l.includes(' cart-prod-sh-b-0 ') && l.includes(' run ')).length"
    );
    let before = browser.run(&format!("return {starts}")).await;
    let before = before.as_u64().unwrap();
    assert!(before > 0);
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(stage.members[0].client(), "shop");
    pods.delete("cart-prod-sh-b-0", &Default::default())
        .await
        .unwrap();
    browser
        .until(
            "what comes in its place is followed too",
            &format!("{starts} === {}", before + 1),
        )
        .await;
    browser.fill("[data-log-filter]", "cart-prod-bj-a-0").await;
    browser
        .until(
            "only what is looked for",
            &format!("{text}.trim() && {text}.trim().split('\\n').every(l => l.includes('cart-prod-bj-a-0'))"),
        )
        .await;
    stage.in_service("shop", "cart-prod").await;
}
