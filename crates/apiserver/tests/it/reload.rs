//! Configuration files that change while the server runs.
#![expect(
    clippy::expect_used,
    reason = "helpers of tests, which clippy does not see as tests"
)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_apiserver::{
    Config, ConfigFile, Reload, Server, parse_authorization_config, parse_encryption_config,
};
use gantry_store::{Options, Store};
use serde_json::{Value, json};

use super::{
    access::{get, post, refused, send},
    authorization::{kubeconfig, reply},
    encryption::{SECRETS, keys, lies_in, secret},
    hooks::server::Webhook,
    operations::metrics,
};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Replaces a file as editors and mounted volumes do: at once.
pub fn replace(path: &Path, text: &str) {
    let other = path.with_extension("new");
    std::fs::write(&other, text).expect("written");
    std::fs::rename(&other, path).expect("renamed");
}

/// How often a configuration was taken over, or not.
async fn count(server: &Server, of: &str, status: &str) -> u64 {
    let name = format!("apiserver_{of}_config_controller_automatic_reloads_total");
    let status = format!("status=\"{status}\"");
    let text = metrics(&server.client()).await;
    let line = text
        .lines()
        .find(|l| l.starts_with(&name) && l.contains(&status));
    let value = line.and_then(|l| l.rsplit(' ').next()?.parse().ok());
    value.unwrap_or(0)
}

pub async fn counted(server: &Server, of: &str, status: &str, n: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while count(server, of, status).await != n {
        assert!(Instant::now() < deadline, "no {n}. {status} of {of}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start(store: &Store, authorizers: Option<(&Path, &str)>, reload: Reload) -> Server {
    let mut config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        reload,
        ..Config::default()
    };
    if let Some((path, text)) = authorizers {
        config.authorization = parse_authorization_config(text, None).expect("understood");
        config.reload.authorization = Some(ConfigFile::new(path, text));
    }
    Server::start(config, store.clone())
        .await
        .expect("the server starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn authorizers_come_and_go_with_their_file() {
    let says = |word: &'static str| {
        Webhook::raw(move |_, review| {
            let verb = review["spec"]["resourceAttributes"]["verb"].as_str();
            let allowed = verb == Some(word);
            reply(review, json!({"allowed": allowed, "reason": "ruled"}))
        })
    };
    let (lists, gets) = (says("list").await, says("get").await);
    let (lists, gets) = (kubeconfig(&lists), kubeconfig(&gets));
    let text = |hook: &Path, rest: &str| {
        format!(
            "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: outside
  webhook:
    timeout: 10s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    authorizedTTL: 1h
    unauthorizedTTL: 1h
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {hook:?}}}
{rest}"
        )
    };
    let rbac = "- {type: RBAC, name: rbac}";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("authorizers.yaml");
    let first = text(lists.path(), rbac);
    replace(&path, &first);
    let store = Store::in_memory(Options::default());
    let server = start(&store, Some((&path, &first)), Reload::default()).await;
    let ann = server.client_as("ann", &[]);
    let one = format!("{PODS}/x");
    get(&ann, PODS).await.expect("lists are allowed");
    refused(get(&ann, &one).await, "cannot get");

    // Another one is asked, and nothing that was remembered counts any more.
    replace(&path, &text(gets.path(), rbac));
    counted(&server, "authorization", "success", 1).await;
    refused(get(&ann, PODS).await, "cannot list");
    let (code, _) = get(&ann, &one).await.expect_err("no pod");
    assert_eq!(code, 404);

    // What is wrong, and what cannot be done while the server runs, leaves all as it is.
    for (n, wrong) in [
        "kind: Nothing".to_owned(),
        text(gets.path(), ""),
        text(
            gets.path(),
            &format!("{rbac}\n- {{type: Node, name: node}}"),
        ),
        text(Path::new("/no/such/kubeconfig"), rbac),
    ]
    .iter()
    .enumerate()
    {
        replace(&path, wrong);
        counted(&server, "authorization", "failure", n as u64 + 1).await;
    }
    std::fs::remove_file(&path).expect("removed");
    counted(&server, "authorization", "failure", 5).await;
    refused(get(&ann, PODS).await, "cannot list");

    // And the file is followed on. Without webhooks RBAC has the say.
    let alone = format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{}]}}",
        rbac.trim_start_matches("- ")
    );
    replace(&path, &alone);
    counted(&server, "authorization", "success", 2).await;
    refused(get(&ann, &one).await, "cannot get");
    let text = metrics(&server.client()).await;
    for part in [
        r#"apiserver_authorization_decisions_total{decision="allowed",name="outside",type="Webhook"} 2"#,
        r#"apiserver_authorization_webhook_evaluations_total{name="outside",result="success"} 4"#,
        "apiserver_authorization_config_controller_last_config_info{",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn objects_are_encrypted_by_the_key_that_is_now_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("encryption.json");
    let data = folder.path().join("data");
    let file = |providers: &[Value]| {
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}],
        })
        .to_string()
    };
    let (one, two) = (keys("aescbc", "key1"), keys("secretbox", "key2"));
    let first = file(std::slice::from_ref(&one));
    replace(&path, &first);
    let encryption = Arc::new(parse_encryption_config(&first).expect("understood"));
    let options = Options {
        keeper: Some(encryption.clone()),
        ..Options::default()
    };
    let store = Store::open(&data, options).expect("opened");
    let reload = Reload {
        encryption: Some((ConfigFile::new(&path, &first), encryption)),
        ..Reload::default()
    };
    let server = start(&store, None, reload).await;
    let client = server.client();
    post(&client, SECRETS, &secret("a", "words"))
        .await
        .expect("created");
    let at = format!("{SECRETS}/a");
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let put = async |object: &Value| {
        let put = send(&client, "PUT", &at, &[], object).await;
        put.expect("replaced")
    };
    let before = get(&client, &at).await.expect("read");
    let same = put(&before).await;
    assert_eq!(version(&same), version(&before), "nothing changes");

    replace(&path, &file(&[two.clone(), one]));
    counted(&server, "encryption", "success", 1).await;
    let turned = put(&before).await;
    assert_ne!(version(&turned), version(&before), "it is written again");
    assert_eq!(version(&put(&turned).await), version(&turned), "and once");
    assert!(lies_in(&data, b"k8s:enc:secretbox:v1:key2:"));
    // What is not encrypted at all is not written for it.
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = post(&client, maps, &json!({"metadata": {"name": "m"}}))
        .await
        .expect("created");
    replace(&path, "{}");
    counted(&server, "encryption", "failure", 1).await;
    replace(&path, &file(&[two]));
    counted(&server, "encryption", "success", 2).await;
    let same = send(&client, "PUT", &format!("{maps}/m"), &[], &map)
        .await
        .expect("replaced");
    assert_eq!(version(&same), version(&map));
    assert_eq!(
        version(&put(&turned).await),
        version(&turned),
        "its key stayed"
    );
    server.shutdown().await;
    store.close().await;
}
