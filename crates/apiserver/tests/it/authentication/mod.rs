//! Who a request is from, over TLS: client certificates, bootstrap tokens, ServiceAccount tokens,
//! ID tokens of an issuer on another socket.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

mod id_tokens;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_apiserver::{
    Anonymous, Authentication, Config, FrontProxyConfig, Server, StaticToken, TlsVersion,
};
use gantry_store::{Options, Store};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

const ADMIN: &str = "admin-token";

async fn start(authentication: Authentication, store: Store) -> Server {
    let tokens = vec![StaticToken {
        token: ADMIN.to_owned(),
        user: "admin".to_owned(),
        uid: String::new(),
        groups: vec!["system:masters".to_owned()],
    }];
    let config = Config {
        authentication: Authentication {
            tokens,
            ..authentication
        },
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, store)
        .await
        .expect("the server starts")
}

fn memory() -> Store {
    Store::in_memory(Options::default())
}

/// What a client shows of itself.
#[derive(Default)]
struct Credentials<'a> {
    token: Option<&'a str>,
    certificate: Option<&'a (String, String)>,
    headers: &'a [(&'a str, &'a str)],
}

fn token(token: &str) -> Credentials<'_> {
    Credentials {
        token: Some(token),
        ..Credentials::default()
    }
}

fn client(server: &Server, credentials: &Credentials<'_>) -> kube::Client {
    let url = format!("https://{}", server.address()).parse().unwrap();
    let mut config = kube::Config::new(url);
    let ca = CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap();
    config.root_cert = Some(vec![ca.to_vec()]);
    if let Some(token) = credentials.token {
        config.auth_info.token = Some(token.to_owned().into());
    }
    if let Some((cert, key)) = credentials.certificate {
        config.auth_info.client_certificate_data = Some(STANDARD.encode(cert));
        config.auth_info.client_key_data = Some(STANDARD.encode(key).into());
    }
    kube::Client::try_from(config).unwrap()
}

/// One request; the answer's body, or its code when it is a failure.
async fn ask(
    server: &Server,
    credentials: &Credentials<'_>,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Value, u16> {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    for (name, value) in credentials.headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(if body.is_null() {
            vec![]
        } else {
            body.to_string().into_bytes()
        })
        .unwrap();
    match client(server, credentials).request::<Value>(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(e) => panic!("{method} {path}: {e:?}"),
    }
}

/// The user that the server sees.
async fn who(server: &Server, credentials: &Credentials<'_>) -> Result<Value, u16> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = ask(server, credentials, "POST", path, &review).await?;
    Ok(answer["status"]["userInfo"].clone())
}

async fn create(server: &Server, path: &str, object: &Value) -> Value {
    let answer = ask(server, &token(ADMIN), "POST", path, object).await;
    answer.unwrap_or_else(|code| panic!("POST {path}: {code}"))
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { params, key, pem }
}

impl Authority {
    fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let cert = params.signed_by(&key, &issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn client(
        &self,
        name: &str,
        groups: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> (String, String) {
        let mut params = CertificateParams::default();
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        self.sign(&params)
    }
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn client_certificates_tell_user_and_groups() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority();
    let authentication = Authentication {
        client_ca: Some(written(folder.path(), "ca.pem", &ours.pem)),
        anonymous: Anonymous::Paths(vec!["/healthz".to_owned()]),
        ..Authentication::default()
    };
    let server = start(authentication, memory()).await;
    let with = |pair| Credentials {
        certificate: Some(pair),
        ..Credentials::default()
    };
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let ann = ours.client("ann", &["dev"], usage.clone());
    let user = who(&server, &with(&ann)).await.expect("known");
    assert_eq!(user["username"], "ann");
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    let id = &user["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(id.as_str().unwrap().starts_with("X509SHA256="), "{id}");
    // A certificate goes before a token, and a token stands in for one that is not trusted.
    let both = Credentials {
        token: Some(ADMIN),
        certificate: Some(&ann),
        ..Credentials::default()
    };
    assert_eq!(who(&server, &both).await.expect("known")["username"], "ann");
    let stranger = authority().client("ann", &["system:masters"], usage);
    let serving = ours.client("ann", &[], ExtendedKeyUsagePurpose::ServerAuth);
    for bad in [&stranger, &serving] {
        assert_eq!(who(&server, &with(bad)).await, Err(401));
        let both = Credentials {
            token: Some(ADMIN),
            certificate: Some(bad),
            ..Credentials::default()
        };
        let user = who(&server, &both).await.expect("known");
        assert_eq!(user["username"], "admin");
    }
    let nobody = Credentials::default();
    assert_eq!(who(&server, &nobody).await, Err(401));
    server.shutdown().await;
}

#[tokio::test]
async fn bootstrap_tokens_are_valid_as_their_secrets_say() {
    let server = start(Authentication::default(), memory()).await;
    let secret = |id: &str, more: Value| {
        let mut data = json!({
            "token-id": id, "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
        });
        for (key, value) in more.as_object().unwrap() {
            data[key] = value.clone();
        }
        json!({
            "metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token", "stringData": data,
        })
    };
    let group = "system:bootstrappers:kubeadm:default-node-token";
    for (id, more, good) in [
        ("aaaaaa", json!({"auth-extra-groups": group}), true),
        (
            "bbbbbb",
            json!({"expiration": "2999-01-01T00:00:00Z"}),
            true,
        ),
        (
            "cccccc",
            json!({"expiration": "2001-01-01T00:00:00Z"}),
            false,
        ),
        (
            "dddddd",
            json!({"usage-bootstrap-authentication": "false"}),
            false,
        ),
        (
            "eeeeee",
            json!({"auth-extra-groups": "system:masters"}),
            false,
        ),
        ("ffffff", json!({"token-secret": "0123456789abcdeX"}), false),
    ] {
        let path = "/api/v1/namespaces/kube-system/secrets";
        create(&server, path, &secret(id, more)).await;
        let bearer = format!("{id}.0123456789abcdef");
        let user = who(&server, &token(&bearer)).await;
        if !good {
            assert_eq!(user, Err(401), "{id}");
            continue;
        }
        let user = user.expect("known");
        assert_eq!(user["username"], format!("system:bootstrap:{id}"));
        assert_eq!(user["groups"][0], "system:bootstrappers");
        if id == "aaaaaa" {
            assert_eq!(user["groups"][1], group);
        }
    }
    server.shutdown().await;
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|l| str::from_utf8(l).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn rsa_key() -> (rsa::KeyPair, String) {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
    let text = pem("PRIVATE KEY", der.as_ref());
    (key, text)
}

async fn request_token(server: &Server, spec: &Value) -> Result<String, u16> {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
    });
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let answer = ask(server, &token(ADMIN), "POST", path, &body).await?;
    Ok(answer["status"]["token"].as_str().unwrap().to_owned())
}

async fn review(server: &Server, bearer: &str, audiences: &Value) -> Value {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": bearer, "audiences": audiences},
    });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    create(server, path, &body).await["status"].clone()
}

