//! gzip of big answers, made while they are sent.

use std::{collections::VecDeque, io::Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;

use crate::{
    chunks::Chunks,
    respond::{Body, Reply},
};

/// Answers from this size on are compressed, as kube-apiserver does.
const LEAST: u64 = 128 * 1024;
/// How much is compressed at a time: the thread has other requests too.
const PIECE: usize = 64 * 1024;

fn accepts(header: Option<&HeaderValue>) -> bool {
    let text = header.and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip")
            && !parts.any(|p| {
                let quality = p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
                quality == Some(0.0)
            })
    })
}

/// What is left to compress.
struct Rest {
    encoder: Option<GzEncoder<Vec<u8>>>,
    chunks: Chunks,
    open: Bytes,
}

impl Rest {
    /// The next compressed bytes; `None` when all are given.
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let encoder = self.encoder.as_mut()?;
            if self.open.is_empty() {
                let Some(next) = self.chunks.next() else {
                    let last = self.encoder.take()?.finish();
                    // Writing to memory does not fail.
                    return last.ok().map(Bytes::from).filter(|b| !b.is_empty());
                };
                self.open = next;
            }
            let piece = self.open.split_to(self.open.len().min(PIECE));
            if encoder.write_all(&piece).is_err() {
                return None;
            }
            let made = encoder.get_mut();
            if !made.is_empty() {
                return Some(std::mem::take(made).into());
            }
        }
    }
}

/// The reply, compressed where it is big and the client accepts that.
pub fn compress(mut reply: Reply, accept: Option<&HeaderValue>) -> Reply {
    let size = reply.body().size_hint().exact();
    if reply.status() != StatusCode::OK || size.is_none_or(|s| s < LEAST) || !accepts(accept) {
        return reply;
    }
    let chunks = match std::mem::replace(reply.body_mut(), Body::empty()) {
        Body::Full(bytes) => bytes.into_iter().collect::<VecDeque<_>>().into(),
        Body::Chunks(chunks) => chunks,
        // Of no known size (not reached), or agreed on between client and another server.
        body @ (Body::Stream(_) | Body::Remote(_) | Body::Page(..)) => {
            *reply.body_mut() = body;
            return reply;
        }
    };
    let rest = Rest {
        // The fastest, as kube-apiserver takes it.
        encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
        chunks,
        open: Bytes::new(),
    };
    let pieces = futures::stream::unfold(rest, |mut rest| async move {
        rest.next().map(|bytes| (bytes, rest))
    });
    *reply.body_mut() = Body::Stream(Box::pin(pieces));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    reply
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;

    use super::*;
    use crate::respond;

    async fn check(chunks: Vec<Vec<u8>>, accept: &'static str, gzip: bool) {
        let whole = chunks.concat();
        let chunks: VecDeque<Bytes> = chunks.into_iter().map(Bytes::from).collect();
        let reply = respond::chunks(200, respond::JSON, chunks.into());
        let reply = compress(reply, Some(&HeaderValue::from_static(accept)));
        let coding = reply.headers().get(header::CONTENT_ENCODING).cloned();
        assert_eq!(coding.is_some(), gzip, "{accept}");
        let body = reply
            .into_body()
            .collect()
            .await
            .expect("infallible")
            .to_bytes();
        let mut read = vec![];
        if gzip {
            GzDecoder::new(&*body).read_to_end(&mut read).expect("gzip");
            assert!(body.len() < whole.len() / 10);
        } else {
            read.extend_from_slice(&body);
        }
        assert!(read == whole);
    }

    #[tokio::test]
    async fn big_answers_are_compressed_for_those_who_accept_it() {
        let big = || vec![vec![b'x'; 300_000], vec![], vec![b'y'; 70_000]];
        check(big(), "gzip", true).await;
        check(big(), "deflate, gzip;q=1.0, *;q=0.5", true).await;
        check(big(), "gzip;q=0", false).await;
        check(big(), "br", false).await;
        check(vec![vec![b'x'; 100_000]], "gzip", false).await;
    }
}
