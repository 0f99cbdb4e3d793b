//! Requests that kubelets make for the hooks of containers. As a kubelet does, they believe whatever
//! certificate a server shows, and do not look at the status of the answer: that there is one is enough.

use super::{Deed, Done, Network};
use crate::pod::Ask;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    },
};

/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// As much is read of an answer.
const BODY_LIMIT: usize = 1 << 20;

impl Network {
    /// Whether there is somebody to ask in it.
    pub(crate) fn is_up(&self) -> bool {
        self.0.state.read().client.is_some()
    }

    /// Asks for a hook, and tells the simulation what came of it.
    pub(crate) fn ask_for_hook(&self, ask: Ask) {
        let network = self.clone();
        tokio::spawn(async move {
            let answered = tokio::time::timeout(PATIENCE, asked(&network, &ask)).await;
            let well = match answered {
                Ok(Ok(())) => true,
                Ok(Err(why)) => {
                    tracing::debug!(why, pod = %ask.pod.name, "a hook of a simulated container");
                    false
                }
                Err(_) => false,
            };
            network.done(Done {
                namespace: ask.pod.namespace.to_string(),
                name: ask.pod.name.to_string(),
                uid: ask.pod.uid.to_string(),
                container: ask.container.to_string(),
                deed: Deed::Hooked {
                    attempt: ask.attempt,
                    stops: ask.stops,
                    well,
                },
            });
        });
    }
}

async fn asked(network: &Network, ask: &Ask) -> Result<(), String> {
    let pipe = network
        .connect(&ask.host, ask.port)
        .await
        .map_err(|e| e.to_string())?;
    if !ask.tls {
        return exchange(pipe, ask).await;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(ask.host.clone()).map_err(|e| e.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, pipe);
    exchange(stream.await.map_err(|e| e.to_string())?, ask).await
}

async fn exchange<I>(io: I, ask: &Ask) -> Result<(), String>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = connected.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let path = match ask.path.strip_prefix('/') {
        Some(_) => ask.path.clone(),
        None => format!("/{}", ask.path),
    };
    let mut request = Request::get(path)
        .header(header::HOST, format!("{}:{}", ask.host, ask.port))
        .header(header::USER_AGENT, "kube-lifecycle/1.36")
        .header(header::ACCEPT, "*/*");
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await;
    let body = answer.map_err(|e| e.to_string())?.into_body();
    // What it says is nobody's business.
    let _ = Limited::new(body, BODY_LIMIT).collect().await;
    Ok(())
}

/// Believes any server: kubelets ask hooks over HTTPS without looking at certificates.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
