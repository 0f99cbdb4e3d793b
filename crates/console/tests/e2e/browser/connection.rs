//! A page whose server or session goes away.

use super::url;
use crate::{
    stage::{Stage, until},
    webdriver::Browser,
};

pub async fn lost_connection(stage: &Stage, browser: &Browser) {
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

/// The console ends and comes again under its address: an open page says so, finds it again, and after logging
/// in shows what it showed.
pub async fn a_restart(stage: &Stage, browser: &Browser) {
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
