use std::net::IpAddr;

use gantry_api::notification::Format;
use gantry_records::Via;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use form::{message, taken};
use guard::Guard;

fn record() -> Record {
    Record {
        id: "0190-1".into(),
        at: "2026-11-26T10:00:00Z".parse().unwrap(),
        who: Who {
            user: "alice".into(),
            groups: vec![],
            via: Via::Cli,
        },
        verb: Verb::Release,
        object: Object {
            kind: "Release".into(),
            namespace: "shop".into(),
            name: "cart-42".into(),
            uid: "u".into(),
            group: "cart".into(),
        },
        why: "new prices {{who}}".into(),
        before: None,
        after: Some(json!({"image": "cart:2"})),
        outcome: Outcome::Succeeded,
        message: "all 12 instances are on revision 2".into(),
        started: Some("2026-11-26T10:00:05Z".parse().unwrap()),
        finished: Some("2026-11-26T10:02:05Z".parse().unwrap()),
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_674_087_231).unwrap()
}

#[rstest]
#[case("shop", json!({}), true)]
#[case("bank", json!({}), false)]
#[case("gantry-system", json!({}), true)]
#[case("shop", json!({"paused": true}), false)]
#[case("shop", json!({"events": [{"kinds": ["Group"]}]}), false)]
#[case("shop", json!({"events": [{"kinds": ["Group"]}, {"outcomes": ["succeeded", "failed"]}]}), true)]
#[case("shop", json!({"events": [{"kinds": ["Release"], "outcomes": ["failed"]}]}), false)]
#[case("shop", json!({"events": [{"groups": ["cart"]}]}), true)]
#[case("shop", json!({"events": [{"groups": ["checkout"]}]}), false)]
#[case("shop", json!({"events": [{"verbs": ["release"], "groups": ["cart"]}]}), true)]
fn who_is_told_of_what(#[case] namespace: &str, #[case] spec: Value, #[case] told: bool) {
    let spec: NotificationSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(wants(namespace, &spec, &record()), told);
}

#[test]
fn pauses_grow_to_ten_minutes() {
    let at = |tries| pause(tries, 1.0).as_secs();
    assert_eq!([1, 2, 3, 10, 11, 40].map(at), [1, 2, 4, 512, 600, 600]);
    assert_eq!(pause(2, 0.0), Duration::from_secs(1));
}

#[test]
fn cloud_events_are_signed_as_standard_webhooks_say() {
    let spec = NotificationSpec::default();
    let sent = message(
        &spec,
        "https://x/",
        Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        &record(),
        now(),
    );
    let event: Value = serde_json::from_str(&sent.body).unwrap();
    assert_eq!(
        (
            &event["specversion"],
            &event["type"],
            &event["subject"],
            &event["time"],
            &event["id"]
        ),
        (
            &json!("1.0"),
            &json!("dev.gantry.release.succeeded"),
            &json!("shop/release/cart-42"),
            &json!("2026-11-26T10:02:05Z"),
            &json!("0190-1")
        )
    );
    assert_eq!(event["data"]["who"]["user"], "alice");
    let header = |name| {
        sent.headers
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.as_str())
    };
    assert_eq!(header("webhook-id"), Some("0190-1"));
    assert_eq!(header("webhook-timestamp"), Some("1674087231"));
    assert!(header("webhook-signature").unwrap().starts_with("v1,"));
    // The example of the standard's own libraries.
    let signature = sign::standard(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        "{\"test\": 2432232314}",
    );
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let begun = Record {
        outcome: Outcome::Running,
        finished: None,
        ..record()
    };
    let sent = message(&spec, "https://x/", None, &begun, now());
    assert!(sent.body.contains("dev.gantry.release.started") && sent.body.contains("0190-1-begin"));
    assert!(sent.headers.iter().all(|(n, _)| *n != "webhook-signature"));
}

