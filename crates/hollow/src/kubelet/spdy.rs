//! SPDY/3.1, the server's side: streams that the client opens over one connection.
//!
//! As kubelets speak it: no flow control (clients of Kubernetes keep none), no streams opened by the
//! server, headers compressed with the protocol's dictionary.

use super::farewell;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::{collections::HashMap, io, sync::LazyLock};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

/// The words that headers are compressed with, each after its length; the rest follows without.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
accept-language accept-ranges age allow authorization cache-control connection content-base \
content-encoding content-language content-length content-location content-md5 content-range \
content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public \
set-cookie keep-alive origin";
const REST: &str = "1001012012022052063003023033043053063074024054064074084094104114124134144154164175025045\
05203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb \
Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/\
html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        put_text(&mut all, word.replace('_', " ").as_bytes());
    }
    all.extend_from_slice(REST.as_bytes());
    all
});

/// A frame's payload at most: more is refused.
const FRAME_LIMIT: usize = 1 << 20;
/// A block of headers at most, uncompressed.
const HEADERS_LIMIT: usize = 64 * 1024;
/// Streams open at a time.
const STREAMS_LIMIT: usize = 1000;
/// Chunks that wait in a stream until somebody reads them.
const WAITING: usize = 16;

const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// A stream that the client has opened.
pub struct Stream {
    /// What it said of it, by lower-case name.
    pub headers: HashMap<String, String>,
    /// What comes in; ends when the client has sent all.
    pub input: mpsc::Receiver<Bytes>,
    /// Where answers go.
    pub output: Output,
}

/// The way out of a stream.
#[derive(Clone)]
pub struct Output {
    id: u32,
    frames: mpsc::Sender<Frame>,
}

enum Frame {
    Reply(u32),
    Data(u32, Bytes, bool),
    Reset(u32),
    Pong(u32),
}

impl Output {
    /// Sends bytes; false once the connection is gone.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.frames
            .send(Frame::Data(self.id, bytes, false))
            .await
            .is_ok()
    }

    /// Nothing more comes.
    pub async fn end(&self) {
        // A connection that has gone has ended too.
        let _ = self
            .frames
            .send(Frame::Data(self.id, Bytes::new(), true))
            .await;
    }
}

fn put_text(all: &mut Vec<u8>, text: &[u8]) {
    all.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    all.extend_from_slice(text);
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {why}"))
}

/// Serves a connection: `streams` gets each stream that the client opens. Ends when the client does,
/// or when nobody takes streams any more and all that was to be sent is sent.
pub async fn serve<I>(io: I, streams: mpsc::Sender<Stream>) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = tokio::io::split(io);
    let (frames, outgoing) = mpsc::channel(WAITING);
    let mut writing = std::pin::pin!(write_all(writer, outgoing));
    tokio::select! {
        ended = &mut writing => return ended,
        ended = read_all(&mut reader, streams, frames) => ended?,
    }
    // What is on its way still goes out, and what the client still says is taken.
    writing.await?;
    farewell(tokio::io::copy(&mut reader, &mut tokio::io::sink())).await;
    Ok(())
}

async fn read_all(
    mut reader: impl AsyncRead + Unpin,
    streams: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Frame>,
) -> io::Result<()> {
    let mut inflate = Decompress::new(true);
    let mut open: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    loop {
        let mut head = [0; 8];
        tokio::select! {
            read = reader.read_exact(&mut head) => match read {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            },
            // Whoever served the streams is done.
            () = streams.closed() => return Ok(()),
        }
        let mut head = &head[..];
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if length > FRAME_LIMIT {
            return Err(invalid("a frame is too large"));
        }
        let mut body = BytesMut::zeroed(length);
        reader.read_exact(&mut body).await?;
        let mut body = body.freeze();
        if first >> 31 == 0 {
            let id = first;
            if let Some(stream) = open.get(&id)
                && !body.is_empty()
            {
                // Whoever does not read any more misses nothing.
                let _ = stream.send(body).await;
            }
            if flags & FIN != 0 {
                open.remove(&id);
            }
            continue;
        }
        let number = |body: &mut Bytes| match body.remaining() >= 4 {
            true => Ok(body.get_u32() & 0x7fff_ffff),
            false => Err(invalid("a short frame")),
        };
        let kind = u16::try_from(first & 0xffff).unwrap_or(0);
        match kind {
            SYN_STREAM => {
                let id = number(&mut body)?;
                number(&mut body)?;
                if body.remaining() < 2 {
                    return Err(invalid("a short frame"));
                }
                body.advance(2);
                let headers = read_headers(&mut inflate, &body)?;
                if open.len() >= STREAMS_LIMIT {
                    send(&frames, Frame::Reset(id)).await?;
                    continue;
                }
                let (input, receive) = mpsc::channel(WAITING);
                if flags & FIN == 0 {
                    open.insert(id, input);
                }
                send(&frames, Frame::Reply(id)).await?;
                let output = Output {
                    id,
                    frames: frames.clone(),
                };
                let stream = Stream {
                    headers,
                    input: receive,
                    output,
                };
                if streams.send(stream).await.is_err() {
                    return Ok(());
                }
            }
            RST_STREAM => {
                open.remove(&number(&mut body)?);
            }
            PING => {
                let id = number(&mut body)?;
                send(&frames, Frame::Pong(id)).await?;
            }
            GOAWAY => return Ok(()),
            // Settings, window updates: of no use without flow control.
            _ => {}
        }
    }
}

