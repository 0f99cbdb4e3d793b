//! The asker against real servers on this machine's loopback.

use std::sync::Mutex as StdMutex;

use gantry_api::Span;
use http::Response;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

/// A server that answers every request by `answer`, which is told the server's address too; what was asked
/// is kept as method and path.
pub(in crate::shell) async fn serve_requests(
    answer: impl Fn(&http::request::Parts, &str) -> Response<String> + Send + Sync + Clone + 'static,
) -> (String, Arc<StdMutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::<StdMutex<Vec<String>>>::default();
    let (kept, own) = (seen.clone(), address.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, kept, own) = (answer.clone(), kept.clone(), own.clone());
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (parts, _) = request.into_parts();
                    kept.lock()
                        .unwrap()
                        .push(format!("{} {}", parts.method, parts.uri));
                    let response = answer(&parts, &own).map(|t| Full::new(Bytes::from(t)));
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, seen)
}

type Seen = Arc<StdMutex<Vec<(String, String, String)>>>;

/// A server that answers every request by `answer` (of its body) and keeps path, authorization and body.
async fn serve(
    answer: impl Fn(&str) -> (u16, String) + Send + Sync + Clone + 'static,
) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, kept) = (answer.clone(), kept.clone());
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (answer, kept) = (answer.clone(), kept.clone());
                    async move {
                        let path = request.uri().path().to_owned();
                        let token = request.headers().get(header::AUTHORIZATION);
                        let token = token.map_or(String::new(), |t| t.to_str().unwrap().to_owned());
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let body = String::from_utf8(body.to_vec()).unwrap();
                        let (code, text) = answer(&body);
                        kept.lock().unwrap().push((path, token, body));
                        let response = Response::builder().status(code);
                        Ok::<_, std::convert::Infallible>(
                            response.body(Full::new(Bytes::from(text))).unwrap(),
                        )
                    }
                });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, seen)
}

/// A hub in which there is one Secret.
pub(in crate::shell) fn hub() -> kube::Client {
    let service = tower_like(|path| {
        path.ends_with("/namespaces/shop/secrets/prom").then(|| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "prom"}, "data": {"token": "c2VzYW1lCg=="}})
        })
    });
    kube::Client::new(service, "shop")
}

/// A service that answers GET by path, and 404 where there is nothing.
fn tower_like(
    find: impl Fn(&str) -> Option<Value> + Clone + Send + Sync + 'static,
) -> impl tower::Service<
    Request<kube::client::Body>,
    Response = Response<kube::client::Body>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send {
    tower::service_fn(move |request: Request<kube::client::Body>| {
        let found = find(request.uri().path());
        async move {
            let (code, body) = match found {
                Some(value) => (200, value),
                None => (
                    404,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"}),
                ),
            };
            let response = Response::builder().status(code);
            Ok(response
                .body(kube::client::Body::from(body.to_string().into_bytes()))
                .unwrap())
        }
    })
}

fn metric(address: &str, baseline: Option<&str>, token: Option<&str>) -> Ask {
    Ask {
        id: "1".into(),
        token: token.map(|name| SecretKey {
            name: name.into(),
            key: "token".into(),
        }),
        question: Question::Metric {
            address: address.into(),
            query: "errors{pod=~\"a|b\"}".into(),
            baseline: baseline.map(str::to_owned),
        },
    }
}

fn webhook(url: &str, timeout: Span) -> Ask {
    Ask {
        id: "1".into(),
        token: None,
        question: Question::Webhook {
            url: url.into(),
            payload: json!({"name": "cart", "phase": "Progressing"}),
            timeout,
        },
    }
}

#[tokio::test]
async fn prometheus_is_asked_twice_where_revisions_are_compared() {
    let asker = Asker::new(hub(), &["127.0.0.1".parse().unwrap()]).unwrap();
    let (address, seen) = serve(|body| {
        let value = if body.contains("old") { "0.5" } else { "0.25" };
        let result = json!([{"metric": {}, "value": [1.5, value]}]);
        let data = json!({"resultType": "vector", "result": result});
        (200, json!({"status": "success", "data": data}).to_string())
    })
    .await;
    let answer = asker
        .ask("shop", &metric(&address, Some("old"), Some("prom")))
        .await;
    let (value, baseline) = (Ok(0.25), Some(Ok(0.5)));
    assert_eq!(answer, Answer::Metric { value, baseline });
    let seen = seen.lock().unwrap().clone();
    let query = "query=errors%7Bpod%3D%7E%22a%7Cb%22%7D";
    assert_eq!(
        seen[0],
        ("/api/v1/query".into(), "Bearer sesame".into(), query.into())
    );
    assert_eq!(seen[1].2, "query=old");
}

#[tokio::test]
async fn what_cannot_answer_says_why() {
    let asker = Asker::new(hub(), &["127.0.0.1".parse().unwrap()]).unwrap();
    let error = |answer| match answer {
        Answer::Metric { value, .. } => value.unwrap_err(),
        Answer::Webhook(answer) => answer.unwrap_err(),
        Answer::Digest(answer) => answer.unwrap_err(),
    };
    // Nobody listens: the port was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let why = error(asker.ask("shop", &metric(&nobody, None, None)).await);
    assert!(why.contains(&nobody) && why.contains("refused"), "{why}");

    let (address, _) = serve(|_| {
        let text = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        (400, text.to_owned())
    })
    .await;
    let why = error(asker.ask("shop", &metric(&address, None, None)).await);
    assert!(why.ends_with("answers 400: bad_data: parse error"), "{why}");

    let why = error(
        asker
            .ask("shop", &metric(&address, None, Some("gone")))
            .await,
    );
    assert!(why.starts_with("read secret gone"), "{why}");

    // A server that takes the connection and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let short = Span::from(Duration::from_millis(50));
    let why = error(asker.ask("shop", &webhook(&url, short)).await);
    assert_eq!(why, format!("{url} does not answer in 50ms"));
}

#[tokio::test]
async fn a_webhook_is_sent_json_and_its_words_are_kept() {
    let asker = Asker::new(hub(), &["127.0.0.1".parse().unwrap()]).unwrap();
    let (address, seen) = serve(|_| (403, "not today ".repeat(100))).await;
    let answer = asker
        .ask("shop", &webhook(&address, Span::seconds(10)))
        .await;
    let Answer::Webhook(Ok((403, words))) = answer else {
        panic!("{answer:?}")
    };
    assert!(words.starts_with("not today") && words.chars().count() == TOLD);
    let body: Value = serde_json::from_str(&seen.lock().unwrap()[0].2).unwrap();
    assert_eq!(body, json!({"name": "cart", "phase": "Progressing"}));
}

#[test]
fn each_question_is_put_once_and_each_answer_counts_once() {
    let key = ("shop".to_owned(), "cart".to_owned());
    let asked = Asked::default();
    assert!(asked.begin(&key, "1"));
    assert!(!asked.begin(&key, "1"), "it is under way");
    asked.end(&key, "1".into(), Answer::Webhook(Ok((200, String::new()))));
    assert!(!asked.begin(&key, "1"), "it is answered");
    let answers = asked.answers(&key);
    asked.end(&key, "2".into(), Answer::Webhook(Err("late".into())));
    asked.taken(&key, &answers);
    assert_eq!(asked.answers(&key).keys().collect::<Vec<_>>(), ["2"]);
    assert!(
        asked.begin(&key, "1"),
        "what was not written down is asked again"
    );
}
