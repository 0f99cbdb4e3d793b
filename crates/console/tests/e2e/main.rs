//! The console before a whole embedded fleet: what people who may see one tenant meet, and what a real
//! browser does. One fleet and one browser for all of it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

mod browser;
mod http;
mod login;
mod security;
mod stage;
mod webdriver;

use serde_json::json;
use stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_console() {
    let stage = Stage::start(3).await;
    for (tenant, app) in [("shop", "cart"), ("shop", "front"), ("bank", "vault")] {
        stage.service(tenant, app, 8, json!({})).await;
    }
    for (tenant, group) in [
        ("shop", "cart-prod"),
        ("shop", "front-prod"),
        ("bank", "vault-prod"),
    ] {
        stage.in_service(tenant, group).await;
    }
    security::login_and_headers(&stage).await;
    security::one_tenant_only(&stage).await;
    security::every_path(&stage).await;
    security::writes(&stage).await;
    security::what_is_open_ends_with_the_session(&stage).await;
    login::with_the_provider(&stage).await;
    tokio::join!(browser::all(&stage), login::a_token_expires(&stage));
    stage.shutdown().await;
}