#[rstest]
#[case(Format::Slack, "/text")]
#[case(Format::DingTalk, "/text/content")]
#[case(Format::Feishu, "/content/text")]
#[case(Format::WeCom, "/text/content")]
fn chat_tools_get_a_line(#[case] format: Format, #[case] place: &str) {
    let mut spec = NotificationSpec {
        format,
        ..NotificationSpec::default()
    };
    let sent = message(
        &spec,
        "https://x/robot?token=1",
        Some("SEC1"),
        &record(),
        now(),
    );
    let body: Value = serde_json::from_str(&sent.body).unwrap();
    assert_eq!(
        body.pointer(place).unwrap(),
        "Release shop/cart-42: succeeded after 2m · all 12 instances are on revision 2 · new prices {{who}}"
    );
    match format {
        Format::DingTalk => assert!(
            sent.url
                .starts_with("https://x/robot?token=1&timestamp=1674087231000&sign="),
            "{}",
            sent.url
        ),
        Format::Feishu => assert!(body["sign"].is_string() && body["timestamp"] == "1674087231"),
        _ => assert_eq!(sent.url, "https://x/robot?token=1"),
    }
    spec.template = "{{who}}: {{name}} {{ outcome }} {{odd}} {{why}} {{".into();
    let sent = message(&spec, "https://x/", None, &record(), now());
    let body: Value = serde_json::from_str(&sent.body).unwrap();
    // What a person wrote is put in as it is.
    assert_eq!(
        body.pointer(place).unwrap(),
        "alice: cart-42 succeeded {{odd}} new prices {{who}} {{"
    );
}

#[rstest]
#[case(Format::CloudEvents, 204, "", true)]
#[case(Format::CloudEvents, 302, "", false)]
#[case(Format::CloudEvents, 500, "", false)]
#[case(Format::Slack, 200, "ok", true)]
#[case(Format::DingTalk, 200, r#"{"errcode": 0, "errmsg": "ok"}"#, true)]
#[case(
    Format::DingTalk,
    200,
    r#"{"errcode": 310000, "errmsg": "sign not match"}"#,
    false
)]
#[case(Format::WeCom, 200, "<html>", false)]
#[case(Format::Feishu, 200, r#"{"code": 0}"#, true)]
#[case(Format::Feishu, 200, r#"{"code": 19021}"#, false)]
fn answers_are_read(
    #[case] format: Format,
    #[case] status: u16,
    #[case] body: &str,
    #[case] good: bool,
) {
    assert_eq!(taken(format, status, body.as_bytes()).is_ok(), good);
}

#[test]
fn private_addresses_are_not_for_tenants() {
    let guard = Guard {
        allowed: ["10.1.0.0/16", "fd00:1::/32", "hooks.corp", "*.chat.corp"]
            .map(|a| a.parse().unwrap())
            .to_vec(),
        open: false,
    };
    for (address, reachable) in [
        ("8.8.8.8", true),
        ("2606:4700::1111", true),
        ("127.0.0.1", false),
        ("0.0.0.0", false),
        ("10.2.0.1", false),
        ("10.1.255.1", true),
        ("172.31.0.1", false),
        ("172.32.0.1", true),
        ("192.168.1.1", false),
        ("169.254.169.254", false),
        ("100.100.100.200", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("::1", false),
        ("::", false),
        ("fe80::1", false),
        ("fd00::1", false),
        ("fd00:1::1", true),
        ("::ffff:10.2.0.1", false),
        ("::ffff:8.8.8.8", true),
        ("64:ff9b::a9fe:a9fe", false),
        ("64:ff9b::808:808", true),
        ("2002:0a02:0001::1", false),
        ("ff02::1", false),
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(guard.address(address), reachable, "{address}");
    }
    for (host, reachable) in [
        ("hooks.corp", true),
        ("HOOKS.corp.", true),
        ("x.hooks.corp", false),
        ("a.chat.corp", true),
        ("chat.corp", false),
        ("evilchat.corp", false),
    ] {
        assert_eq!(guard.host(host), reachable, "{host}");
    }
    for wrong in ["10.0.0.0/33", "a b", "", "*.", "10.0.0/8"] {
        assert!(wrong.parse::<guard::Allowed>().is_err(), "{wrong}");
    }
}

#[test]
fn a_test_is_sent_when_it_was_asked_for_just_now() {
    let hook: Notification = serde_json::from_value(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "Notification",
        "metadata": {"name": "chat", "namespace": "shop", "annotations": {(labels::CHANGED_BY): "alice"}},
        "spec": {"url": "https://x.test", "events": [{"kinds": ["Release"]}]}}))
    .unwrap();
    let at: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
    let sent = test(&hook, "2026-11-26T10:00:00Z", at).unwrap();
    assert_eq!(
        (sent.who.user.as_str(), sent.object.name.as_str()),
        ("alice", "chat")
    );
    let later = at + SignedDuration::from_secs(61);
    assert!(test(&hook, "2026-11-26T10:00:00Z", later).is_none());
    assert!(test(&hook, "soon", at).is_none());
    let text = message(&hook.spec, "https://x.test", None, &sent, at).body;
    assert!(text.contains("this is a test"), "{text}");
}
