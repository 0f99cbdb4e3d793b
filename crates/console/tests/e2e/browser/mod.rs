//! What people do, in a real browser: from click to effect in the cluster.

mod connection;
mod delivery;
mod manners;
mod operations;

use crate::{
    stage::Stage,
    webdriver::{Browser, there},
};

/// Everything, in one browser.
pub async fn all(stage: &Stage) {
    if !there() {
        return;
    }
    let browser = Browser::start(1440, 900).await;
    login(stage, &browser).await;
    manners::keyboard(stage, &browser).await;
    manners::languages_and_themes(stage, &browser).await;
    delivery::a_release(stage, &browser).await;
    delivery::scale_live(stage, &browser).await;
    delivery::create(stage, &browser).await;
    delivery::approve(stage, &browser).await;
    delivery::revisions(stage, &browser).await;
    operations::policies_and_quotas(stage, &browser).await;
    delivery::instances(stage, &browser).await;
    operations::logs(stage, &browser).await;
    operations::map(stage, &browser).await;
    manners::favourites(stage, &browser).await;
    manners::paper_and_motion(stage, &browser).await;
    operations::hooks_lines_tokens(stage, &browser).await;
    manners::every_page(stage, &browser).await;
    operations::terminal(stage, &browser).await;
    operations::node_buttons(stage, &browser).await;
    connection::lost_connection(stage, &browser).await;
    connection::a_restart(stage, &browser).await;
    manners::a_thousand_rows(stage, &browser).await;
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
