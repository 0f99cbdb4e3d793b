//! WebSockets, the server's side: the handshake, frames by channel, and a connection as a stream of
//! bytes for what is tunnelled.

use super::{Answer, farewell, plain};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// A connection that has become a WebSocket.
pub type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A message at most.
const MESSAGE_LIMIT: usize = 4 << 20;

/// Whether a client wants a WebSocket.
pub fn wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What proves that the handshake was understood (RFC 6455, 4.2.2): no secret hangs on the hash.
fn accept(key: &[u8]) -> String {
    let whole = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole))
}

/// A handshake that is agreed on.
pub struct Agreed {
    /// The protocol spoken over it, one of those offered.
    pub protocol: &'static str,
    upgrade: OnUpgrade,
}

/// Agrees on a protocol: the first of the client's that is known. The answer goes to the client.
pub fn agree(
    request: &mut Request<Incoming>,
    known: &[&'static str],
) -> Result<(Agreed, Response<Answer>), Box<Response<Answer>>> {
    let headers = request.headers();
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Box::new(plain(
            StatusCode::BAD_REQUEST,
            "missing Sec-WebSocket-Key\n",
        )));
    };
    let accept = accept(key.as_bytes());
    let asked: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .map(str::trim)
        .collect();
    let chosen = asked
        .iter()
        .find_map(|asked| known.iter().find(|known| *known == asked));
    let Some(protocol) = chosen else {
        let said = format!(
            "unable to negotiate protocol: client supports {asked:?}, server accepts {known:?}\n"
        );
        return Err(Box::new(plain(StatusCode::FORBIDDEN, said)));
    };
    let mut response = Response::new(Answer::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(protocol),
    );
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    let upgrade = hyper::upgrade::on(request);
    Ok((Agreed { protocol, upgrade }, response))
}

impl Agreed {
    /// The WebSocket, once the client has had the answer.
    pub async fn socket(self) -> Result<Socket, hyper::Error> {
        let upgraded = TokioIo::new(self.upgrade.await?);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await)
    }
}

/// A message of a channel: its number, then what it carries.
pub fn on_channel(channel: u8, bytes: &[u8]) -> Message {
    let mut whole = BytesMut::with_capacity(bytes.len() + 1);
    whole.extend_from_slice(&[channel]);
    whole.extend_from_slice(bytes);
    Message::Binary(whole.freeze())
}

/// Ends a connection on which all has been said.
pub async fn close(mut sink: SplitSink<Socket, Message>, messages: SplitStream<Socket>) {
    // Clients take a frame without a code for a fault.
    let closing = Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }));
    // Who has gone is not told.
    if sink.send(closing).await.is_err() {
        return;
    }
    let Ok(mut socket) = sink.reunite(messages) else {
        return;
    };
    // Clients that wait for bytes on their connection, and not for frames that TLS has decrypted already
    // (Python's), learn of the end by its end alone.
    let _ = socket.get_mut().shutdown().await;
    farewell(async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

/// What a message carries; `None` when it is about the connection.
pub fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        _ => None,
    }
}

/// Passes bytes between a pipe and the messages of a WebSocket until either ends.
pub async fn tunnel(socket: Socket, pipe: DuplexStream) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let (mut sink, mut messages) = socket.split();
    let inward = async {
        while let Some(Ok(message)) = messages.next().await {
            if let Some(bytes) = payload(message) {
                writer.write_all(&bytes).await?;
            }
        }
        writer.shutdown().await
    };
    let outward = async {
        loop {
            let mut buffer = BytesMut::with_capacity(32 * 1024);
            if reader.read_buf(&mut buffer).await? == 0 {
                return io::Result::Ok(());
            }
            let message = Message::Binary(buffer.freeze());
            sink.send(message).await.map_err(io::Error::other)?;
        }
    };
    tokio::select! {
        ended = inward => return ended,
        ended = outward => ended?,
    }
    close(sink, messages).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_standards() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
