//! Lists that are read page by page, versions, and watches, where the recorded conversations do
//! not reach: history that is gone, bookmarks, selectable fields of custom resources.

#![expect(
    clippy::expect_used,
    reason = "a test's helpers, which clippy does not see as such"
)]

use std::time::Duration;

use futures::{AsyncBufReadExt, AsyncRead, StreamExt};
use gantry_apiserver::{Config, Server};
use gantry_store::{Options, Store};
use http::{Request, header};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SOON: Duration = Duration::from_secs(20);

async fn start(options: Options) -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(options))
        .await
        .expect("the server starts")
}

fn request(method: &str, path: &str, accept: &str, body: &Value) -> Request<Vec<u8>> {
    let body = match body {
        Value::Null => vec![],
        body => body.to_string().into_bytes(),
    };
    let media = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .header(header::ACCEPT, accept)
        .body(body)
        .expect("a request")
}

async fn ask(client: &Client, method: &str, path: &str, body: Value) -> (u16, Value) {
    let request = request(method, path, "application/json", &body).map(Into::into);
    let response = client.send(request).await.expect("an answer");
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body");
    let value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    (code, value)
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect()
}

type Reader = futures::io::BufReader<std::pin::Pin<Box<dyn AsyncRead + Send>>>;

struct Events(futures::io::Lines<Reader>);

impl Events {
    /// `None` at the end of the watch.
    async fn next(&mut self) -> Option<(String, Value)> {
        let line = tokio::time::timeout(SOON, self.0.next())
            .await
            .expect("in time")?;
        let mut event: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let kind = event["type"].as_str().expect("a type").to_owned();
        Some((kind, event["object"].take()))
    }
}

async fn watch(client: &Client, path: &str, accept: &str) -> Events {
    let request = request("GET", path, accept, &Value::Null);
    let reader = client.request_stream(request).await.expect("a watch");
    let reader: std::pin::Pin<Box<dyn AsyncRead + Send>> = Box::pin(reader);
    Events(futures::io::BufReader::new(reader).lines())
}

