//! What someone meets who may see one tenant only, on every page and path there is; and what stands
//! between a browser's session and others.

use gantry_console::{API_PATHS, FORM_PATHS, PAGE_PATHS, STREAM_PATHS};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    http::Visitor,
    stage::{Stage, release_names, until},
};

fn visitor(stage: &Stage) -> Visitor {
    Visitor::new(stage.console.address(), &stage.cert)
}

/// Logging in and out, and what every answer carries.
pub async fn login_and_headers(stage: &Stage) {
    let mut nobody = visitor(stage);
    for path in [
        "/",
        "/services",
        "/groups/shop/cart-prod",
        "/nodes",
        "/settings",
        "/create",
    ] {
        let answer = nobody.get(path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(
            answer.headers[header::LOCATION]
                .to_str()
                .unwrap()
                .starts_with("/login?next="),
            "{path}"
        );
    }
    let page = nobody.get("/login").await;
    let policy = page.headers[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for (path, status) in [
        ("/api/v1/groups", 401),
        ("/api/v1/me", 401),
        ("/logs/sh/shop/x", 401),
        ("/healthz", 200),
        ("/api/openapi.json", 200),
    ] {
        assert_eq!(nobody.get(path).await.status, status, "{path}");
    }
    assert!(nobody.get("/live?u=/").await.text.contains("event: login"));
    assert_eq!(
        nobody.login("no-such-token").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        nobody
            .post("/groups/shop/cart-prod/scale", &[("replicas", "1")])
            .await
            .status,
        StatusCode::SEE_OTHER
    );

    let mut admin = visitor(stage);
    let answer = admin.login(&stage.admin).await;
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    for part in [
        "__Host-gantry-session=",
        "HttpOnly",
        "Secure",
        "SameSite=Strict",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let page = admin.get("/").await;
    assert_eq!(page.status, StatusCode::OK);
    for found in [
        "<script>",
        " style=\"",
        " onclick=",
        "javascript:",
        "http://",
    ] {
        assert!(!page.text.contains(found), "{found}");
    }
    // A kubeconfig logs in as well as its token.
    let mut other = visitor(stage);
    let kubeconfig = serde_saphyr::to_string(&stage.hub.kubeconfig()).unwrap();
    assert_eq!(other.login(&kubeconfig).await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        other.post("/logout", &[]).await.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(other.get("/settings").await.status, StatusCode::SEE_OTHER);
    // The link of the start works once.
    let door = stage.console.door().unwrap();
    let path = door
        .strip_prefix(stage.console.url().trim_end_matches('/'))
        .unwrap();
    let mut first = visitor(stage);
    assert_eq!(first.get(path).await.status, StatusCode::SEE_OTHER);
    assert_eq!(first.get("/settings").await.status, StatusCode::OK);
    assert_eq!(visitor(stage).get(path).await.status, StatusCode::FORBIDDEN);
}

/// A path with names in its places: those of a tenant, and of what belongs to the fleet.
fn filled(pattern: &str, tenant: &str, app: &str) -> String {
    let group = format!("{app}-prod");
    let names = [
        ("{tenant}", tenant),
        ("{app}", app),
        ("{group}", &group),
        ("{release}", &format!("{group}-2")),
        ("{instance}", &format!("{group}-sh-a-0")),
        ("{cluster}", "sh"),
        ("{node}", "sh-a-001"),
        ("{press}", "rollback"),
        ("{act}", "cordon"),
        ("{policy}", "spread-zones"),
        ("{kind}", "ResourceQuota"),
        ("{quota}", "compute"),
        ("{hook}", "chat"),
        ("{line}", "all"),
        ("{file}", "records.csv"),
    ];
    let mut path = pattern.to_owned();
    for (place, name) in names {
        path = path.replace(place, name);
    }
    assert!(!path.contains('{'), "{pattern}: what goes into its places?");
    path
}

/// Every page, stream and form there is, by someone who may see one tenant: what is another's or the fleet's is not
/// there, what has no names in it shows none of theirs, and nothing of it is changed.
pub async fn every_path(stage: &Stage) {
    let mut dev = visitor(stage);
    dev.login(&stage.dev).await;
    let fleets = ["{node}", "{policy}", "{line}"];
    for pattern in PAGE_PATHS.iter().chain(STREAM_PATHS) {
        let theirs = filled(pattern, "bank", "vault");
        let answer = dev.get(&theirs).await;
        if pattern.contains("{tenant}") || fleets.iter().any(|f| pattern.contains(f)) {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{theirs}");
        } else {
            let open = matches!(answer.status, StatusCode::OK | StatusCode::NOT_FOUND);
            assert!(open, "{theirs}: {}", answer.status);
        }
        // Logs that are followed have no end.
        let end = if pattern.starts_with("/logs") {
            "?follow=0"
        } else {
            ""
        };
        let own = filled(pattern, "shop", "cart") + end;
        for (path, text) in [(&theirs, answer.text), (&own, dev.get(&own).await.text)] {
            for secret in ["bank", "vault-prod", "href=\"/nodes"] {
                assert!(!text.contains(secret), "{path} shows {secret}");
            }
        }
    }
    let before = everything(stage).await;
    let fields = [
        ("replicas", "0"),
        ("confirm", "vault-prod"),
        ("name", "x"),
        ("reason", "x"),
        ("fleet", "1"),
        ("image", "a:1"),
        ("verb", "move"),
        ("to", "sh-b"),
        ("instance", "vault-prod-sh-a-0"),
        ("account", "bank/default"),
        ("hours", "1"),
        ("tenant", "bank"),
        ("cluster", "sh"),
        (
            "yaml",
            "kind: App\nmetadata:\n  name: x\n  namespace: bank\n",
        ),
    ];
    for pattern in FORM_PATHS {
        let path = filled(pattern, "bank", "vault");
        let answer = dev.post(&path, &fields).await;
        // Pieces of pages say in words what cannot be.
        let said =
            pattern.ends_with("/check") || ["/create/sync", "/policies/trial"].contains(pattern);
        let refused = matches!(
            answer.status,
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY
        );
        assert!(refused || said, "{path}: {}", answer.status);
        assert!(!answer.text.contains("vault-prod-bj"), "{path}");
    }
    assert_eq!(everything(stage).await, before, "nothing of it is changed");
}

/// The specs of what a form could change, of both tenants and the fleet.
async fn everything(stage: &Stage) -> Vec<String> {
    let mut all = Vec::new();
    let mut take = |kind: &str, objects: Value| {
        for item in objects["items"].as_array().into_iter().flatten() {
            let (meta, spec) = (&item["metadata"], &item["spec"]);
            all.push(format!(
                "{kind} {} {} {spec}",
                meta["namespace"], meta["name"]
            ));
        }
    };
    let gantry = "/apis/gantry.dev/v1alpha1";
    for kind in [
        "apps",
        "groups",
        "releases",
        "stoplines",
        "tenants",
        "notifications",
    ] {
        take(
            kind,
            list(&stage.client(), &format!("{gantry}/{kind}")).await,
        );
    }
    for member in &stage.members {
        let client = member.client();
        take("nodes", list(&client, "/api/v1/nodes").await);
        take(
            "policies",
            list(&client, &format!("{gantry}/placementpolicies")).await,
        );
        take("quotas", list(&client, "/api/v1/resourcequotas").await);
    }
    all
}

async fn list(client: &kube::Client, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    client.request(request).await.unwrap()
}

/// Everything that is not theirs is not there for them: no page, no count, no name.
pub async fn one_tenant_only(stage: &Stage) {
    let mut dev = visitor(stage);
    assert_eq!(dev.login(&stage.dev).await.status, StatusCode::SEE_OTHER);
    let node = stage.members[0].name();
    let foreign = [
        "/services/bank",
        "/services/bank/vault",
        "/groups/bank/vault-prod",
        "/groups/bank/vault-prod?tab=yaml",
        "/groups/bank/vault-prod/release",
        "/groups/bank/vault-prod/scale",
        "/releases/bank/vault-prod-2",
        "/releases/bank/vault-prod-2/rollback",
        "/instances/sh/bank/vault-prod-sh-a-0",
        "/instances/sh/bank/vault-prod-sh-a-0?tab=logs",
        "/instances/sh/bank/vault-prod-sh-a-0/restart",
        "/logs/sh/bank/vault-prod-sh-a-0",
        "/logs/bank/vault-prod",
        "/groups/bank/vault-prod?tab=logs",
        "/nodes",
        "/nodes/sh/sh-a-001",
        "/nodes/sh/sh-a-001/drain",
        "/lines",
        "/policies",
        "/policies/sh/spread-zones",
        "/create/policy",
        "/quotas/sh/bank/ResourceQuota/all",
        "/tenants/bank",
        "/groups/bank/vault-prod/instances?verb=restart&instance=vault-prod-sh-a-0",
        "/instances/sh/bank/vault-prod-sh-a-0?tab=placement",
        "/instances/sh/bank/vault-prod-sh-a-0?tab=terminal",
        "/instances/sh/shop/cart-prod-sh-a-0?tab=terminal",
        "/exec/sh/bank/vault-prod-sh-a-0",
        "/exec/sh/shop/cart-prod-sh-a-0",
        "/notifications/bank/chat",
    ];
    for path in foreign {
        let there = dev.get(path).await;
        let never = dev
            .get(
                &path
                    .replace("vault", "nothing")
                    .replace("bank", "nobody")
                    .replace("001", "999"),
            )
            .await;
        assert_eq!(there.status, StatusCode::NOT_FOUND, "{path} of {node}");
        assert_eq!(never.status, StatusCode::NOT_FOUND, "{path}");
    }
    // Nothing of it on the pages that they do see, nor in what is sent when these change.
    for path in [
        "/",
        "/services",
        "/releases",
        "/settings",
        "/services?q=vault",
        "/releases?q=vault",
        "/records",
        "/create",
        "/groups/shop/cart-prod",
        "/quotas",
        "/quotas?q=vault",
        "/notifications",
    ] {
        let page = dev.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        let body = page.text.replace("value=\"vault\"", "");
        for secret in ["bank", "vault-prod", "href=\"/nodes"] {
            assert!(!body.contains(secret), "{path} shows {secret}");
        }
        let live = dev
            .get(&format!("/live?u={}", path.replace('?', "%3F")))
            .await;
        assert!(
            !live.text.contains("bank/") && !live.text.contains("vault-prod"),
            "live {path}"
        );
    }
    for file in ["/export/records.csv", "/export/records.jsonl?tenant=bank"] {
        let answer = dev.get(file).await;
        assert!(
            answer.status == StatusCode::OK && !answer.text.contains("vault"),
            "{file}"
        );
    }
    let asked = dev.get("/records?tenant=bank").await;
    assert!(asked.status == StatusCode::OK && !asked.text.contains("vault"));
    let mut admin = visitor(stage);
    admin.login(&stage.admin).await;
    assert!(admin.get("/records").await.text.contains("vault"));
    let csv = admin.get("/export/records.csv?tenant=bank").await;
    assert!(csv.text.starts_with("id,at,user,") && csv.text.contains("vault"));
    assert!(!csv.text.contains(",shop,"), "filters hold for files too");
    let other = admin.get("/export/passwords.csv").await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert!(admin.get("/services").await.text.contains("vault-prod"));

    // A script's first requests come at once, before its token is known: they are one login, not thirty.
    let first = (0..30).map(|_| {
        let mut script = visitor(stage);
        script.bearer = Some(stage.dev.clone());
        async move { script.get("/api/v1/fleet").await.status }
    });
    for status in futures::future::join_all(first).await {
        assert_eq!(status, StatusCode::OK);
    }

    // Every path of the API, with foreign names and with their own.
    let mut script = visitor(stage);
    script.bearer = Some(stage.dev.clone());
    for (method, path) in API_PATHS {
        let filled = path
            .replace("{tenant}", "bank")
            .replace("{cluster}", "sh")
            .replace("{action}", "cordon")
            .replace(
                "{name}",
                if path.contains("nodes") {
                    "sh-a-001"
                } else if path.contains("instances/{") {
                    "vault-prod-sh-a-0"
                } else {
                    "vault-prod"
                },
            );
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let body = if method == Method::POST {
            json!({"replicas": 1, "image": "x:1"}).to_string()
        } else {
            String::new()
        };
        let answer = script
            .send(
                method.clone(),
                &format!("{filled}?q=vault&cluster=sh&cell=sh-a&index=0"),
                "application/json",
                body,
                &[],
            )
            .await;
        if path.contains('{')
            || ["nodes", "clusters", "policies", "pools"]
                .iter()
                .any(|p| path.contains(p))
        {
            assert_eq!(
                answer.status,
                StatusCode::NOT_FOUND,
                "{method} {filled}: {}",
                answer.text
            );
        } else {
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{method} {filled}: {}",
                answer.text
            );
            assert!(
                !answer.text.contains("vault") && !answer.text.contains("bank"),
                "{filled}: {}",
                answer.text
            );
        }
    }
    let fleet: Value = serde_json::from_str(&script.get("/api/v1/fleet").await.text).unwrap();
    assert_eq!(
        (
            fleet["counts"]["tenants"].as_u64(),
            fleet["counts"]["groups"].as_u64()
        ),
        (Some(1), Some(2))
    );
    assert!(fleet["counts"]["nodes"].is_null());
    let groups: Value = serde_json::from_str(&script.get("/api/v1/groups").await.text).unwrap();
    assert_eq!(groups["total"], 2);
}

/// Writes need the session's token and come from here; who may not is refused by the API server.
pub async fn writes(stage: &Stage) {
    let mut dev = visitor(stage);
    dev.login(&stage.dev).await;
    let right = dev.csrf.clone();
    let scale = "/groups/shop/front-prod/scale";
    for token in ["", "wrong"] {
        dev.csrf = token.to_owned();
        assert_eq!(
            dev.post(scale, &[("replicas", "9")]).await.status,
            StatusCode::FORBIDDEN,
            "{token:?}"
        );
    }
    dev.csrf = right.clone();
    let form = format!("csrf={right}&replicas=9");
    let cross = dev
        .send(
            Method::POST,
            scale,
            "application/x-www-form-urlencoded",
            form,
            &[("sec-fetch-site", "cross-site")],
        )
        .await;
    assert_eq!(cross.status, StatusCode::FORBIDDEN);
    let api = dev
        .send(
            Method::POST,
            "/api/v1/groups/shop/front-prod/scale",
            "application/json",
            json!({"replicas": 9}).to_string(),
            &[],
        )
        .await;
    assert_eq!(
        api.status,
        StatusCode::FORBIDDEN,
        "a cookie alone changes nothing"
    );

    // Theirs: scaled, and the page shows it; to none only with the name.
    assert_eq!(
        dev.post(scale, &[("replicas", "0")]).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(
        dev.post(scale, &[("replicas", "9")]).await.status,
        StatusCode::SEE_OTHER
    );
    stage.in_service("shop", "front-prod").await;
    let dev = std::sync::Arc::new(tokio::sync::Mutex::new(dev));
    until("the page shows 9 / 9", async || {
        dev.lock()
            .await
            .get("/groups/shop/front-prod")
            .await
            .text
            .contains("<strong>9</strong> / 9")
    })
    .await;
    let mut dev = dev.lock().await;

    // A release that changes nothing is refused with the form; others' are not there.
    let nothing = dev
        .post("/groups/shop/front-prod/release", &[("strategy", "group")])
        .await;
    assert_eq!(nothing.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(nothing.text.contains("nothing changes"));
    // May see instances of their own, and evict none.
    assert_eq!(
        dev.post("/instances/sh/shop/cart-prod-sh-a-0/restart", &[])
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    // What they may wish for is of their Groups' instances alone.
    let foreign = [("verb", "restart"), ("instance", "vault-prod-sh-a-0")];
    let answer = dev.post("/groups/shop/cart-prod/instances", &foreign).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    // Why theirs are where they are, and no name of a node with it.
    let says = dev
        .post("/instances/sh/shop/cart-prod-sh-a-0/placement", &[])
        .await;
    assert_eq!(says.status, StatusCode::OK);
    assert!(
        says.text.contains("Placed on") && !says.text.contains("<th scope"),
        "{}",
        says.text
    );
    // A terminal needs the token of the session, also of who may open one.
    let mut admin = visitor(stage);
    admin.login(&stage.admin).await;
    let upgrade = |protocols: &'static str| {
        [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ]
    };
    let shell = "/exec/sh/shop/cart-prod-sh-a-0";
    for protocols in ["v5.channel.k8s.io", "v5.channel.k8s.io, wrong"] {
        let headers = upgrade(protocols);
        let sent = admin.send(Method::GET, shell, "", String::new(), &headers);
        assert_eq!(sent.await.status, StatusCode::FORBIDDEN, "{protocols}");
    }
    let plain = admin.get(shell).await;
    assert_eq!(plain.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(release_names(&stage.client(), "bank").await.is_empty());
}

/// Who logs out sees no more, on pages and in logs that are open; who looks at the same page with a session of their
/// own goes on.
pub async fn what_is_open_ends_with_the_session(stage: &Stage) {
    let mut leaves = Visitor::new(stage.console.address(), &stage.cert);
    let mut stays = leaves.clone();
    for visitor in [&mut leaves, &mut stays] {
        let answer = visitor.login(&stage.dev).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    }
    let live = "/live?u=/groups/shop/cart-prod&m=0";
    let mut page = leaves.open(live).await;
    let mut log = leaves.open("/logs/sh/shop/cart-prod-sh-a-0").await;
    assert!(page.until("cart-prod-sh-a-0").await && log.until("\n").await);
    let mut other = stays.open(live).await;
    assert!(other.until("cart-prod-sh-a-0").await);
    let answer = leaves.post("/logout", &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    assert!(!page.until("nothing says this").await && !log.until("nothing says this").await);
    assert!(page.text.ends_with("event: login\ndata: {}\n\n"));
    // They shared a rendering, that of the one who left: it is begun anew.
    assert!(!other.until("event: login").await);
    assert!(!other.text.contains("event: login"));
    assert!(stays.open(live).await.until("cart-prod-sh-a-0").await);
}
