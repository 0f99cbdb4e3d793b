//! Connections to kubelets, pods and extension API servers: plain or TLS, or within the process.

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::tls::TlsError;

/// A certificate and its private key, PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert: String,
    pub key: String,
}

/// A network that is not the machine's: simulated nodes and pods of the same process. Its connections
/// do not leave the process, so no TLS is spoken over them with kubelets and extension API servers; webhooks
/// and pods that are proxied by `https` show their certificates as everywhere.
pub trait Network: Send + Sync + fmt::Debug {
    /// Whether an address, or the name of a host, is one of this network.
    fn covers(&self, host: &str) -> bool;
    /// Connects.
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Stream>>;
}

/// How TLS is spoken with the other side.
#[derive(Clone)]
pub enum Security {
    Plain,
    /// As to kubelets: with the server's certificate, theirs verified where an authority is known.
    Kubelet,
    /// TLS that takes any certificate, as Kubernetes' pod and service proxies do.
    Unverified,
    /// TLS as configured, with a server of this name.
    As(Arc<ClientConfig>, String),
}

/// Where a connection goes.
#[derive(Clone)]
pub struct Remote {
    pub host: String,
    pub port: u16,
    pub security: Security,
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub type Stream = Box<dyn Io>;

/// A connection.
pub struct Opened {
    pub stream: Stream,
    /// The other side has chosen HTTP/2.
    pub h2: bool,
}

impl Opened {
    fn plain(stream: Stream) -> Opened {
        Opened { stream, h2: false }
    }
}

/// Makes connections to others.
pub struct Links {
    kubelet: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
    network: Option<Arc<dyn Network>>,
}

const CONNECT_TIME: Duration = Duration::from_secs(30);

impl Links {
    /// `authority` is what kubelets' certificates are verified with; without one they are not, as
    /// kube-apiserver does without `--kubelet-certificate-authority`.
    pub fn new(
        identity: Option<&Identity>,
        authority: Option<&str>,
        network: Option<Arc<dyn Network>>,
    ) -> Result<Links, TlsError> {
        Ok(Links {
            kubelet: client_config(authority, identity)?,
            unverified: client_config(None, None)?,
            network,
        })
    }

    /// Connects; the errors of TCP and TLS come as they are.
    pub async fn connect(&self, to: &Remote) -> io::Result<Opened> {
        tokio::time::timeout(CONNECT_TIME, self.open(to))
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")))
    }

    async fn open(&self, to: &Remote) -> io::Result<Opened> {
        if let Some(network) = self.network.as_ref().filter(|it| it.covers(&to.host)) {
            let stream = network.connect(to.host.clone(), to.port).await?;
            return match &to.security {
                Security::Unverified => secure(stream, &self.unverified, &to.host).await,
                _ => Ok(Opened::plain(stream)),
            };
        }
        let socket = TcpStream::connect((to.host.as_str(), to.port)).await?;
        socket.set_nodelay(true)?;
        let raw: Stream = Box::new(socket);
        match &to.security {
            Security::Plain => Ok(Opened::plain(raw)),
            Security::Kubelet => secure(raw, &self.kubelet, &to.host).await,
            Security::Unverified => secure(raw, &self.unverified, &to.host).await,
            Security::As(config, name) => secure(raw, config, name).await,
        }
    }
}

async fn secure(raw: Stream, config: &Arc<ClientConfig>, host: &str) -> io::Result<Opened> {
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(host.to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?,
    };
    let stream = TlsConnector::from(config.clone())
        .connect(name, raw)
        .await?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Opened {
        stream: Box::new(stream),
        h2,
    })
}

fn bad(what: &str) -> TlsError {
    TlsError::Pem {
        path: what.to_owned(),
    }
}

/// A TLS client: `roots` (PEM) verify the other side, `identity` is shown to it.
pub fn client_config(
    roots: Option<&str>,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match roots {
        Some(pem) => {
            let mut store = RootCertStore::empty();
            for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                store.add(cert.map_err(|_| bad("a bundle of authorities"))?)?;
            }
            builder.with_root_certificates(store)
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
    };
    Ok(Arc::new(finish(builder, identity)?))
}

/// A TLS client that shows this, or nothing.
pub fn finish(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, TlsError> {
    Ok(match identity {
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.cert.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| bad("a client certificate"))?;
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
                .map_err(|_| bad("a client's key"))?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    })
}

/// Takes any certificate; that the other side holds its key is still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