/// Of a resource that nobody changes, too: etcd is compacted as a whole.
#[tokio::test]
async fn a_list_is_not_continued_for_ever() {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        list_age: Duration::from_millis(500),
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts");
    let client = server.client();
    for name in ["a", "b"] {
        assert_eq!(ask(&client, "POST", MAPS, map(name)).await.0, 201);
    }
    let (_, first) = ask(&client, "GET", &format!("{MAPS}?limit=1"), Value::Null).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    // What comes later is what the age is measured by.
    assert_eq!(ask(&client, "POST", MAPS, map("c")).await.0, 201);
    let path = format!("{MAPS}?limit=1&continue={token}");
    let expired = async {
        loop {
            let (code, answer) = ask(&client, "GET", &path, Value::Null).await;
            if code != 200 {
                return (code, answer);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (code, expired) = tokio::time::timeout(SOON, expired).await.expect("in time");
    assert_eq!((code, expired["reason"].as_str()), (410, Some("Expired")));
    let token = expired["metadata"]["continue"].as_str().expect("a token");
    let path = format!("{MAPS}?limit=1&continue={token}");
    let (code, second) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!((code, names(&second)), (200, vec!["b"]));
    server.shutdown().await;
}

#[tokio::test]
async fn a_list_whose_state_is_gone_goes_on_with_the_newest() {
    let options = Options {
        history_events: 4,
        ..Options::default()
    };
    let server = start(options).await;
    let client = server.client();
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(ask(&client, "POST", MAPS, map(name)).await.0, 201);
    }
    let (code, first) = ask(&client, "GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    assert_eq!((code, names(&first)), (200, vec!["a", "b"]));
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = first["metadata"]["continue"]
        .as_str()
        .expect("a token")
        .to_owned();
    let version = first["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();
    ask(&client, "DELETE", &format!("{MAPS}/d"), Value::Null).await;
    let path = format!("{MAPS}?limit=1&continue={token}");
    let (code, second) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!((code, names(&second)), (200, vec!["c"]));
    assert_eq!(second["metadata"]["resourceVersion"], version);
    assert_eq!(second["metadata"]["remainingItemCount"], 2, "{second}");
    for value in 0..20 {
        let patch = json!({"data": {"k": value.to_string()}});
        let (code, _) = ask(&client, "PATCH", &format!("{MAPS}/e"), patch).await;
        assert_eq!(code, 200);
    }
    let (code, gone) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")), "{gone}");
    let resume = gone["metadata"]["continue"]
        .as_str()
        .expect("a token to go on");
    let path = format!("{MAPS}?limit=1&continue={resume}");
    let (code, rest) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!((code, names(&rest)), (200, vec!["c"]));
    assert_ne!(rest["metadata"]["resourceVersion"], version);
    let next = rest["metadata"]["continue"].as_str().expect("a token");
    let path = format!("{MAPS}?continue={next}");
    let (code, rest) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!((code, names(&rest)), (200, vec!["e"]));
    assert_eq!(rest["items"][0]["data"]["k"], "19");
    assert!(rest["metadata"].get("continue").is_none());
    let path = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    let (code, gone) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")));
    assert!(gone["metadata"].get("continue").is_none());
    let path = format!("{MAPS}?watch=1&resourceVersion={version}");
    let mut events = watch(&client, &path, "application/json").await;
    let (kind, status) = events.next().await.expect("an event");
    assert_eq!((kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(events.next().await, None);
    server.shutdown().await;
}

/// The tables of Kubernetes' API concepts: which combinations are valid, and which state they show.
#[tokio::test]
async fn versions_and_their_matches() {
    let server = start(Options::default()).await;
    let client = server.client();
    ask(&client, "POST", MAPS, map("a")).await;
    let (_, old) = ask(&client, "GET", MAPS, Value::Null).await;
    ask(&client, "POST", MAPS, map("b")).await;
    let version = old["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    let (then, now) = (vec!["a"], vec!["a", "b"]);
    let future = "999999999999";
    for (query, code, seen) in [
        ("".to_owned(), 200, &now),
        ("resourceVersion=0".to_owned(), 200, &now),
        (format!("resourceVersion={version}"), 200, &now),
        (format!("resourceVersion={version}&limit=5"), 200, &then),
        (
            format!("resourceVersion={version}&limit=5&resourceVersionMatch=NotOlderThan"),
            200,
            &now,
        ),
        (
            format!("resourceVersion={version}&resourceVersionMatch=Exact"),
            200,
            &then,
        ),
        (
            format!("resourceVersion={version}&limit=5&resourceVersionMatch=Exact"),
            200,
            &then,
        ),
        (
            "resourceVersion=0&resourceVersionMatch=NotOlderThan".to_owned(),
            200,
            &now,
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact".to_owned(),
            422,
            &then,
        ),
        ("resourceVersionMatch=Exact".to_owned(), 422, &then),
        ("resourceVersionMatch=NotOlderThan".to_owned(), 422, &then),
        (
            format!("resourceVersion={version}&resourceVersionMatch=Some"),
            422,
            &then,
        ),
        (format!("resourceVersion={future}"), 504, &then),
        (
            format!("resourceVersion={future}&resourceVersionMatch=Exact"),
            504,
            &then,
        ),
        ("resourceVersion=-1".to_owned(), 400, &then),
        ("limit=x".to_owned(), 400, &then),
        ("timeoutSeconds=x".to_owned(), 400, &then),
        ("continue=x".to_owned(), 400, &then),
        ("sendInitialEvents=true".to_owned(), 422, &then),
        (
            "watch=1&resourceVersionMatch=NotOlderThan".to_owned(),
            422,
            &then,
        ),
        ("watch=1&sendInitialEvents=true".to_owned(), 422, &then),
        (
            "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
            422,
            &then,
        ),
        (
            format!(
                "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&resourceVersion={future}"
            ),
            504,
            &then,
        ),
        ("watch=1&timeoutSeconds=x".to_owned(), 400, &then),
    ] {
        let path = format!("{MAPS}?{query}");
        let (got, list) = ask(&client, "GET", &path, Value::Null).await;
        assert_eq!(got, code, "{query}: {list}");
        match code {
            200 => assert_eq!(&names(&list), seen, "{query}"),
            504 => {
                assert_eq!(list["reason"], "Timeout");
                assert_eq!(list["details"]["retryAfterSeconds"], 1);
                let cause = &list["details"]["causes"][0];
                assert_eq!(cause["reason"], "ResourceVersionTooLarge");
            }
            _ => {}
        }
    }
    let path = format!("{MAPS}/a?resourceVersion={future}");
    let (code, status) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")));
    server.shutdown().await;
}

#[tokio::test]
async fn a_watch_ends_with_a_bookmark() {
    let server = start(Options::default()).await;
    let client = server.client();
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=3");
    let mut events = watch(&client, &path, "application/json").await;
    let (kind, mark) = events.next().await.expect("an event");
    assert_eq!(
        (kind.as_str(), &mark["kind"]),
        ("BOOKMARK", &json!("ConfigMap"))
    );
    assert!(mark["metadata"].get("annotations").is_none());
    assert_eq!(events.next().await, None);
    server.shutdown().await;
}

#[tokio::test]
async fn custom_resources_enter_and_leave_a_selection() {
    let server = start(Options::default()).await;
    let client = server.client();
    let string = json!({"type": "string"});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": "cars", "singular": "car", "kind": "Car", "listKind": "CarList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color"}
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"color": string, "size": string}},
                }}},
            }],
        },
    });
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(ask(&client, "POST", crds, definition).await.0, 201);
    let cars = "/apis/example.com/v1/cars";
    let (code, _) = ask(
        &client,
        "GET",
        &format!("{cars}?fieldSelector=spec.size%3Dx"),
        Value::Null,
    )
    .await;
    assert_eq!(code, 400);
    let path = format!("{cars}?watch=1&fieldSelector=spec.color%3Dred");
    let mut whole = watch(&client, &path, "application/json").await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut rows = watch(&client, &format!("{path}&includeObject=Object"), table).await;
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut metadata = watch(&client, &path, partial).await;
    let car = json!({
        "apiVersion": "example.com/v1", "kind": "Car", "metadata": {"name": "c"},
        "spec": {"color": "blue"},
    });
    assert_eq!(ask(&client, "POST", cars, car).await.0, 201);
    let path = format!("{cars}/c");
    for spec in [
        json!({"color": "red"}),
        json!({"size": "x"}),
        json!({"color": "blue"}),
        json!({"color": "red"}),
    ] {
        let (code, _) = ask(&client, "PATCH", &path, json!({"spec": spec})).await;
        assert_eq!(code, 200);
    }
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    let expected = ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"];
    let mut versions = vec![];
    for kind in expected {
        let (got, object) = whole.next().await.expect("an event");
        assert_eq!(
            (got.as_str(), &object["kind"]),
            (kind, &json!("Car")),
            "{object}"
        );
        // What leaves the selection is shown as it was in it.
        assert_eq!(object["spec"]["color"], "red");
        versions.push(object["metadata"]["resourceVersion"].clone());
    }
    for (i, kind) in expected.into_iter().enumerate() {
        let (got, object) = rows.next().await.expect("an event");
        assert_eq!((got.as_str(), &object["kind"]), (kind, &json!("Table")));
        assert_eq!(object["columnDefinitions"].is_array(), i == 0, "{object}");
        let row = &object["rows"][0];
        assert_eq!(row["cells"], json!(["c", "red"]));
        assert_eq!(row["object"]["spec"]["color"], "red");
        assert_eq!(object["metadata"]["resourceVersion"], versions[i]);
        let (got, object) = metadata.next().await.expect("an event");
        assert_eq!(
            (got.as_str(), &object["kind"]),
            (kind, &json!("PartialObjectMetadata"))
        );
        assert_eq!(object["metadata"]["resourceVersion"], versions[i]);
        assert!(object.get("spec").is_none());
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_watch_begins_with_all_of_a_big_state_and_a_mark() {
    const COUNT: usize = 1_203;
    let server = start(Options::default()).await;
    let client = server.client();
    for number in 0..COUNT {
        let created = ask(&client, "POST", MAPS, map(&format!("m{number:04}"))).await;
        assert_eq!(created.0, 201);
    }
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut events = watch(&client, &path, "application/json").await;
    for number in 0..COUNT {
        let (kind, object) = events.next().await.expect("an event");
        let name = object["metadata"]["name"].as_str().expect("a name");
        assert_eq!((kind.as_str(), name), ("ADDED", &*format!("m{number:04}")));
    }
    let (kind, mark) = events.next().await.expect("a mark");
    assert_eq!(kind, "BOOKMARK");
    let ended = &mark["metadata"]["annotations"]["k8s.io/initial-events-end"];
    assert_eq!(ended, "true");
    ask(&client, "POST", MAPS, map("later")).await;
    let (kind, object) = events.next().await.expect("an event");
    assert_eq!(kind, "ADDED");
    assert_eq!(object["metadata"]["name"], "later");
    server.shutdown().await;
}
