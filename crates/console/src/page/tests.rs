//! What pages say, as text: one line a row, in both languages.

use gantry_api::{Notification, PlacementPolicy};
use gantry_records::Record;
use gantry_scheduler::{
    report::{Advice, Excluded, Report, Room, Selecting},
    trial::{Moved, Told, Trial},
};
use maud::Markup;
use serde_json::{from_value, json};

use super::{hooks, placement, policies, quotas, records, scale};
use crate::{
    app::Cx,
    error::Fail,
    model::{
        State,
        limits::{Amount, Quota, QuotaKind},
    },
    prefs::Lang,
    view::{Params, policies::row, quotas::QuotaRow},
};

/// What someone reads of it: rows as lines, cells apart.
fn read(html: &Markup) -> String {
    let text = html.clone().into_string();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        let end = rest[start..]
            .find('>')
            .map_or(rest.len(), |n| start + n + 1);
        let tag = &rest[start..end];
        let apart = ["</tr", "</p", "</h", "</li", "</div", "</ul"];
        if apart.iter().any(|t| tag.starts_with(t)) {
            out.push('\n');
        } else if tag.starts_with("</t") {
            out.push_str(" | ");
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    let lines = out
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && *l != "|");
    lines.collect::<Vec<_>>().join("\n")
}

fn quota_rows() -> Vec<QuotaRow> {
    let amount = |resource: &str, used, guaranteed, limit| Amount {
        resource: resource.into(),
        used,
        guaranteed,
        limit,
    };
    let quota = |kind, name: &str, amounts| QuotaRow {
        cluster: if kind == QuotaKind::Tenant {
            String::new()
        } else {
            "sh".into()
        },
        quota: Quota {
            kind,
            namespace: "shop".into(),
            name: name.into(),
            parent: if kind == QuotaKind::ElasticQuota {
                "company".into()
            } else {
                String::new()
            },
            kept: false,
            counted: None,
            amounts,
        },
        binds: String::new(),
        share: 0,
    };
    let mut all = vec![
        quota(
            QuotaKind::Tenant,
            "default",
            vec![
                amount("requests.cpu", 7500, None, Some(10_000)),
                amount("requests.memory", 19 << 30, None, Some(20 << 30)),
            ],
        ),
        quota(
            QuotaKind::ResourceQuota,
            "compute",
            vec![amount("pods", 40, None, Some(40))],
        ),
        quota(
            QuotaKind::ElasticQuota,
            "web",
            vec![
                amount("cpu", 6000, Some(4000), Some(8000)),
                amount("memory", 1 << 30, Some(2 << 30), None),
            ],
        ),
    ];
    for row in &mut all {
        let (binds, share) = row
            .quota
            .tightest()
            .map(|(a, s)| (a.resource.clone(), s))
            .unwrap_or_default();
        (row.binds, row.share) = (binds, share);
    }
    all
}

#[tokio::test]
async fn what_quotas_say() {
    let en = Cx::still(State::default(), Lang::En);
    let zh = Cx::still(State::default(), Lang::Zh);
    let rows = quota_rows();
    insta::assert_snapshot!(read(&quotas::table(&en, &Params::default(), &rows)));
    insta::assert_snapshot!(read(&quotas::table(&zh, &Params::default(), &rows)));
}

#[tokio::test]
async fn what_policies_and_their_dry_run_say() {
    let cx = Cx::still(State::default(), Lang::En);
    let policy: PlacementPolicy = from_value(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy",
        "metadata": {"name": "fast", "generation": 1, "creationTimestamp": "2026-11-27T07:00:00Z"},
        "spec": {"priority": 7, "pods": {"namespaces": ["shop"]}, "strategy": "Pack"},
        "status": {"observedGeneration": 1, "pods": 3, "problems": ["no node has the label disk"]}}))
    .unwrap();
    let rows = [row("sh", &policy)];
    let list = read(&policies::table(&cx, &Params::default(), &rows));
    let trial = Trial {
        policies: vec![Told {
            name: "fast".into(),
            pods: 3,
            problems: vec!["no node has the label disk".into()],
        }],
        pods: 40,
        must_move: 2,
        nowhere: 1,
        would_differ: 60,
        list: vec![
            Moved {
                pod: "shop/a".into(),
                from: "n1".into(),
                to: Some("n2".into()),
                why: "node(s) didn't match".into(),
            },
            Moved {
                pod: "shop/b".into(),
                from: "n1".into(),
                to: None,
                why: "node(s) didn't match".into(),
            },
        ],
    };
    let none = Trial {
        pods: 40,
        ..Trial::default()
    };
    let all = [
        ("sh".to_owned(), Ok(trial)),
        ("bj".to_owned(), Ok(none)),
        (
            "gz".to_owned(),
            Err(Fail::Upstream("gz: connection refused".into())),
        ),
    ];
    let told = read(&policies::trial(&cx, &all));
    insta::assert_snapshot!(format!("{list}\n---\n{told}"));
}

