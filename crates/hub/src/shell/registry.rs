//! Which digest a tag stands for, asked of the image's registry by the OCI distribution API.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use super::ask::Asker;

/// How long a registry may take, all questions together.
const REGISTRY_TIME: Duration = Duration::from_secs(10);
/// Indexes first: their digest holds for every architecture.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
const DIGEST: &str = "docker-content-digest";

/// Where an image lies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    registry: String,
    repository: String,
    tag: String,
}

/// Reads an image's name as Docker does: no registry is Docker Hub's, no tag is `latest`.
fn parse(image: &str) -> Reference {
    let (first, rest) = match image.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, image),
    };
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (rest, "latest"),
    };
    let hub = matches!(first, None | Some("docker.io" | "index.docker.io"));
    let repository = if hub && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    Reference {
        registry: if hub {
            "registry-1.docker.io".to_owned()
        } else {
            first.unwrap_or_default().to_owned()
        },
        repository,
        tag: tag.to_owned(),
    }
}

/// The fields of a `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`.
fn challenge(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let text = headers.get(header::WWW_AUTHENTICATE)?.to_str().ok()?;
    let fields = text
        .strip_prefix("Bearer ")
        .or_else(|| text.strip_prefix("bearer "))?;
    let mut read = Vec::new();
    let mut rest = fields;
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, next) = after.split_once('"')?;
        read.push((key.trim_matches([',', ' ']).to_owned(), value.to_owned()));
        rest = next;
    }
    Some(read)
}

impl Asker {
    /// The digest (`sha256:…`) that the tag of `image` stands for now.
    pub(super) async fn digest(&self, image: &str) -> Result<String, String> {
        let reference = parse(image);
        match tokio::time::timeout(REGISTRY_TIME, self.manifest(&reference)).await {
            Ok(answer) => answer.map_err(|why| format!("registry {}: {why}", reference.registry)),
            Err(_) => Err(format!(
                "registry {} does not answer in {}",
                reference.registry,
                gantry_api::Span::from(REGISTRY_TIME)
            )),
        }
    }

    async fn manifest(&self, reference: &Reference) -> Result<String, String> {
        // As Docker does: a registry on this machine needs no TLS.
        let host = reference.registry.split(':').next().unwrap_or_default();
        let scheme = if matches!(host, "localhost" | "127.0.0.1") {
            "http"
        } else {
            "https"
        };
        let url = format!(
            "{scheme}://{}/v2/{}/manifests/{}",
            reference.registry, reference.repository, reference.tag
        );
        let accept = (header::ACCEPT, MANIFESTS.to_owned());
        let headers = [accept.clone()];
        let (mut head, _) = self
            .exchange(Method::HEAD, &url, &headers, Bytes::new())
            .await?;
        let mut headers = headers.to_vec();
        if head.status == StatusCode::UNAUTHORIZED {
            let token = self.registry_token(&head.headers).await?;
            headers.push((header::AUTHORIZATION, format!("Bearer {token}")));
            head = self
                .exchange(Method::HEAD, &url, &headers, Bytes::new())
                .await?
                .0;
        }
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(format!(
                    "{} has no tag {}",
                    reference.repository, reference.tag
                ));
            }
            status => return Err(format!("{url} answers {}", status.as_u16())),
        }
        if let Some(digest) = head.headers.get(DIGEST).and_then(|d| d.to_str().ok()) {
            return checked(digest);
        }
        // Some registries tell it of no manifest: it is the hash of what they send.
        let (answer, body) = self
            .exchange(Method::GET, &url, &headers, Bytes::new())
            .await?;
        if answer.status != StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status.as_u16()));
        }
        let hash: String = Sha256::digest(&body)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Ok(format!("sha256:{hash}"))
    }

    /// A token to read with, of the server that the registry names.
    async fn registry_token(&self, headers: &HeaderMap) -> Result<String, String> {
        let fields = challenge(headers).ok_or("it wants a login that is not known here")?;
        let field = |name: &str| fields.iter().find(|(k, _)| k == name).map(|(_, v)| v);
        let realm = field("realm").ok_or("its login has no realm")?;
        let asked = ["service", "scope"];
        let asked = asked.iter().filter_map(|n| Some((*n, field(n)?)));
        let url = format!(
            "{realm}?{}",
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(asked)
                .finish()
        );
        let (answer, body) = self.exchange(Method::GET, &url, &[], Bytes::new()).await?;
        if answer.status != StatusCode::OK {
            return Err(format!("{realm} answers {}", answer.status.as_u16()));
        }
        let value: serde_json::Value =
            serde_json::from_slice(&body).map_err(|_| format!("{realm} answers no JSON"))?;
        let token = value["token"].as_str().or(value["access_token"].as_str());
        token
            .map(str::to_owned)
            .ok_or_else(|| format!("{realm} gives no token"))
    }
}

