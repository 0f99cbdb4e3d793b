//! What releasers do: from click to effect in the cluster.

use gantry_api::Phase;
use kube::Api;
use serde_json::json;

use super::url;
use crate::{
    stage::{Stage, until},
    webdriver::Browser,
};

/// A release from the form to its end, watched all the while.
pub async fn a_release(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/groups/shop/cart-prod")).await;
    browser.click("a.primary").await;
    browser
        .until("the form", "document.querySelector('#release-form')")
        .await;
    browser
        .fill("#image", "registry.example.com/shop/cart:1.5.0")
        .await;
    browser.until("the plan follows", "document.querySelector('#plan ins') && document.querySelector('#plan ins').textContent.includes('1.5.0')").await;
    browser.run("const s = document.querySelector('#strategy'); s.value = 'inline'; s.dispatchEvent(new Event('input', {bubbles: true}))").await;
    browser.fill("#sizes", "3, 100%").await;
    browser.run("const p = document.querySelector('#pause'); p.value = 'Never'; p.dispatchEvent(new Event('input', {bubbles: true}))").await;
    browser
        .until(
            "two batches and the bastion",
            "document.querySelectorAll('#plan .batch').length === 3",
        )
        .await;
    browser.click("#release-form button.primary").await;
    browser
        .until(
            "the run",
            "location.pathname === '/releases/shop/cart-prod-2'",
        )
        .await;
    browser.until("the bastion waits", "[...document.querySelectorAll('#buttons button')].some(b => b.textContent === 'Continue')").await;
    assert_eq!(
        browser
            .run("return document.querySelectorAll('.tile.t-held').length > 0")
            .await,
        true
    );
    browser.click("#buttons button.primary").await;
    browser
        .until(
            "every tile is done, without a reload",
            "document.querySelectorAll('#batches .t-done').length === 8",
        )
        .await;
    browser
        .until(
            "it says so",
            "document.querySelector('h1').textContent.includes('Succeeded')",
        )
        .await;
    stage
        .release_is("shop", "cart-prod-2", "succeeded", |r| {
            r.status
                .as_ref()
                .is_some_and(|s| s.phase == Phase::Succeeded)
        })
        .await;

    // A broken one: halted, rolled back after its name was typed.
    let how = json!({"bastion": {"instances": 1, "accept": "Auto"}, "batches": {"sizes": ["50%"]}, "deadlines": {"instance": "3s"}});
    stage.release("shop", "front-prod", "broken", how).await;
    browser.go(&url(stage, "/releases/shop/front-prod-2")).await;
    browser
        .until(
            "it is halted",
            "document.querySelector('h1').textContent.includes('Halted')",
        )
        .await;
    browser.click("#buttons a.danger").await;
    browser
        .until(
            "it says what will happen",
            "document.querySelector('#confirm input#typed')",
        )
        .await;
    browser.fill("input#typed", "front-prod-2").await;
    browser.click("form.stack button.danger").await;
    browser
        .until(
            "rolled back",
            "document.querySelector('h1').textContent.includes('Rolled back')",
        )
        .await;
}

pub async fn scale_live(stage: &Stage, browser: &Browser) {
    browser
        .go(&url(stage, "/groups/bank/vault-prod/scale"))
        .await;
    browser.fill("#replicas", "10").await;
    browser.click("form.stack button.primary").await;
    browser
        .until(
            "progress to its end",
            "document.querySelector('#progress .big').textContent.includes('10/10')",
        )
        .await;
    stage.in_service("bank", "vault-prod").await;
}

pub async fn create(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/create?tenant=shop")).await;
    browser.fill("#app", "pay").await;
    browser
        .fill("#image", "registry.example.com/shop/pay:1.0.0")
        .await;
    browser.fill("#replicas", "2").await;
    browser.until("the hub would take it", "document.querySelectorAll('#beside .badge.good').length === 2 && document.querySelector('#yaml').value.includes('pay:1.0.0')").await;
    browser.fill("#replicas", "-2").await;
    browser
        .until(
            "and says why not",
            "document.querySelector('#beside .badge.bad')",
        )
        .await;
    browser.fill("#replicas", "2").await;
    browser
        .until(
            "again",
            "document.querySelectorAll('#beside .badge.good').length === 2",
        )
        .await;
    browser.click("#create-form button.primary").await;
    browser
        .until("its page", "location.pathname === '/groups/shop/pay-prod'")
        .await;
    browser
        .until(
            "its instances come",
            "document.querySelectorAll('#instances [data-row]').length === 2",
        )
        .await;
    stage.in_service("shop", "pay-prod").await;
}

/// Pulled out and put back, why it is where it is, and a scaling that is given up.
pub async fn instances(stage: &Stage, browser: &Browser) {
    let page = url(stage, "/groups/shop/cart-prod");
    let row = "[...document.querySelectorAll('#instances tr')].find(r => r.textContent.includes('cart-prod-sh-a-0'))";
    for (verb, state) in [("pull-out", "Out of service"), ("put-back", "In service")] {
        browser.go(&page).await;
        browser
            .run(&format!("{row}.querySelector('input[data-keep]').click()"))
            .await;
        browser
            .click(&format!(".chosen button[value='{verb}']"))
            .await;
        browser
            .until("it says how many", "document.querySelector('#confirm .big').textContent.startsWith('1 instance in 1 cell ')")
            .await;
        browser.fill("#reason", "looks slow").await;
        browser.click("#confirm form button").await;
        browser
            .until(state, &format!("location.pathname === '/groups/shop/cart-prod' && {row} && {row}.textContent.includes('{state}')"))
            .await;
    }
    move_and_restart(stage, browser, &page).await;
    browser
        .until(
            "what it uses, once it was measured",
            "document.querySelector('#instances .spark polyline')",
        )
        .await;
    browser
        .go(&url(
            stage,
            "/instances/sh/shop/cart-prod-sh-a-0?tab=placement",
        ))
        .await;
    browser
        .until(
            "the scheduler explains it",
            "document.querySelector('#placement-says .badge.good') && document.querySelector('#placement-says').textContent.includes('Placed on')",
        )
        .await;
    // More than there is room for: it can be given up.
    browser
        .go(&url(stage, "/groups/bank/vault-prod/scale"))
        .await;
    browser.fill("#replicas", "400").await;
    browser.click("form.stack button.primary").await;
    browser
        .until(
            "it is on its way",
            "document.querySelector('#progress form button.danger')",
        )
        .await;
    browser.click("#progress form button.danger").await;
    browser
        .until(
            "given up, and both stand in its history",
            "!document.querySelector('#progress form') && document.querySelector('#history tbody') && document.querySelector('#history').textContent.includes('400')",
        )
        .await;
}

