//! What people do, in a real browser: from click to effect in the cluster.

use gantry_api::Phase;
use serde_json::json;

use crate::{
    stage::{Stage, until},
    webdriver::{Browser, CONTROL, ENTER, ESCAPE, there},
};

/// Everything, in one browser.
pub async fn all(stage: &Stage) {
    if !there() {
        return;
    }
    let browser = Browser::start(1440, 900).await;
    login(stage, &browser).await;
    keyboard(stage, &browser).await;
    languages_and_themes(stage, &browser).await;
    a_release(stage, &browser).await;
    scale_live(stage, &browser).await;
    create(stage, &browser).await;
    lost_connection(stage, &browser).await;
    let complaints = browser.complaints().await;
    let unexpected: Vec<_> = complaints
        .iter()
        .filter(|c| !c.contains("Failed to load resource") && !c.contains("ERR_"))
        .collect();
    assert!(
        unexpected.is_empty(),
        "the browser complains: {unexpected:?}"
    );
    browser.close().await;
}

fn url(stage: &Stage, path: &str) -> String {
    format!("{}{path}", stage.console.url().trim_end_matches('/'))
}

async fn login(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/services?q=cart")).await;
    browser
        .until("sent to the login page", "location.pathname === '/login'")
        .await;
    browser.fill("#credential", &stage.admin).await;
    browser.click("form[action='/login'] button").await;
    browser.until("back where one wanted to go", "location.search === '?q=cart' && document.querySelector('[data-row]').textContent === 'cart-prod'").await;
    browser
        .until(
            "live",
            "document.querySelector('#link').classList.contains('on')",
        )
        .await;
}

async fn keyboard(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/services")).await;
    browser.press(&[ESCAPE, "j", "j", "k"], "the first row is marked", "document.querySelector('tr.here [data-row]').textContent === document.querySelector('[data-row]').textContent").await;
    browser
        .press(
            &[ENTER],
            "Enter opens it",
            "location.pathname.startsWith('/groups/')",
        )
        .await;
    browser
        .press(
            &["g", "s"],
            "g s goes to services",
            "location.pathname === '/services'",
        )
        .await;
    browser
        .press(
            &["/"],
            "/ is in the search",
            "document.activeElement.name === 'q'",
        )
        .await;
    browser.keys(&["v", "a", "u", "l", "t", ENTER]).await;
    browser.until("the search is in the URL", "location.search === '?q=vault' && document.querySelectorAll('[data-row]').length === 1").await;
    browser
        .press(
            &[CONTROL, "k"],
            "the palette is open",
            "document.querySelector('#palette').open",
        )
        .await;
    browser.keys(&["f", "r", "o", "n", "t"]).await;
    browser.until("it finds", "document.querySelector('#palette-list [aria-selected=true]').textContent.includes('front-prod')").await;
    browser.keys(&[ENTER]).await;
    browser
        .until(
            "it goes there",
            "location.pathname === '/groups/shop/front-prod'",
        )
        .await;
    browser
        .press(
            &["?"],
            "? lists the keys",
            "document.querySelector('#keys').open",
        )
        .await;
    browser.keys(&[ESCAPE]).await;
    browser.run("history.back()").await;
    browser
        .until("back works", "location.search === '?q=vault'")
        .await;
}

async fn languages_and_themes(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/settings")).await;
    browser.click("input[value='zh-CN']").await;
    browser.click("input[value='dark']").await;
    browser.fill("#zone", "Asia/Shanghai").await;
    browser.click("#settings button.primary").await;
    browser.until("Chinese and dark", "document.documentElement.lang === 'zh-CN' && document.documentElement.dataset.theme === 'dark' && document.querySelector('h1').textContent.includes('设置')").await;
    let dark = browser
        .run("return getComputedStyle(document.body.parentElement).backgroundColor")
        .await;
    browser.click("input[value='en']").await;
    browser.click("input[value='light']").await;
    browser.click("#settings button.primary").await;
    browser.until("English and light", "document.documentElement.lang === 'en' && document.documentElement.dataset.theme === 'light'").await;
    assert_ne!(
        browser
            .run("return getComputedStyle(document.body.parentElement).backgroundColor")
            .await,
        dark
    );
    for path in ["/", "/services", "/groups/shop/cart-prod", "/nodes"] {
        browser.size(400, 800).await;
        browser.go(&url(stage, path)).await;
        let wide = browser
            .run("return document.documentElement.scrollWidth - innerWidth")
            .await;
        assert!(
            wide.as_i64().is_some_and(|w| w <= 0),
            "{path} is {wide} px too wide for a phone"
        );
    }
    browser.size(1440, 900).await;
}

/// A release from the form to its end, watched all the while.
async fn a_release(stage: &Stage, browser: &Browser) {
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
            "document.querySelector('#confirm input#confirm')",
        )
        .await;
    browser.fill("input#confirm", "front-prod-2").await;
    browser.click("form.stack button.danger").await;
    browser
        .until(
            "rolled back",
            "document.querySelector('h1').textContent.includes('Rolled back')",
        )
        .await;
}

async fn scale_live(stage: &Stage, browser: &Browser) {
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

async fn create(stage: &Stage, browser: &Browser) {
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

async fn lost_connection(stage: &Stage, browser: &Browser) {
    let page = url(stage, "/groups/shop/pay-prod");
    browser.go(&page).await;
    browser
        .until(
            "live",
            "document.querySelector('#link').classList.contains('on')",
        )
        .await;
    // The session ends elsewhere: the page goes to log in, and comes back to where it was.
    browser.run("return fetch('/logout', {method: 'POST', body: new URLSearchParams({csrf: document.body.dataset.csrf})}).then(() => true)").await;
    browser
        .until("sent to log in", "location.pathname === '/login'")
        .await;
    browser.fill("#credential", &stage.admin).await;
    browser.click("form[action='/login'] button").await;
    browser
        .until("back", "location.pathname === '/groups/shop/pay-prod'")
        .await;
    until("live again", async || {
        browser
            .run("return document.querySelector('#link').classList.contains('on')")
            .await
            == true
    })
    .await;
}
