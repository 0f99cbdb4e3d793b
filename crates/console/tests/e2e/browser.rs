//! What people do, in a real browser: from click to effect in the cluster.

use gantry_api::Phase;
use gantry_console::{
    PAGE_PATHS,
    model::{Instance, Member, State},
};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{from_value, json};

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
    policies_and_quotas(stage, &browser).await;
    instances(stage, &browser).await;
    favourites(stage, &browser).await;
    hooks_lines_tokens(stage, &browser).await;
    every_page(stage, &browser).await;
    terminal(stage, &browser).await;
    node_buttons(stage, &browser).await;
    lost_connection(stage, &browser).await;
    a_restart(stage, &browser).await;
    a_thousand_rows(stage, &browser).await;
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
    browser.size(1440, 900).await;
}

/// What a page lacks for who does not see it, uses no mouse, or has a phone; nothing: it is as it should be.
const AUDIT: &str = r#"
    const all = (q) => [...document.querySelectorAll(q)].filter((e) => !e.closest('template, [hidden], dialog:not([open])'));
    const wrong = [], tell = (what, e) => wrong.push(`${what}: ${e.outerHTML.slice(0, 120)}`);
    const name = (e) => (e.getAttribute('aria-label') || e.title || e.textContent || '').trim();
    for (const e of all('input:not([type=hidden]), select, textarea'))
      if (!e.getAttribute('aria-label') && !(e.labels && e.labels.length)) tell('no label', e);
    for (const e of all('a[href], button')) if (!name(e) && !e.querySelector('[aria-label], img[alt]')) tell('no name', e);
    for (const e of all('svg[role=img]')) if (!e.getAttribute('aria-label')) tell('no name', e);
    for (const e of all('img')) if (!e.hasAttribute('alt')) tell('no alt', e);
    for (const e of all('nav')) if (!e.getAttribute('aria-label') && !e.matches('.choices')) tell('no name', e);
    for (const e of all('[tabindex]')) if (e.tabIndex > 0) tell('order', e);
    for (const e of all('table')) if (!e.querySelector('thead th')) tell('no heads', e);
    const ids = all('[id]').map((e) => e.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`twice: #${id}`);
    for (const e of all('label[for]')) if (!document.getElementById(e.htmlFor)) tell('of nothing', e);
    if (all('h1').length !== 1) wrong.push(`${all('h1').length} h1`);
    if (!document.documentElement.lang || !document.title) wrong.push('no language or title');
    if (all('[style]').length || all('script:not([src])').length) wrong.push('inline style or script');
    const wide = document.documentElement.scrollWidth - innerWidth;
    if (wide > 0) {
      const who = all('#main *').filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, pre, .batches, nav'));
      wrong.push(`${wide} px too wide: ${who.slice(0, 3).map((e) => e.outerHTML.slice(0, 80)).join(' | ')}`);
    }
    return wrong;
"#;