#[tokio::test]
async fn account_tokens_live_with_what_they_are_bound_to() {
    let folder = tempfile::tempdir().unwrap();
    let (_, key) = rsa_key();
    let old = KeyPair::generate().unwrap();
    let store = memory();
    // Signed by the key of before, which the server still knows as it is given its public half.
    let before = Authentication {
        account_key: Some(written(folder.path(), "old.key", &old.serialize_pem())),
        issuers: vec!["https://old.test".to_owned()],
        ..Authentication::default()
    };
    let server = start(before, store.clone()).await;
    let robot = json!({"metadata": {"name": "robot"}});
    let account = create(
        &server,
        "/api/v1/namespaces/default/serviceaccounts",
        &robot,
    )
    .await;
    let earlier = request_token(&server, &json!({})).await.expect("issued");
    server.shutdown().await;
    let now = Authentication {
        account_key: Some(written(folder.path(), "new.key", &key)),
        account_keys: vec![written(folder.path(), "old.pub", &old.public_key_pem())],
        issuers: vec!["https://new.test".to_owned(), "https://old.test".to_owned()],
        ..Authentication::default()
    };
    let server = start(now, store).await;
    let user = who(&server, &token(&earlier)).await.expect("known");
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(user["uid"], account["metadata"]["uid"]);
    let keys = ask(
        &server,
        &token(ADMIN),
        "GET",
        "/openid/v1/jwks",
        &Value::Null,
    )
    .await;
    let keys = keys.expect("shown");
    let kinds: Vec<_> = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["alg"].clone())
        .collect();
    assert_eq!(kinds, ["RS256", "ES256"]);

    // Whom it is for.
    let other = request_token(&server, &json!({"audiences": ["a", "b"]}))
        .await
        .expect("issued");
    assert_eq!(who(&server, &token(&other)).await, Err(401));
    let status = review(&server, &other, &json!(["b", "c"])).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["b"]));
    assert_ne!(
        review(&server, &other, &json!(["c"])).await["authenticated"],
        true
    );

    // What it is bound to.
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = create(&server, secrets, &json!({"metadata": {"name": "s"}})).await;
    let reference = |kind: &str, name: &str, uid: &Value| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    let uid = &secret["metadata"]["uid"];
    assert_eq!(
        request_token(&server, &reference("Secret", "s", &json!("other"))).await,
        Err(409)
    );
    assert_eq!(
        request_token(&server, &reference("ConfigMap", "s", uid)).await,
        Err(400)
    );
    let bound = request_token(&server, &reference("Secret", "s", uid))
        .await
        .expect("issued");
    assert!(who(&server, &token(&bound)).await.is_ok());
    create(
        &server,
        "/api/v1/nodes",
        &json!({"metadata": {"name": "n"}}),
    )
    .await;
    let pod = |name: &str, account: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {
                "serviceAccountName": account, "nodeName": "n",
                "containers": [{"name": "c", "image": "i"}],
            },
        })
    };
    let pods = "/api/v1/namespaces/default/pods";
    let mine = create(&server, pods, &pod("mine", "robot")).await;
    create(&server, pods, &pod("theirs", "default")).await;
    assert_eq!(
        request_token(&server, &reference("Pod", "theirs", &Value::Null)).await,
        Err(400)
    );
    let of_pod = request_token(&server, &reference("Pod", "mine", &Value::Null))
        .await
        .expect("issued");
    let user = who(&server, &token(&of_pod)).await.expect("known");
    let told = |key: &str| user["extra"][format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!(told("pod-name"), "mine");
    assert_eq!(told("pod-uid"), mine["metadata"]["uid"]);
    assert_eq!(told("node-name"), "n");
    let of_node = request_token(&server, &reference("Node", "n", &Value::Null))
        .await
        .expect("issued");
    assert!(who(&server, &token(&of_node)).await.is_ok());
    for (gone, bearer) in [
        (format!("{secrets}/s"), &bound),
        (format!("{pods}/mine?gracePeriodSeconds=0"), &of_pod),
        ("/api/v1/nodes/n".to_owned(), &of_node),
        (
            "/api/v1/namespaces/default/serviceaccounts/robot".to_owned(),
            &earlier,
        ),
    ] {
        assert!(who(&server, &token(bearer)).await.is_ok(), "{gone}");
        let deleted = ask(&server, &token(ADMIN), "DELETE", &gone, &Value::Null).await;
        assert!(deleted.is_ok(), "{gone}: {deleted:?}");
        assert_eq!(who(&server, &token(bearer)).await, Err(401), "{gone}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_front_proxy_names_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let (clients, proxies) = (authority(), authority());
    let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let authentication = Authentication {
        client_ca: Some(written(folder.path(), "clients.crt", &clients.pem)),
        front_proxy: Some(FrontProxyConfig {
            client_ca: written(folder.path(), "proxies.crt", &proxies.pem),
            allowed_names: list(&["the-proxy"]),
            user_headers: list(&["X-Remote-User"]),
            uid_headers: list(&["X-Remote-Uid"]),
            group_headers: list(&["X-Remote-Group"]),
            extra_prefixes: list(&["X-Remote-Extra-"]),
        }),
        ..Authentication::default()
    };
    let server = start(authentication, memory()).await;
    let usage = || ExtendedKeyUsagePurpose::ClientAuth;
    let proxy = proxies.client("the-proxy", &[], usage());
    let stranger = proxies.client("another", &[], usage());
    let own = clients.client("the-proxy", &["staff"], usage());
    let headers = [
        ("X-Remote-User", "ann"),
        ("X-Remote-Group", "a"),
        ("X-Remote-Extra-Team", "blue"),
    ];
    let shown = |certificate, headers| Credentials {
        certificate: Some(certificate),
        headers,
        ..Credentials::default()
    };
    let user = who(&server, &shown(&proxy, &headers)).await.unwrap();
    assert_eq!(user["username"], "ann");
    assert_eq!(user["groups"], json!(["a", "system:authenticated"]));
    assert_eq!(user["extra"]["team"], json!(["blue"]));
    // One connection, another user.
    let other = [("X-Remote-User", "bob")];
    let user = who(&server, &shown(&proxy, &other)).await.unwrap();
    assert_eq!(user["username"], "bob");
    // Whom it does not name, and whose name or authority is another's.
    assert_eq!(who(&server, &shown(&proxy, &[])).await, Err(401));
    assert_eq!(who(&server, &shown(&stranger, &headers)).await, Err(401));
    let user = who(&server, &shown(&own, &headers)).await.unwrap();
    assert_eq!(user["username"], "the-proxy");
    // A header alone says nothing.
    let bare = Credentials {
        headers: &headers,
        ..Credentials::default()
    };
    let user = who(&server, &bare).await;
    assert_eq!(user, Err(403));
    // Extension API servers are told of both authorities.
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let published = async {
        loop {
            match ask(&server, &token(ADMIN), "GET", path, &Value::Null).await {
                Ok(map) => break map,
                Err(404) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(code) => panic!("{code}"),
            }
        }
    };
    let map = tokio::time::timeout(Duration::from_secs(60), published)
        .await
        .expect("the ConfigMap is published");
    let said = &map["data"];
    assert!(
        said["requestheader-client-ca-file"]
            .as_str()
            .unwrap()
            .contains(proxies.pem.trim())
    );
    assert_eq!(
        said["requestheader-allowed-names"],
        r#"["front-proxy-client","the-proxy"]"#
    );
    assert_eq!(
        said["requestheader-username-headers"],
        r#"["X-Remote-User"]"#
    );
    server.shutdown().await;
}

#[tokio::test]
async fn an_older_tls_than_asked_for_is_refused() {
    let config = Config {
        tls_least: TlsVersion::Tls13,
        ..Config::default()
    };
    let server = Server::start(config, memory()).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let mut outcomes = vec![];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(server.address())
            .await
            .unwrap();
        let name = server.address().ip().into();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        outcomes.push(connector.connect(name, stream).await.is_ok());
    }
    assert_eq!(outcomes, [false, true]);
    server.shutdown().await;
}
