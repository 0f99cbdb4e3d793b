//! ID tokens of an issuer on another socket: its keys, and what is made of their claims.

use std::{convert::Infallible, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gantry_apiserver::{
    Authentication, OidcClaim, OidcIssuer, Server, parse_authentication_config,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::CertificateParams;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

use super::{authority, memory, rsa_key, start, token, who};

/// An issuer's key and what it signs with it.
enum IdKey {
    Rsa(Box<rsa::KeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl IdKey {
    fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            IdKey::Rsa(key) => {
                // RSAPublicKey: a sequence of two integers. The exponent is the last three bytes.
                let der = key.public_key().as_ref();
                let (front, exponent) = der.split_at(der.len() - 3);
                let modulus = &front[front.len() - 2 - 256..front.len() - 2];
                json!({"kty": "RSA", "kid": id, "n": text(modulus), "e": text(exponent)})
            }
            IdKey::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({
                    "kty": "EC", "crv": "P-256", "kid": id, "use": "sig",
                    "x": text(&point[1..33]), "y": text(&point[33..]),
                })
            }
        }
    }

    fn sign(&self, id: &str, claims: &Value) -> String {
        let algorithm = match self {
            IdKey::Rsa(_) => "RS256",
            IdKey::Ec(_) => "ES256",
        };
        let header = json!({"alg": algorithm, "kid": id}).to_string();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let random = SystemRandom::new();
        let signature = match self {
            IdKey::Rsa(key) => {
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut out)
                    .unwrap();
                out
            }
            IdKey::Ec(key) => key
                .sign(&random, signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An issuer on a socket of this machine, whose key set can be changed.
struct TestIssuer {
    url: String,
    ca: String,
    keys: Arc<Mutex<Value>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn issuer() -> TestIssuer {
    let authority = authority();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = authority.sign(&params);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let keys = Arc::new(Mutex::new(json!({"keys": []})));
    let (served, issuer) = (keys.clone(), url.clone());
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, served, issuer) = (acceptor.clone(), served.clone(), issuer.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else {
                    return;
                };
                let service = hyper::service::service_fn(|request: http::Request<_>| {
                    let _: &hyper::body::Incoming = request.body();
                    let answer = match request.uri().path() {
                        "/.well-known/openid-configuration" => {
                            json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})
                        }
                        _ => served.lock().clone(),
                    };
                    let body = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
                    async move { Ok::<_, Infallible>(http::Response::new(body)) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    TestIssuer {
        url,
        ca: authority.pem,
        keys,
        task,
    }
}

/// The user of a token, as soon as its issuer is known: the discovery goes on beside the first
/// requests.
async fn once_known(server: &Server, bearer: &str) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match who(server, &token(bearer)).await {
            Ok(user) => return user,
            Err(code) => assert!(tokio::time::Instant::now() < deadline, "still {code}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn id_tokens_are_verified_with_the_keys_of_their_issuer() {
    let issuer = issuer().await;
    let first = IdKey::Rsa(Box::new(rsa_key().0));
    let second = IdKey::Ec(Box::new(
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    ));
    *issuer.keys.lock() = json!({"keys": [first.jwk("1")]});
    let authentication = Authentication {
        oidc: vec![OidcIssuer {
            url: issuer.url.clone(),
            ca_pem: Some(issuer.ca.clone()),
            audiences: vec!["me".to_owned()],
            algorithms: vec!["RS256".to_owned(), "ES256".to_owned()],
            username: OidcClaim::Named {
                name: "sub".to_owned(),
                prefix: "o:".to_owned(),
            },
            groups: Some(OidcClaim::Named {
                name: "groups".to_owned(),
                prefix: String::new(),
            }),
            ..OidcIssuer::default()
        }],
        ..Authentication::default()
    };
    let server = start(authentication, memory()).await;
    let now = jiff::Timestamp::now().as_second();
    let claims = |change: Value| {
        let mut claims = json!({
            "iss": issuer.url, "aud": ["me"], "sub": "ann", "groups": ["dev"], "exp": now + 600,
        });
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    };
    let good = first.sign("1", &claims(json!({})));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let user = once_known(&server, &good).await;
    assert_eq!(user["username"], "o:ann");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    for bad in [
        json!({"aud": "you"}),
        json!({"exp": now - 5}),
        json!({"nbf": now + 900}),
        json!({"iss": "https://localhost:1"}),
        json!({"sub": 1}),
    ] {
        let bearer = first.sign("1", &claims(bad.clone()));
        assert_eq!(who(&server, &token(&bearer)).await, Err(401), "{bad}");
    }
    // A key that the issuer did not have when it was asked first; keys are read again when a token
    // needs it, not more often than every second.
    let turned = second.sign("2", &claims(json!({"sub": "bob"})));
    assert_eq!(who(&server, &token(&turned)).await, Err(401));
    *issuer.keys.lock() = json!({"keys": [second.jwk("2")]});
    let user = loop {
        match who(&server, &token(&turned)).await {
            Ok(user) => break user,
            Err(code) => assert!(tokio::time::Instant::now() < deadline, "still {code}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(user["username"], "o:bob");
    assert_eq!(
        who(&server, &token(&good)).await,
        Err(401),
        "its key is gone"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn several_issuers_with_mappings_and_rules_of_a_configuration() {
    let (one, two) = (issuer().await, issuer().await);
    let key = IdKey::Rsa(Box::new(rsa_key().0));
    *one.keys.lock() = json!({"keys": [key.jwk("1")]});
    *two.keys.lock() = json!({"keys": [key.jwk("1")]});
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {"url": one.url, "certificateAuthority": one.ca, "audiences": ["me", "us"], "audienceMatchPolicy": "MatchAny"},
                "claimValidationRules": [{"expression": "claims.exp - claims.iat <= 3600", "message": "too long a life"}],
                "claimMappings": {
                    "username": {"expression": "'one:' + claims.sub"},
                    "groups": {"expression": "claims.roles.filter(r, r.startsWith('k8s-'))"},
                    "uid": {"claim": "sub"},
                    "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
                },
                "userValidationRules": [{"expression": "!user.groups.exists(g, g == 'k8s-banned')", "message": "banned"}],
            },
            {
                "issuer": {"url": two.url, "certificateAuthority": two.ca, "audiences": ["me"]},
                "claimMappings": {"username": {"claim": "sub", "prefix": "two:"}},
            },
        ],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
    });
    let (oidc, anonymous) = parse_authentication_config(&config.to_string(), &[]).unwrap();
    let authentication = Authentication {
        oidc,
        anonymous: anonymous.unwrap(),
        ..Authentication::default()
    };
    let server = start(authentication, memory()).await;
    let now = jiff::Timestamp::now().as_second();
    let claims = |issuer: &TestIssuer, life: i64, roles: Value| {
        json!({
            "iss": issuer.url, "aud": "us", "sub": "ann", "roles": roles, "tenant": "t",
            "iat": now, "exp": now + life,
        })
    };
    let good = key.sign("1", &claims(&one, 600, json!(["k8s-a", "b"])));
    let user = once_known(&server, &good).await;
    assert_eq!(
        user,
        json!({
            "username": "one:ann", "uid": "ann", "groups": ["k8s-a", "system:authenticated"],
            "extra": {"example.com/tenant": ["t"]},
        })
    );
    let mut other = claims(&two, 9000, json!([]));
    other["aud"] = "me".into();
    let user = once_known(&server, &key.sign("1", &other)).await;
    assert_eq!(user["username"], "two:ann");
    for (bad, why) in [
        (claims(&one, 9000, json!([])), "lives too long"),
        (claims(&one, 600, json!(["k8s-banned"])), "is banned"),
        (claims(&two, 600, json!([])), "is for another audience"),
        (claims(&one, 600, Value::Null), "its roles are no list"),
    ] {
        let bearer = key.sign("1", &bad);
        assert_eq!(who(&server, &token(&bearer)).await, Err(401), "{why}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn issuers_come_and_go_with_their_file() {
    use gantry_apiserver::{Config, ConfigFile, Reload};

    use crate::reload::{counted, replace};

    let (one, two) = (issuer().await, issuer().await);
    let key = IdKey::Rsa(Box::new(rsa_key().0));
    for issuer in [&one, &two] {
        *issuer.keys.lock() = json!({"keys": [key.jwk("1")]});
    }
    let file = |issuer: &TestIssuer, more: Value| {
        let mut file = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": issuer.url, "certificateAuthority": issuer.ca, "audiences": ["me"]},
                "claimMappings": {"username": {"claim": "sub", "prefix": "o:"}},
            }],
        });
        for (key, value) in more.as_object().unwrap() {
            file[key] = value.clone();
        }
        file.to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("issuers.json");
    let first = file(&one, json!({}));
    replace(&path, &first);
    let (oidc, anonymous) = parse_authentication_config(&first, &[]).unwrap();
    assert_eq!(anonymous, None);
    let config = Config {
        authentication: Authentication {
            oidc,
            ..Authentication::default()
        },
        reload: Reload {
            authentication: Some((ConfigFile::new(&path, &first), anonymous)),
            ..Reload::default()
        },
        ..Config::default()
    };
    let server = Server::start(config, memory()).await.unwrap();
    let exp = jiff::Timestamp::now().as_second() + 600;
    let [of_one, of_two] = [&one, &two].map(|issuer| {
        let claims = json!({"iss": issuer.url, "aud": ["me"], "sub": "ann", "exp": exp});
        key.sign("1", &claims)
    });
    once_known(&server, &of_one).await;
    assert_eq!(who(&server, &token(&of_two)).await, Err(401));

    // When the change is counted, the keys of the new one are there and the old one is gone.
    replace(&path, &file(&two, json!({})));
    counted(&server, "authentication", "success", 1).await;
    assert_eq!(who(&server, &token(&of_one)).await, Err(401));
    let user = who(&server, &token(&of_two)).await.unwrap();
    assert_eq!(user["username"], "o:ann");

    for (n, wrong) in [
        "kind: Nothing".to_owned(),
        file(&one, json!({"anonymous": {"enabled": false}})),
    ]
    .iter()
    .enumerate()
    {
        replace(&path, wrong);
        counted(&server, "authentication", "failure", n as u64 + 1).await;
    }
    who(&server, &token(&of_two)).await.unwrap();
    server.shutdown().await;
}