/// A digest as registries write it, or why it is none.
fn checked(digest: &str) -> Result<String, String> {
    let hash = digest.strip_prefix("sha256:").unwrap_or_default();
    if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(digest.to_owned())
    } else {
        Err(format!("{digest:?} is no digest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::ask::tests::{hub, serve_requests};

    #[test]
    fn names_of_images() {
        for (image, registry, repository, tag) in [
            ("cart", "registry-1.docker.io", "library/cart", "latest"),
            ("shop/cart:2", "registry-1.docker.io", "shop/cart", "2"),
            (
                "docker.io/cart:2",
                "registry-1.docker.io",
                "library/cart",
                "2",
            ),
            ("localhost/cart:2", "localhost", "cart", "2"),
            (
                "r.example.com:5000/shop/cart",
                "r.example.com:5000",
                "shop/cart",
                "latest",
            ),
            (
                "r.example.com/a/b/cart:1.2-x",
                "r.example.com",
                "a/b/cart",
                "1.2-x",
            ),
        ] {
            let got = parse(image);
            let got = (
                got.registry.as_str(),
                got.repository.as_str(),
                got.tag.as_str(),
            );
            assert_eq!(got, (registry, repository, tag), "{image}");
        }
    }

    #[tokio::test]
    async fn a_tag_is_resolved_with_a_login_where_one_is_wanted() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let told = digest.clone();
        let (address, seen) = serve_requests(move |request, address| {
            let path = request.uri.path();
            let answer = |code: u16| http::Response::builder().status(code);
            if path == "/token" {
                return answer(200).body(r#"{"token":"t0k"}"#.to_owned()).unwrap();
            }
            if path.ends_with("/manifests/plain") {
                // No digest told: it is that of the body.
                return answer(200).body("{}".to_owned()).unwrap();
            }
            if path.ends_with("/manifests/gone") {
                return answer(404).body(String::new()).unwrap();
            }
            if request.headers.get(header::AUTHORIZATION).is_none() {
                let wants = format!(
                    "Bearer realm=\"{address}/token\",service=\"registry\",scope=\"repository:shop/cart:pull\""
                );
                let refusal = answer(401).header(header::WWW_AUTHENTICATE, wants);
                return refusal.body(String::new()).unwrap();
            }
            answer(200)
                .header(DIGEST, &told)
                .body(String::new())
                .unwrap()
        })
        .await;
        let asker = Asker::new(hub(), &["127.0.0.1".parse().unwrap()]).unwrap();
        let place = address.strip_prefix("http://").unwrap();
        let resolve = async |tag: &str| asker.digest(&format!("{place}/shop/cart:{tag}")).await;
        assert_eq!(resolve("2").await, Ok(digest));
        let paths: Vec<String> = seen.lock().unwrap().clone();
        assert_eq!(
            paths,
            [
                "HEAD /v2/shop/cart/manifests/2",
                "GET /token?service=registry&scope=repository%3Ashop%2Fcart%3Apull",
                "HEAD /v2/shop/cart/manifests/2",
            ]
        );
        assert_eq!(
            resolve("plain").await.unwrap(),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(
            resolve("gone").await.unwrap_err(),
            format!("registry {place}: shop/cart has no tag gone")
        );
    }
}
