//! What comes over a socket and is no request.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::start;

/// Connections that do not speak HTTP, or too much of it: others are served all the same.
#[tokio::test]
async fn junk_on_a_socket_harms_nobody_else() {
    let server = start().await;
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).expect("a certificate");
    roots.add(pem).expect("a root");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let address = server.address();
    let connect = async || {
        let socket = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::from(address.ip());
        connector.connect(name, socket).await.expect("a handshake")
    };
    // What comes back before the server hangs up or is silent for a moment.
    let exchange = async |bytes: &[u8]| {
        let mut stream = connect().await;
        // The server may hang up while it is still written to.
        let _ = stream.write_all(bytes).await;
        let mut read = vec![0; 4096];
        let answer = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut read)).await;
        let length = answer.map_or(0, |read| read.unwrap_or(0));
        String::from_utf8_lossy(&read[..length]).into_owned()
    };
    let get =
        |head: &str| format!("GET /livez HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\n\r\n");
    // Not even TLS.
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 100]] {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let _ = socket.write_all(junk).await;
        let mut read = vec![];
        let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut read)).await;
    }
    let long = "a".repeat(1 << 20);
    let many: String = (0..1000).map(|i| format!("h{i}: v\r\n")).collect();
    for (what, bytes, codes) in [
        (
            "no HTTP",
            "\0\u{1}\u{2}hello\r\n\r\n".to_owned(),
            &["400"][..],
        ),
        (
            "a long line",
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            &["414", "431", "400"],
        ),
        (
            "a long header",
            get(&format!("X: {long}\r\n")),
            &["431", "400"],
        ),
        ("many headers", get(&many), &["431", "400"]),
        (
            "two lengths",
            get("Content-Length: 1\r\nContent-Length: 2\r\n"),
            &["400"],
        ),
        (
            "length and chunks",
            get("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            &["400", "200"],
        ),
        (
            "a length that is none",
            get("Content-Length: -1\r\n"),
            &["400"],
        ),
        (
            "another version",
            "GET / HTTP/9.9\r\n\r\n".to_owned(),
            &["400", "505"],
        ),
        (
            "a preface and junk",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\njunkjunkjunkjunk".to_owned(),
            &[],
        ),
        ("what is right", get(""), &["401", "403", "200"]),
    ] {
        let answer = exchange(bytes.as_bytes()).await;
        let code = answer.split(' ').nth(1).unwrap_or_default();
        assert!(
            codes.is_empty() || codes.contains(&code),
            "{what}: {answer}"
        );
    }
    // One that stays silent in the middle of its request keeps nobody waiting.
    let mut slow = connect().await;
    slow.write_all(b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Le")
        .await
        .expect("written");
    assert!(exchange(get("").as_bytes()).await.starts_with("HTTP/1.1 "));
    drop(slow);
    server.shutdown().await;
}