#[tokio::test]
async fn what_a_placement_says() {
    let mut cx = Cx::still(State::default(), Lang::En);
    let pending = Report {
        namespace: "shop".into(),
        name: "cart-0".into(),
        nodes: 30,
        message: Some("0/30 nodes are available: 30 Insufficient cpu.".into()),
        excluded: vec![Excluded {
            nodes: 30,
            reason: "Insufficient cpu".into(),
        }],
        changes: vec![Advice {
            change: "500m CPU less".into(),
            nodes: 4,
            example: "sh-a-003".into(),
        }],
        preemption: Some(Room {
            node: "sh-a-001".into(),
            victims: 2,
            elsewhere: 0,
        }),
        policies: vec![Selecting {
            name: "fast".into(),
            says: vec!["strategy"],
        }],
        ..Report::default()
    };
    // Names of nodes are for who sees nodes.
    let mut sight = (*cx.sight).clone();
    sight.nodes = false;
    let seen = read(&placement::says(&cx, &Ok(pending.clone())));
    cx.sight = std::sync::Arc::new(sight);
    let hidden = read(&placement::says(&cx, &Ok(pending)));
    assert!(!hidden.contains("sh-a-0"), "{hidden}");
    insta::assert_snapshot!(format!("{seen}\n---\n{hidden}"));
}

fn record(verb: &str, before: serde_json::Value, after: serde_json::Value) -> Record {
    from_value(json!({
        "id": "1", "at": "2026-11-27T07:58:00Z", "who": {"user": "alice", "via": "console"}, "verb": verb,
        "object": {"kind": "Group", "namespace": "shop", "name": "cart-prod"}, "before": before, "after": after,
        "outcome": "done", "message": "frozen until 2026-11-27 09:00 UTC"}))
    .unwrap()
}

#[tokio::test]
async fn what_records_say() {
    let cx = Cx::still(State::default(), Lang::Zh);
    let all = [record(
        "scale",
        json!({"replicas": 3}),
        json!({"replicas": 5}),
    )];
    let scaled = read(&scale::table(&cx, &all));
    let shown = read(&records::table(&cx, &Params::default(), &all));
    insta::assert_snapshot!(format!("{scaled}\n---\n{shown}"));
}

#[tokio::test]
async fn what_hooks_say() {
    let cx = Cx::still(State::default(), Lang::En);
    let hook = |name: &str, status: serde_json::Value| {
        let hook: Notification = from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Notification", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"url": "https://hooks.example.com/x?token=secret", "format": "Feishu"}, "status": status}))
        .unwrap();
        std::sync::Arc::new(hook)
    };
    let condition = |status: &str| json!([{"type": "Ready", "status": status, "reason": "x", "message": "", "lastTransitionTime": "2026-11-27T07:00:00Z"}]);
    let all = [
        hook("new", json!({})),
        hook(
            "good",
            json!({"delivered": 4, "conditions": condition("True"), "lastDelivered": "2026-11-27T07:59:00Z"}),
        ),
        hook(
            "bad",
            json!({"dead": 2, "message": "no answer in 10s", "conditions": condition("False")}),
        ),
    ];
    let text = read(&hooks::table(&cx, &all));
    assert!(!text.contains("secret"), "a list shows no URL");
    insta::assert_snapshot!(text);
}
