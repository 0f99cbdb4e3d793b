//! A small identity provider: discovery, keys, an authorization endpoint at which everybody is whoever they
//! are said to be, and a token endpoint that checks the code, its PKCE verifier and the client.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    digest, rand,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::{
    Json, Router,
    extract::{Form, Query, State},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

type Fields = HashMap<String, String>;

pub struct Provider {
    pub url: String,
    /// Its certificate, PEM.
    pub ca: String,
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    key: EcdsaKeyPair,
    /// Who logs in next.
    user: Mutex<String>,
    codes: Mutex<HashMap<String, (Fields, String)>>,
    /// Seconds that ID tokens are good for.
    life: Mutex<i64>,
    /// Tokens that renew, and who they are of.
    renewing: Mutex<HashMap<String, String>>,
    /// How many were used.
    renewed: Mutex<usize>,
}

impl Provider {
    pub async fn start() -> Self {
        let cert = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(cert.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.cert.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let url = format!("https://localhost:{}", address.port());
        let inner = Arc::new(Inner {
            url: url.clone(),
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            user: Mutex::new("ann@example.com".to_owned()),
            codes: Mutex::default(),
            life: Mutex::new(600),
            renewing: Mutex::default(),
            renewed: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(inner.clone());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = TowerToHyperService::new(router);
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            url,
            ca: cert.cert.pem(),
            inner,
        }
    }

    /// Who logs in next.
    pub fn user(&self, name: &str) {
        *self.inner.user.lock().unwrap() = name.to_owned();
    }
}

impl Provider {
    /// How long ID tokens are good for from now on.
    pub fn life(&self, seconds: i64) {
        *self.inner.life.lock().unwrap() = seconds;
    }

    /// Renews nothing any more of what was given until now.
    pub fn forget(&self) {
        self.inner.renewing.lock().unwrap().clear();
    }

    /// How often it has renewed.
    pub fn renewed(&self) -> usize {
        *self.inner.renewed.lock().unwrap()
    }
}

async fn discovery(State(inner): State<Arc<Inner>>) -> Json<Value> {
    let url = &inner.url;
    Json(
        json!({"issuer": url, "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys")}),
    )
}

async fn keys(State(inner): State<Arc<Inner>>) -> Json<Value> {
    // An uncompressed point: 4, x, y.
    let point = inner.key.public_key().as_ref();
    let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    Json(
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1",
        "x": part(1..33), "y": part(33..65)}]}),
    )
}

async fn authorize(State(inner): State<Arc<Inner>>, Query(asked): Query<Fields>) -> Response {
    for (name, want) in [
        ("response_type", "code"),
        ("client_id", "gantry-console"),
        ("code_challenge_method", "S256"),
    ] {
        if asked.get(name).map(String::as_str) != Some(want) {
            return (StatusCode::BAD_REQUEST, format!("{name} is not {want}")).into_response();
        }
    }
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).unwrap();
    let code = URL_SAFE_NO_PAD.encode(bytes);
    let to = format!(
        "{}?code={code}&state={}",
        asked["redirect_uri"], asked["state"]
    );
    let user = inner.user.lock().unwrap().clone();
    inner.codes.lock().unwrap().insert(code, (asked, user));
    Redirect::to(&to).into_response()
}

async fn token(State(inner): State<Arc<Inner>>, Form(form): Form<Fields>) -> Response {
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    let refuse = |why: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": why}))).into_response();
    if field("grant_type") == "refresh_token" {
        // Each is good once.
        let user = inner
            .renewing
            .lock()
            .unwrap()
            .remove(&field("refresh_token"));
        let Some(user) = user else {
            return refuse("invalid_grant");
        };
        *inner.renewed.lock().unwrap() += 1;
        return tokens(&inner, &user, None);
    }
    let found = inner.codes.lock().unwrap().remove(&field("code"));
    let Some((asked, user)) = found else {
        return refuse("invalid_grant");
    };
    let challenge = digest::digest(&digest::SHA256, field("code_verifier").as_bytes());
    if URL_SAFE_NO_PAD.encode(challenge) != asked["code_challenge"]
        || field("redirect_uri") != asked["redirect_uri"]
        || field("client_id") != asked["client_id"]
    {
        return refuse("invalid_grant");
    }
    tokens(&inner, &user, Some(&asked["nonce"]))
}

/// An ID token, and what renews it.
fn tokens(inner: &Inner, user: &str, nonce: Option<&str>) -> Response {
    let now = jiff::Timestamp::now().as_second();
    let until = now + *inner.life.lock().unwrap();
    let mut claims = json!({"iss": inner.url, "aud": "gantry-console", "sub": user, "email": user, "groups": ["people"],
        "iat": now, "exp": until});
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    let head = json!({"alg": "ES256", "kid": "1", "typ": "JWT"});
    let signed = [head, claims]
        .map(|v| URL_SAFE_NO_PAD.encode(v.to_string()))
        .join(".");
    let random = rand::SystemRandom::new();
    let signature = inner.key.sign(&random, signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).unwrap();
    let renewing = URL_SAFE_NO_PAD.encode(bytes);
    inner
        .renewing
        .lock()
        .unwrap()
        .insert(renewing.clone(), user.to_owned());
    Json(json!({"access_token": "x", "token_type": "Bearer", "id_token": token, "refresh_token": renewing}))
        .into_response()
}