async fn send(frames: &mpsc::Sender<Frame>, frame: Frame) -> io::Result<()> {
    frames
        .send(frame)
        .await
        .map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Uncompresses and reads a block of headers.
fn read_headers(inflate: &mut Decompress, block: &[u8]) -> io::Result<HashMap<String, String>> {
    let mut text = Vec::with_capacity(1024);
    let mut rest = block;
    while !rest.is_empty() {
        if text.len() == text.capacity() {
            text.reserve(4096);
        }
        if text.len() > HEADERS_LIMIT {
            return Err(invalid("headers are too large"));
        }
        let (read, wrote) = (inflate.total_in(), inflate.total_out());
        let status = match inflate.decompress_vec(rest, &mut text, FlushDecompress::Sync) {
            Ok(status) => status,
            Err(e) if e.needs_dictionary().is_some() => {
                inflate
                    .set_dictionary(&DICTIONARY)
                    .map_err(io::Error::other)?;
                Status::Ok
            }
            Err(e) => return Err(io::Error::other(e)),
        };
        let read = usize::try_from(inflate.total_in() - read).unwrap_or(rest.len());
        rest = rest.get(read..).unwrap_or_default();
        let still = read == 0 && inflate.total_out() == wrote;
        if still && text.len() < text.capacity() && status != Status::Ok {
            break;
        }
    }
    let mut text = &text[..];
    let take = |text: &mut &[u8]| {
        let length = match text.remaining() >= 4 {
            true => text.get_u32() as usize,
            false => return Err(invalid("short headers")),
        };
        let (word, rest) = text
            .split_at_checked(length)
            .ok_or_else(|| invalid("short headers"))?;
        *text = rest;
        Ok(String::from_utf8_lossy(word).into_owned())
    };
    if text.remaining() < 4 {
        return Err(invalid("short headers"));
    }
    let count = text.get_u32();
    let mut headers = HashMap::new();
    for _ in 0..count {
        let name = take(&mut text)?.to_ascii_lowercase();
        headers.insert(name, take(&mut text)?);
    }
    Ok(headers)
}

async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let mut deflate = Compress::new(Compression::fast(), true);
    deflate
        .set_dictionary(&DICTIONARY)
        .map_err(io::Error::other)?;
    while let Some(frame) = frames.recv().await {
        let mut bytes = BytesMut::new();
        let mut control = |kind: u16, body: &[u8]| {
            bytes.put_u32(0x8003_0000 | u32::from(kind));
            bytes.put_u32(u32::try_from(body.len()).unwrap_or(0));
            bytes.put_slice(body);
        };
        match frame {
            Frame::Reply(id) => {
                let mut body = id.to_be_bytes().to_vec();
                let mut block = Vec::with_capacity(64);
                deflate
                    .compress_vec(&0u32.to_be_bytes(), &mut block, FlushCompress::Sync)
                    .map_err(io::Error::other)?;
                body.extend(block);
                control(SYN_REPLY, &body);
            }
            Frame::Reset(id) => {
                let mut body = id.to_be_bytes().to_vec();
                body.put_u32(3); // REFUSED_STREAM
                control(RST_STREAM, &body);
            }
            Frame::Pong(id) => control(PING, &id.to_be_bytes()),
            Frame::Data(id, data, end) => {
                // The length has 24 bits; what is sent here is far below.
                let length = u32::try_from(data.len()).unwrap_or(0) & 0x00ff_ffff;
                bytes.put_u32(id);
                bytes.put_u32((u32::from(if end { FIN } else { 0 }) << 24) | length);
                bytes.put_slice(&data);
            }
        }
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client sends to open a stream.
    fn syn(deflate: &mut Compress, id: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut text = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for (name, value) in headers {
            put_text(&mut text, name.as_bytes());
            put_text(&mut text, value.as_bytes());
        }
        let mut block = Vec::with_capacity(4096);
        deflate
            .compress_vec(&text, &mut block, FlushCompress::Sync)
            .unwrap();
        let mut frame = vec![];
        frame.put_u32(0x8003_0001);
        frame.put_u32(u32::try_from(block.len() + 10).unwrap());
        frame.put_u32(id);
        frame.put_u32(0);
        frame.put_u16(0);
        frame.extend(block);
        frame
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        let mut deflate = Compress::new(Compression::fast(), true);
        let checksum = deflate.set_dictionary(&DICTIONARY).unwrap();
        assert_eq!((DICTIONARY.len(), checksum), (1423, 0xe3c6_a7c2));
    }

    #[tokio::test]
    async fn streams_open_carry_bytes_and_end() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (send, mut streams) = mpsc::channel(1);
        let serving = tokio::spawn(serve(server, send));
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate.set_dictionary(&DICTIONARY).unwrap();
        for id in [1u32, 3] {
            let head = [("streamType", "data"), ("port", "80"), ("requestID", "0")];
            client
                .write_all(&syn(&mut deflate, id, &head))
                .await
                .unwrap();
            let mut data = vec![];
            data.put_u32(id);
            data.put_u32((u32::from(FIN) << 24) | 3);
            data.extend(b"ask");
            client.write_all(&data).await.unwrap();
            let mut stream = streams.recv().await.unwrap();
            assert_eq!(stream.headers["streamtype"], "data");
            assert_eq!(stream.headers["port"], "80");
            assert_eq!(stream.input.recv().await.unwrap(), "ask");
            assert_eq!(stream.input.recv().await, None);
            assert!(stream.output.send(Bytes::from_static(b"answer")).await);
            stream.output.end().await;
        }
        drop(streams);
        let mut all = vec![];
        client.read_to_end(&mut all).await.unwrap();
        let data = [
            0, 0, 0, 3, 0, 0, 0, 6, b'a', b'n', b's', b'w', b'e', b'r', 0, 0, 0, 3, FIN, 0, 0, 0,
        ];
        assert!(all.ends_with(&data), "{all:?}");
        serving.await.unwrap().unwrap();
    }
}
