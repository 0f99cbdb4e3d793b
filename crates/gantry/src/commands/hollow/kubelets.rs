//! Kubelets of simulated nodes that can be reached over the network, as on any cluster: TLS with a
//! certificate made for the occasion, and everybody who asks is known and allowed by the cluster.
//!
//! As with kubelets, a client shows a certificate that the cluster's authority of clients has signed (the
//! API server does), or a token, which the API server reviews; then the API server is asked whether that
//! user may do it to the node.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use gantry_hollow::{Asked, Guard, KUBELET_PORT, Network};
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use rustc_hash::FxHashMap;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;

/// How long an answer of the API server holds.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Answers that are remembered; more, and all are asked for again.
const MOST: usize = 10_000;
/// A handshake that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A user, as the cluster knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
}

/// Where kubelets listen.
pub struct Listener {
    socket: TcpListener,
    tls: TlsAcceptor,
    reviews: Arc<Reviews>,
}

impl Listener {
    /// Takes the port, and learns from the cluster whose certificates are good.
    pub async fn bind(address: IpAddr, client: &Client) -> anyhow::Result<Listener> {
        let at = SocketAddr::new(address, KUBELET_PORT);
        let socket = TcpListener::bind(at)
            .await
            .with_context(|| format!("cannot listen at {at} for the nodes' kubelets"))?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
        let found = maps.get_opt("extension-apiserver-authentication").await;
        let found = found.context("cannot read whose certificates the cluster trusts")?;
        let bundle = found.and_then(|it| it.data?.remove("client-ca-file"));
        Ok(Listener {
            socket,
            tls: acceptor(bundle.as_deref())?,
            reviews: Arc::new(Reviews {
                client: client.clone(),
                known: Mutex::default(),
            }),
        })
    }

    /// Answers for ever.
    pub async fn serve(self, network: Network) -> Infallible {
        loop {
            let connection = match self.socket.accept().await {
                Ok((connection, _)) => connection,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection to a kubelet");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, network, reviews) = (self.tls.clone(), network.clone(), self.reviews.clone());
            tokio::spawn(async move {
                let Ok(local) = connection.local_addr() else {
                    return;
                };
                let shaken = tokio::time::timeout(PATIENCE, tls.accept(connection)).await;
                let stream = match shaken {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        return tracing::debug!(%error, "a handshake with a kubelet failed");
                    }
                    Err(_) => return,
                };
                let shown = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|it| it.first());
                let user = shown.and_then(|it| user_of(it));
                let guard = Arc::new(Gate { user, reviews });
                network
                    .serve_kubelet(stream, &local.ip().to_string(), guard)
                    .await;
            });
        }
    }
}

/// TLS with a new certificate of its own; clients may show one that the bundle is good for.
fn acceptor(bundle: Option<&str>) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(["simulated-kubelet".to_owned()])
        .context("cannot make a certificate")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|e| anyhow::anyhow!("cannot use a new key: {e}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.unwrap_or_default().as_bytes()) {
        let certificate = certificate.context("the cluster's authorities of clients are no PEM")?;
        roots
            .add(certificate)
            .context("an authority of clients cannot be used")?;
    }
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("cannot set TLS up")?;
    let builder = match roots.is_empty() {
        true => builder.with_no_client_auth(),
        false => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .context("cannot verify clients")?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(vec![made.cert.der().clone()], key)
        .context("cannot use a new certificate")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The user that a verified certificate names: its common name, and its organisations as groups.
fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let text =
        |it: &x509_parser::x509::AttributeTypeAndValue<'_>| it.as_str().ok().map(str::to_owned);
    let subject = parsed.subject();
    let name = subject.iter_common_name().find_map(text)?;
    let mut groups: Vec<String> = subject.iter_organization().filter_map(text).collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups })
}

/// What a request does to a node, as kubelets put it to the authorizer: a verb and a subresource.
fn attributes(method: &Method, path: &str) -> (&'static str, &'static str) {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let subresource = match path.split('/').nth(1).unwrap_or_default() {
        "stats" => "stats",
        "metrics" => "metrics",
        "healthz" => "healthz",
        "pods" => "pods",
        _ => "proxy",
    };
    (verb, subresource)
}

/// Of one connection.
struct Gate {
    /// Whom its certificate names.
    user: Option<User>,
    reviews: Arc<Reviews>,
}

impl Guard for Gate {
    fn admit(&self, asked: Asked) -> BoxFuture<'static, Result<(), (StatusCode, String)>> {
        let (user, reviews) = (self.user.clone(), self.reviews.clone());
        async move {
            let user = match (user, &asked.token) {
                (Some(user), _) => Some(user),
                (None, Some(token)) => reviews.user(token).await.map_err(failed)?,
                (None, None) => None,
            };
            let Some(user) = user else {
                return Err((StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()));
            };
            let (verb, subresource) = attributes(&asked.method, &asked.path);
            // Who may do everything to a node's kubelet may do the parts, as before they had names.
            for subresource in [subresource, "proxy"] {
                if reviews
                    .allows(&user, verb, subresource, &asked.node)
                    .await
                    .map_err(failed)?
                {
                    return Ok(());
                }
            }
            Err((
                StatusCode::FORBIDDEN,
                format!(
                    "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                    user.name
                ),
            ))
        }
        .boxed()
    }
}

fn failed(error: kube::Error) -> (StatusCode, String) {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("cannot ask the API server: {error}"),
    )
}

/// What is asked of the API server about clients, and its answers of the last moments.
struct Reviews {
    client: Client,
    known: Mutex<FxHashMap<Question, (Instant, bool)>>,
}

type Question = (User, &'static str, &'static str, Arc<str>);

impl Reviews {
    async fn user(&self, token: &str) -> Result<Option<User>, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviewed = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await?;
        let status = reviewed.status.filter(|it| it.authenticated == Some(true));
        Ok(status.and_then(|it| it.user).map(|it| User {
            name: it.username.unwrap_or_default(),
            groups: it.groups.unwrap_or_default(),
        }))
    }

    async fn allows(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
        node: &Arc<str>,
    ) -> Result<bool, kube::Error> {
        let question: Question = (user.clone(), verb, subresource, node.clone());
        if let Some((at, answer)) = self.known.lock().await.get(&question)
            && at.elapsed() < REMEMBERED
        {
            return Ok(*answer);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(node.to_string()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviewed = Api::<SubjectAccessReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await?;
        let allowed = reviewed.status.is_some_and(|it| it.allowed);
        let mut known = self.known.lock().await;
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(question, (Instant::now(), allowed));
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_put_to_the_authorizer_as_kubelets_do() {
        let cases = [
            (Method::GET, "/metrics/resource", ("get", "metrics")),
            (Method::GET, "/stats/summary", ("get", "stats")),
            (Method::GET, "/pods", ("get", "pods")),
            (Method::GET, "/containerLogs/ns/pod/c", ("get", "proxy")),
            (Method::POST, "/exec/ns/pod/c", ("create", "proxy")),
            (Method::GET, "/", ("get", "proxy")),
        ];
        for (method, path, wanted) in cases {
            assert_eq!(attributes(&method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn a_certificate_names_its_user() {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "kube-apiserver-kubelet-client");
        name.push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let user = user_of(made.der()).unwrap();
        assert_eq!(user.name, "kube-apiserver-kubelet-client");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    }

    #[test]
    fn only_a_bundle_of_certificates_is_taken() {
        assert!(acceptor(None).is_ok());
        let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(acceptor(Some(wrong)).is_err());
    }
}
