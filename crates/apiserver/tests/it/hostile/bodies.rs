//! Bodies of size and depth.

use serde_json::{Map, Value, json};

use super::{Hostile, send, start};

fn nested(open: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + "1" + &close.repeat(depth)
}

/// What generation finds too seldom: size, depth, and inputs whose meaning explodes.
#[tokio::test]
async fn deep_and_huge_bodies_are_refused() {
    let server = start().await;
    let client = server.client();
    let maps = "/api/v1/namespaces/default/configmaps";
    let one = json!({"metadata": {"name": "x"}, "data": {"a": "b"}}).to_string();
    let post = |media: &str, body: String| Hostile {
        method: "POST",
        uri: maps.to_owned(),
        media: media.to_owned(),
        accept: "application/json".to_owned(),
        body: body.into_bytes(),
    };
    let change = |media: &str, body: String| Hostile {
        method: "PATCH",
        uri: format!("{maps}/x"),
        media: media.to_owned(),
        accept: "application/json".to_owned(),
        body: body.into_bytes(),
    };
    let (json_type, yaml_type) = ("application/json", "application/yaml");
    assert_eq!(send(&client, &post(json_type, one)).await, Some(201));
    let limit = 3 * 1024 * 1024;
    let big = |size: usize| {
        let body = json!({"metadata": {"name": "big"}, "data": {"a": ""}}).to_string();
        let fill = "x".repeat(size - body.len());
        body.replace("\"\"", &format!("\"{fill}\""))
    };
    for (what, hostile, code) in [
        ("the limit", post(json_type, big(limit)), None),
        ("beyond the limit", post(json_type, big(limit + 1)), Some(413)),
        ("deep arrays", post(json_type, nested("[", "]", 100_000)), Some(400)),
        ("deep objects", post(json_type, nested("{\"a\":", "}", 100_000)), Some(400)),
        ("deep unknown member", post(json_type, format!("{{\"x\":{}}}", nested("[", "]", 5_000))), Some(400)),
        ("deep YAML", post(yaml_type, nested("[", "]", 100_000)), Some(400)),
        ("deep YAML blocks", post(yaml_type, "- ".repeat(50_000)), Some(400)),
        ("many errors", post(json_type, json!({"metadata": {"name": "y"}, "data": (0..20_000).map(|i| (format!("/{i}"), "".into())).collect::<Map<_, _>>()}).to_string()), Some(422)),
        ("deep merge patch", change("application/merge-patch+json", nested("{\"a\":", "}", 100_000)), Some(400)),
        ("deep apply", change("application/apply-patch+yaml", nested("{a: ", "}", 100_000)), None),
        ("an empty patch", change("application/json-patch+json", "[]".to_owned()), Some(200)),
        ("a pointer to nowhere", change("application/json-patch+json", json!([{"op": "add", "path": "/a".repeat(100_000), "value": 1}]).to_string()), None),
    ] {
        let got = send(&client, &hostile).await;
        assert!(got.is_some_and(|c| c < 500), "{what}: {got:?}");
        if code.is_some() {
            assert_eq!(got, code, "{what}");
        }
    }
    // Each doubles the last: a thousand million values if they were all written out.
    let mut laughs = "a0: &a0 [x, x]\n".to_owned();
    for i in 1..30 {
        laughs += &format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1);
    }
    let got = send(&client, &post(yaml_type, laughs))
        .await
        .expect("answered");
    assert!((400..500).contains(&got), "{got}");
    let mut doubling = vec![json!({"op": "add", "path": "/data/a0", "value": "x".repeat(1000)})];
    doubling.push(json!({"op": "add", "path": "/z", "value": {"a": ["x".repeat(1000)]}}));
    for i in 0..40 {
        doubling.push(json!({"op": "copy", "from": "/z", "path": format!("/z/b{i}")}));
    }
    let hostile = change(
        "application/json-patch+json",
        Value::from(doubling).to_string(),
    );
    let got = send(&client, &hostile).await.expect("answered");
    assert!((400..500).contains(&got), "{got}");
    let many: Vec<Value> = (0..20_000)
        .map(|_| json!({"op": "test", "path": "/data/a", "value": "b"}))
        .collect();
    let hostile = change("application/json-patch+json", Value::from(many).to_string());
    let got = send(&client, &hostile).await.expect("answered");
    assert_eq!(got, 413);
    let mut selector = Hostile {
        method: "GET",
        uri: format!("{maps}?labelSelector={}", "a,".repeat(20_000)),
        media: String::new(),
        accept: json_type.to_owned(),
        body: vec![],
    };
    assert!(send(&client, &selector).await.is_some());
    selector.uri = format!("{maps}?labelSelector=a%20in%20({}b)", "(".repeat(20_000));
    assert_eq!(send(&client, &selector).await, Some(400));
    selector.uri = format!(
        "{maps}?fieldSelector={}",
        "metadata.name%3Dx,".repeat(3_000)
    );
    assert!(send(&client, &selector).await.is_some());
    server.shutdown().await;
}
