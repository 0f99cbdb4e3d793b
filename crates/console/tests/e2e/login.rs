//! Logging in with an identity provider, from the button to a page that shows what the hub lets one see.

use http::{StatusCode, header};

use crate::{
    http::{Answer, Visitor},
    stage::{Stage, until},
};

fn location(answer: &Answer) -> String {
    answer.headers[header::LOCATION]
        .to_str()
        .unwrap()
        .to_owned()
}

/// The path of a URL.
fn path(url: &str) -> String {
    let rest = url.strip_prefix("https://").unwrap();
    rest[rest.find('/').unwrap()..].to_owned()
}

pub async fn with_the_provider(stage: &Stage) {
    let console = || Visitor::new(stage.console.address(), &stage.cert);
    let port = stage.provider.url.rsplit(':').next().unwrap();
    let at = format!("127.0.0.1:{port}").parse().unwrap();
    let provider = || Visitor::new(at, &stage.provider.ca);
    stage.provider.user("ann@example.com");

    let mut ann = console();
    assert!(
        ann.get("/login")
            .await
            .text
            .contains("Log in with localhost")
    );
    let begun = ann.get("/login/oidc?next=/services").await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
    let asked = location(&begun);
    assert!(
        asked.starts_with(&format!("{}/authorize?", stage.provider.url)),
        "{asked}"
    );
    let back = path(&location(&provider().get(&path(&asked)).await));
    assert!(back.starts_with("/login/oidc/callback?code="), "{back}");

    // Who has not begun it cannot end it, though they know the code; nor does a foreign `next` lead away.
    let mut other = console();
    assert_eq!(other.get(&back).await.status, StatusCode::UNAUTHORIZED);
    let entered = ann.get(&back).await;
    assert_eq!(entered.status, StatusCode::OK, "{}", entered.text);
    assert!(entered.text.contains("0;url=/services"), "{}", entered.text);
    let cookies: Vec<_> = entered.headers.get_all(header::SET_COOKIE).iter().collect();
    let session = cookies.iter().filter_map(|c| c.to_str().ok());
    assert!(
        session
            .into_iter()
            .any(|c| c.starts_with("__Host-gantry-session=") && c.contains("SameSite=Strict"))
    );
    let page = ann.get("/services").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.text.contains("cart-prod") && !page.text.contains("bank"),
        "she sees what her groups may"
    );
    assert!(
        ann.get("/settings")
            .await
            .text
            .contains("oidc:ann@example.com")
    );

    // A code is good once.
    assert_eq!(ann.get(&back).await.status, StatusCode::UNAUTHORIZED);
    for bad in [
        "/login/oidc/callback",
        "/login/oidc/callback?state=x&code=y",
        "/login/oidc/callback?error=access_denied",
    ] {
        assert_eq!(
            console().get(bad).await.status,
            StatusCode::UNAUTHORIZED,
            "{bad}"
        );
    }
    let begun = console().get("/login/oidc?next=//evil.example").await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER);
}

/// A session outlives its ID token as long as the provider renews it; then it ends, and the way leads back.
pub async fn a_token_expires(stage: &Stage) {
    let console = || Visitor::new(stage.console.address(), &stage.cert);
    let port = stage.provider.url.rsplit(':').next().unwrap();
    let at = format!("127.0.0.1:{port}").parse().unwrap();
    let mut provider = Visitor::new(at, &stage.provider.ca);
    stage.provider.user("ann@example.com");
    stage.provider.life(6);
    let mut ann = console();
    let asked = location(&ann.get("/login/oidc?next=/services").await);
    let back = path(&location(&provider.get(&path(&asked)).await));
    assert_eq!(ann.get(&back).await.status, StatusCode::OK);
    let first = ann.get("/settings").await;
    let csrf = |text: &str| {
        text.split("data-csrf=\"")
            .nth(1)
            .map(|t| t[..43].to_owned())
    };
    let ann = tokio::sync::Mutex::new(ann);
    let page = async |path: &str| ann.lock().await.get(path).await;
    until("the token was renewed", async || {
        page("/settings").await.status == StatusCode::OK && stage.provider.renewed() > 0
    })
    .await;
    let after = page("/settings").await;
    assert!(after.text.contains("oidc:ann@example.com"));
    assert_eq!(csrf(&after.text), csrf(&first.text), "open forms stay good");
    stage.provider.forget();
    until("the session ends with its token", async || {
        page("/services?q=cart").await.status == StatusCode::SEE_OTHER
    })
    .await;
    let sent = location(&page("/services?q=cart").await);
    assert_eq!(sent, "/login?next=%2Fservices%3Fq%3Dcart&ended=1");
    assert!(page(&sent).await.text.contains("Your session has ended"));
    stage.provider.life(600);
}
