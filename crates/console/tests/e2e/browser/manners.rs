//! How the console is used: by keyboard, in two languages and themes, on a phone, with many rows.

use gantry_console::{
    PAGE_PATHS,
    model::{Instance, Member, State},
};
use serde_json::{from_value, json};

use super::url;
use crate::{
    stage::Stage,
    webdriver::{Browser, CONTROL, ENTER, ESCAPE},
};

pub async fn keyboard(stage: &Stage, browser: &Browser) {
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

pub async fn languages_and_themes(stage: &Stage, browser: &Browser) {
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
pub async fn every_page(stage: &Stage, browser: &Browser) {
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

pub async fn favourites(stage: &Stage, browser: &Browser) {
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

/// A Group of a thousand instances on one page: all are there, in their order, and the keyboard reaches them.
pub async fn a_thousand_rows(stage: &Stage, browser: &Browser) {
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

/// On paper a page is black on white and has nothing to press; who wishes for no motion sees none.
pub async fn paper_and_motion(stage: &Stage, browser: &Browser) {
    browser.go(&url(stage, "/settings")).await;
    browser.click("input[value='dark']").await;
    browser.click("#settings button.primary").await;
    browser
        .until("dark", "document.documentElement.dataset.theme === 'dark'")
        .await;
    browser.go(&url(stage, "/groups/shop/front-prod")).await;
    let seen = "const shown = (q) => [...document.querySelectorAll(q)].some(e => e.getClientRects().length); const page = getComputedStyle(document.documentElement); return [shown('header.top'), shown('.actions, .buttons'), page.backgroundColor, page.color, shown('#instances tbody tr')]";
    let screen = browser.run(seen).await;
    assert_eq!((&screen[0], &screen[1]), (&json!(true), &json!(true)));
    browser.medium("print", false).await;
    let paper = json!([false, false, "rgb(255, 255, 255)", "rgb(0, 0, 0)", true]);
    assert_eq!(browser.run(seen).await, paper);
    browser.medium("", false).await;
    assert!(browser.print().await.starts_with(b"%PDF"));

    let moves = "const t = document.createElement('span'); t.className = 'tile t-busy'; document.body.append(t); const name = getComputedStyle(t).animationName; t.remove(); return name";
    assert_eq!(browser.run(moves).await, "pulse");
    browser.medium("", true).await;
    assert_eq!(browser.run(moves).await, "none");
    browser.medium("", false).await;
    browser.go(&url(stage, "/settings")).await;
    browser.click("input[value='light']").await;
    browser.click("#settings button.primary").await;
    browser
        .until(
            "light",
            "document.documentElement.dataset.theme === 'light'",
        )
        .await;
}