/// Every page there is, at the width of a phone, by what a program can see of it.
async fn every_page(stage: &Stage, browser: &Browser) {
    browser.size(400, 800).await;
    let names = [
        ("{tenant}", "shop"),
        ("{app}", "cart"),
        ("{group}", "cart-prod"),
        ("{release}", "front-prod-2"),
        ("{press}", "rollback"),
        ("{cluster}", "sh"),
        ("{instance}", "cart-prod-sh-a-0"),
        ("{node}", "sh-a-001"),
        ("{act}", "drain"),
        ("{policy}", "spread-zones"),
        ("{kind}", "ResourceQuota"),
        ("{quota}", "compute"),
        ("{hook}", "chat"),
    ];
    let mut places: Vec<String> = PAGE_PATHS.iter().map(|p| (*p).to_owned()).collect();
    for place in &mut places {
        for (name, value) in names {
            *place = place.replace(name, value);
        }
    }
    let tabs = ["revisions", "logs", "events", "yaml"];
    places.extend(tabs.map(|t| format!("/groups/shop/cart-prod?tab={t}")));
    let tabs = ["logs", "events", "placement", "terminal", "yaml"];
    places.extend(tabs.map(|t| format!("/instances/sh/shop/cart-prod-sh-a-0?tab={t}")));
    places.push("/?by=problems".to_owned());
    for place in &mut places {
        if place.ends_with("/instances") {
            place.push_str("?verb=move&instance=cart-prod-sh-a-0");
        }
    }
    let mut wrong = Vec::new();
    for place in &places {
        browser.go(&url(stage, place)).await;
        let found = browser.run(AUDIT).await;
        for one in found.as_array().into_iter().flatten() {
            wrong.push(format!("{place}: {}", one.as_str().unwrap_or_default()));
        }
        let missing = browser
            .run("return Boolean(document.querySelector('#error'))")
            .await;
        if missing == true && !place.contains("/tenants/") {
            wrong.push(format!("{place}: is not there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

/// A policy made on both members with the server's and the scheduler's dry run, edited; a quota that is used up.
async fn policies_and_quotas(stage: &Stage, browser: &Browser) {
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
    browser.click("#edit-form button.primary").await;
    until("the quota is wider", async || {
        let hard = quotas.get("compute").await.unwrap().spec.unwrap().hard;
        hard.unwrap()["pods"].0 == "90"
    })
    .await;
}

/// Pulled out and put back, why it is where it is, and a scaling that is given up.
async fn instances(stage: &Stage, browser: &Browser) {
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

async fn favourites(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/groups/shop/front-prod")).await;
    browser.click(".star").await;
    browser
        .until(
            "starred",
            "document.querySelector('.star[aria-pressed=true]')",
        )
        .await;
    browser.go(&url(stage, "/services")).await;
    browser
        .until(
            "it stands on top",
            "document.querySelector('#favourites [data-row]').textContent === 'front-prod'",
        )
        .await;
}

/// A shell in a simulated container, by keyboard; it fits its window, and stands in the records.
async fn terminal(stage: &Stage, browser: &Browser) {
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

/// A hook that is made and tried; a line that is stopped and let go; a token that is issued and works.
async fn hooks_lines_tokens(stage: &Stage, browser: &Browser) {
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

async fn node_buttons(stage: &Stage, browser: &Browser) {
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

/// The console ends and comes again under its address: an open page says so, finds it again, and after logging
/// in shows what it showed.
async fn a_restart(stage: &Stage, browser: &Browser) {
    let console = stage.another("127.0.0.1:0".parse().unwrap()).await;
    let address = console.address();
    let page = format!("https://{address}/groups/shop/cart-prod?cell=sh-a");
    let on = "document.querySelector('#link') && document.querySelector('#link').classList.contains('on')";
    let enter = async || {
        browser
            .until("to log in", "location.pathname === '/login'")
            .await;
        browser.fill("#credential", &stage.admin).await;
        browser.click("form[action='/login'] button").await;
        browser.until("live", on).await;
    };
    browser.go(&page).await;
    enter().await;
    console.shutdown().await;
    browser
        .until("it says that the connection is lost", "document.querySelector('#link').classList.contains('off') && document.querySelector('#page').classList.contains('stale')")
        .await;
    let console = stage.another(address).await;
    enter().await;
    browser
        .until(
            "where it was",
            "location.pathname + location.search === '/groups/shop/cart-prod?cell=sh-a'",
        )
        .await;
    console.shutdown().await;
    browser.go(&url(stage, "/settings")).await;
}

/// A Group of a thousand instances on one page: all are there, in their order, and the keyboard reaches them.
async fn a_thousand_rows(stage: &Stage, browser: &Browser) {
    let mut state = State::default();
    let group = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": "big-prod", "namespace": "shop"},
        "spec": {"app": "big", "replicas": 1000, "placement": {"cells": [{"name": "sh-a"}]}, "revision": {"image": "r/a:1"}},
        "status": {"replicas": 1000, "inService": 1000, "current": {"revision": 1, "image": "r/a:1"}}});
    state.put_group(from_value(group).unwrap());
    let mut member = Member::default();
    for ordinal in 0..1000 {
        member.put(Instance {
            tenant: "shop".into(),
            name: format!("big-prod-sh-a-{ordinal}"),
            group: "big-prod".into(),
            cell: "sh-a".into(),
            ready: true,
            in_service: true,
            ..Instance::default()
        });
    }
    state.members.insert("sh".into(), member);
    let console = stage.with_state(state).await;
    let page = format!(
        "https://{}/groups/shop/big-prod?per=1000",
        console.address()
    );
    browser.go(&page).await;
    browser
        .until("to log in", "location.pathname === '/login'")
        .await;
    browser.fill("#credential", &stage.admin).await;
    browser.click("form[action='/login'] button").await;
    browser
        .until(
            "all rows, in order",
            "document.querySelectorAll('#instances [data-row]').length === 1000 && document.querySelectorAll('#instances [data-row]')[999].textContent === 'big-prod-sh-a-999'",
        )
        .await;
    browser
        .press(
            &[ESCAPE, "k"],
            "the last is marked",
            "document.querySelector('tr.here [data-row]').textContent === 'big-prod-sh-a-999'",
        )
        .await;
    console.model().change(|state| {
        let member = state.members.get_mut("sh").unwrap();
        member.put(Instance {
            tenant: "shop".into(),
            name: "big-prod-sh-a-500".into(),
            group: "big-prod".into(),
            cell: "sh-a".into(),
            trouble: "connection refused".into(),
            ..Instance::default()
        })
    });
    browser
        .until(
            "one changes, and what was marked stays so",
            "document.querySelectorAll('#instances tr')[501].textContent.includes('connection refused') && document.querySelector('tr.here [data-row]').textContent === 'big-prod-sh-a-999'",
        )
        .await;
    console.shutdown().await;
    browser.go(&url(stage, "/settings")).await;
}
