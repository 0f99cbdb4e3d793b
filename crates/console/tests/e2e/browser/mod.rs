//! What people do, in a real browser: from click to effect in the cluster.

mod connection;
mod delivery;
mod manners;
mod operations;

use crate::{
    stage::Stage,
    webdriver::{Browser, there},
};

/// Everything. What waits for the fleet is done in one browser, what only looks in another; then what others would
/// notice: stopped lines, cordoned nodes, a console that restarts.
pub async fn all(stage: &Stage) {
    if !there() {
        return;
    }
    let (one, other) = tokio::join!(
        async {
            let browser = Browser::start(1440, 900).await;
            login(stage, &browser).await;
            manners::keyboard(stage, &browser).await;
            delivery::a_release(stage, &browser).await;
            delivery::scale_live(stage, &browser).await;
            delivery::revisions(stage, &browser).await;
            delivery::instances(stage, &browser).await;
            browser
        },
        async {
            let browser = Browser::start(1440, 900).await;
            login(stage, &browser).await;
            manners::languages_and_themes(stage, &browser).await;
            delivery::create(stage, &browser).await;
            delivery::approve(stage, &browser).await;
            operations::policies_and_quotas(stage, &browser).await;
            manners::favourites(stage, &browser).await;
            manners::paper_and_motion(stage, &browser).await;
            browser
        }
    );
    at_ease(other).await;
    operations::logs(stage, &one).await;
    operations::map(stage, &one).await;
    operations::hooks_lines_tokens(stage, &one).await;
    manners::every_page(stage, &one).await;
    operations::terminal(stage, &one).await;
    operations::node_buttons(stage, &one).await;
    connection::lost_connection(stage, &one).await;
    connection::a_restart(stage, &one).await;
    manners::a_thousand_rows(stage, &one).await;
    at_ease(one).await;
}

/// Closes a browser that has nothing to complain of.
async fn at_ease(browser: Browser) {
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