/// One instance to a cell of another member, another made anew: by clicks, to what then runs.
async fn move_and_restart(stage: &Stage, browser: &Browser, page: &str) {
    let row = |name: &str| {
        format!(
            "[...document.querySelectorAll('#instances tr')].find(r => r.querySelector('[data-row]') && r.querySelector('[data-row]').textContent === '{name}')"
        )
    };
    let choose = async |name: &str, verb: &str| {
        browser.go(page).await;
        let tick = format!("{}.querySelector('input[data-keep]').click()", row(name));
        browser.run(&tick).await;
        browser
            .click(&format!(".chosen button[value='{verb}']"))
            .await;
    };
    choose("cart-prod-sh-a-1", "move").await;
    browser
        .until(
            "the next cell is offered",
            "document.querySelector('#confirm .big').textContent.startsWith('1 instance goes from 1 cell to sh-b')",
        )
        .await;
    browser.click("#confirm .choices a[href$='to=bj-a']").await;
    browser
        .until(
            "it says what happens to which",
            "document.querySelector('#confirm .plain li').textContent === 'cart-prod-sh-a-1 goes once bj-a has one more in service'",
        )
        .await;
    browser.click("#confirm form button").await;
    let (gone, come) = (row("cart-prod-sh-a-1"), row("cart-prod-bj-a-2"));
    browser
        .until(
            "it is there, and then no longer here",
            &format!("location.pathname === '/groups/shop/cart-prod' && !{gone} && {come} && {come}.textContent.includes('In service')"),
        )
        .await;
    stage.in_service("shop", "cart-prod").await;

    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(stage.members[0].client(), "shop");
    let uid = async || {
        let pod = pods.get_opt("cart-prod-sh-a-0").await.unwrap();
        pod.and_then(|p| p.metadata.uid)
    };
    let before = uid().await;
    choose("cart-prod-sh-a-0", "restart").await;
    browser
        .until(
            "it says what comes in its place",
            "document.querySelector('#confirm .big').textContent.includes('is replaced by a new one of the same name')",
        )
        .await;
    browser.click("#confirm form button").await;
    until("another pod of its name", async || {
        let now = uid().await;
        now.is_some() && now != before
    })
    .await;
    stage.in_service("shop", "cart-prod").await;
    let back = row("cart-prod-sh-a-0");
    browser
        .until(
            "and the page shows it in service",
            &format!("{back} && {back}.textContent.includes('In service')"),
        )
        .await;
}

/// A gate of people: refused without, passed with a word and a comment, which stand there afterwards.
pub async fn approve(stage: &Stage, browser: &Browser) {
    let how = json!({"bastion": {"instances": 1, "accept": "Auto"}, "batches": {"sizes": ["100%"]}, "pause": "Never",
        "gates": [{"name": "sre", "at": ["Bastion"], "approval": {"groups": ["system:masters"]}}]});
    stage
        .release_as("shop", "pay-prod", "pay-prod-gated", "1.1.0", how)
        .await;
    browser
        .go(&url(stage, "/releases/shop/pay-prod-gated"))
        .await;
    let ask = "#buttons a[href$='/approve']";
    browser
        .until(
            "people are asked",
            &format!("document.querySelector(\"{ask}\")"),
        )
        .await;
    browser.click(ask).await;
    browser.fill("#note", "error rate looks fine").await;
    browser.click("button[value='yes']").await;
    browser
        .until(
            "it goes on to its end, and what was said stays",
            "document.querySelector('h1').textContent.includes('Succeeded') && document.querySelector('#gates').textContent.includes('error rate looks fine')",
        )
        .await;
    let release = stage
        .release_is("shop", "pay-prod-gated", "succeeded", |r| {
            r.status
                .as_ref()
                .is_some_and(|s| s.phase == Phase::Succeeded)
        })
        .await;
    let verdict = &release.spec.approvals[0];
    assert_eq!(
        (verdict.gate.as_str(), verdict.note.as_str(), verdict.reject),
        ("sre", "error rate looks fine", false)
    );
}

/// Two revisions beside each other, and the way back to the first.
pub async fn revisions(stage: &Stage, browser: &Browser) {
    browser
        .go(&url(stage, "/groups/shop/cart-prod?tab=revisions"))
        .await;
    browser
        .until(
            "the last two are compared",
            "document.querySelector('#revisions del').textContent.includes('cart:1.4.2') && document.querySelector('#revisions ins').textContent.includes('cart:1.5.0')",
        )
        .await;
    browser.click("#revisions a[href$='?to=1']").await;
    browser
        .until(
            "the form to go back to the first",
            "location.pathname === '/groups/shop/cart-prod/release' && document.querySelector('#plan').textContent.includes('1.4.2')",
        )
        .await;
}
