//! WebSockets that this server itself speaks: watches for browsers, which can neither read a streamed
//! body nor set headers. (What goes to kubelets and extension servers is passed on as it is.)

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use gantry_machinery::status::Failure;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    errors,
    respond::{self, Body, Reply},
};

/// A client of a watch has nothing to say.
const MESSAGE_LIMIT: usize = 64 * 1024;
/// What precedes each message of a stream in protobuf: its length. A WebSocket knows that itself.
const LENGTH: usize = 4;
/// As a protocol of this name comes a token, in base64url.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

fn protocols(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .collect()
}

fn asked(headers: &HeaderMap) -> bool {
    let upgrade = crate::proxy::forward::upgrade(headers);
    upgrade.is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Takes the token that comes as a protocol and puts it where tokens are looked for.
///
/// # Errors
/// 401 for what is no token, and where no other protocol is left to be agreed on.
pub fn take_token(headers: &mut HeaderMap) -> Result<(), Failure> {
    if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) || !asked(headers) {
        return Ok(());
    }
    let (tokens, others): (Vec<String>, Vec<String>) = protocols(headers)
        .into_iter()
        .partition(|p| p.starts_with(BEARER));
    let Some(token) = tokens.first() else {
        return Ok(());
    };
    let token = URL_SAFE_NO_PAD.decode(&token[BEARER.len()..]);
    let token = token.ok().and_then(|t| String::from_utf8(t).ok());
    let value = token.and_then(|t| HeaderValue::try_from(format!("Bearer {t}")).ok());
    let left = HeaderValue::try_from(others.join(","));
    let (Some(value), Ok(left), false, 1) = (value, left, others.is_empty(), tokens.len()) else {
        return Err(errors::unauthorized());
    };
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, left);
    headers.entry(header::AUTHORIZATION).or_insert(value);
    Ok(())
}

/// A handshake that asks for a WebSocket.
pub struct Handshake {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
}

/// What proves that the handshake was understood (RFC 6455, 4.2.2): no secret hangs on the hash.
fn accept(key: &[u8]) -> String {
    let whole = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole))
}

/// The handshake of a request, when it is one.
///
/// # Errors
/// 400 for a handshake without a key.
pub fn handshake(parts: &mut Parts) -> Result<Option<Handshake>, Failure> {
    if !asked(&parts.headers) {
        return Ok(None);
    }
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return Ok(None);
    };
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
    let accept = key.and_then(|key| HeaderValue::try_from(accept(key.as_bytes())).ok());
    let Some(accept) = accept else {
        return Err(errors::bad_request("missing Sec-WebSocket-Key"));
    };
    let first = protocols(&parts.headers).into_iter().next();
    Ok(Some(Handshake {
        upgrade,
        accept,
        protocol: first.and_then(|p| HeaderValue::try_from(p).ok()),
    }))
}

impl Handshake {
    /// The stream of an answer as messages of a WebSocket; other answers stay as they are.
    pub fn answer(self, mut reply: Reply) -> Reply {
        if reply.status() != StatusCode::OK || !matches!(reply.body(), Body::Stream(_)) {
            return reply;
        }
        let media = reply.headers().get(header::CONTENT_TYPE);
        let text = media.is_some_and(|m| m == respond::JSON);
        let events = std::mem::replace(reply.body_mut(), Body::empty());
        tokio::spawn(async move {
            if let Err(e) = send(self.upgrade, events, text).await {
                tracing::debug!(error = %e, "a watch over a WebSocket");
            }
        });
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = reply.headers_mut();
        headers.remove(header::CACHE_CONTROL);
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        reply
    }
}

/// A message that carries an event: JSON is text, anything else is not.
fn message(event: Bytes, text: bool) -> Message {
    if text {
        return Message::Text(String::from_utf8_lossy(&event).into_owned().into());
    }
    Message::Binary(event.slice(LENGTH.min(event.len())..))
}

/// Sends events until there are no more, or the client has gone.
async fn send(
    upgrade: OnUpgrade,
    events: Body,
    text: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let upgraded = TokioIo::new(upgrade.await?);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT));
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    let (mut sink, mut messages) = socket.split();
    let mut events = events.into_data_stream();
    // What the client says is read to hear of its end, and to answer its pings.
    let gone = async {
        while let Some(Ok(message)) = messages.next().await {
            if message.is_close() {
                return;
            }
        }
    };
    let all = async {
        while let Some(Ok(event)) = events.next().await {
            if !event.is_empty() {
                sink.send(message(event, text)).await?;
            }
        }
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        sink.send(Message::Close(Some(frame))).await
    };
    tokio::select! {
        () = gone => Ok(()),
        sent = all => Ok(sent?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(protocols: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        for protocol in protocols {
            let value = HeaderValue::from_str(protocol).expect("a value");
            headers.append("sec-websocket-protocol", value);
        }
        headers
    }

    #[test]
    fn the_handshake_is_the_standards() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_token_may_come_as_a_protocol_beside_another() {
        let token = format!("{BEARER}{}", URL_SAFE_NO_PAD.encode("secret"));
        let mut given = headers(&[&format!("{token}, base64.binary.k8s.io")]);
        take_token(&mut given).expect("a token");
        assert_eq!(given["authorization"], "Bearer secret");
        assert_eq!(given["sec-websocket-protocol"], "base64.binary.k8s.io");
        let plain = headers(&["base64.binary.k8s.io"]);
        let mut given = plain.clone();
        take_token(&mut given).expect("nothing to take");
        assert_eq!(given, plain);
        for wrong in [
            vec![token.as_str()],
            vec![&token, &token, "x"],
            vec![&format!("{BEARER}*"), "x"],
        ] {
            assert!(take_token(&mut headers(&wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn json_is_text_and_protobuf_loses_its_length() {
        let json = message(Bytes::from_static(b"{}\n"), true);
        assert_eq!(json, Message::Text("{}\n".into()));
        let binary = message(Bytes::from_static(b"\0\0\0\x02ab"), false);
        assert_eq!(binary, Message::Binary(Bytes::from_static(b"ab")));
    }
}
