//! Two upgraded connections made one: bytes pass both ways until either side ends.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::future::Either;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// A tunnel without a byte for so long is closed: a kubelet's `--streaming-connection-idle-timeout`.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// Time for both sides to have switched protocols.
const UPGRADE_TIME: Duration = Duration::from_secs(30);
/// Once one way has failed, what the other still carries has this time to arrive.
const DRAIN: Duration = Duration::from_secs(10);
/// What is read of one side before it is written to the other; nothing more is held.
const BUFFER: usize = 32 * 1024;

/// Waits for both upgrades, then passes bytes on until either side ends, nothing moves any more, or
/// the server stops.
pub async fn run(client: OnUpgrade, remote: OnUpgrade, stop: CancellationToken) {
    let both = tokio::time::timeout(UPGRADE_TIME, futures::future::try_join(client, remote));
    let (client, remote) = match both.await {
        Ok(Ok(both)) => both,
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "an upgrade did not happen");
            return;
        }
        Err(_) => return,
    };
    let ended = tokio::select! {
        ended = copy(TokioIo::new(client), TokioIo::new(remote), IDLE) => ended,
        () = stop.cancelled() => Ok(()),
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "tunnel");
    }
}

/// Passes bytes on both ways; ends, closing both, when both ways have ended, or when nothing moves
/// for `idle`. A side that takes nothing any more may have said its last words before: where one way
/// fails, the other goes on until its end, for a short time.
pub async fn copy<A, B>(a: A, b: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let moved = AtomicU64::new(0);
    let (from_a, to_a) = tokio::io::split(a);
    let (from_b, to_b) = tokio::io::split(b);
    let still = async {
        let mut seen = 0;
        loop {
            tokio::time::sleep(idle).await;
            let now = moved.load(Ordering::Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    };
    let both = async {
        let there = std::pin::pin!(one_way(from_a, to_b, &moved));
        let back = std::pin::pin!(one_way(from_b, to_a, &moved));
        match futures::future::select(there, back).await {
            Either::Left((ended, rest)) => both_ended(ended, rest).await,
            Either::Right((ended, rest)) => both_ended(ended, rest).await,
        }
    };
    tokio::select! {
        ended = both => ended,
        () = still => Err(io::Error::new(io::ErrorKind::TimedOut, "idle for too long")),
    }
}

/// Waits for the other way once one has ended: without limit where that was an orderly end.
async fn both_ended(
    first: io::Result<()>,
    rest: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let Err(failed) = first else {
        return rest.await;
    };
    // What the other way ends with is told by the failure already.
    let _ = tokio::time::timeout(DRAIN, rest).await;
    Err(failed)
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        moved.fetch_add(n as u64, Ordering::Relaxed);
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_passes_too() {
        let (mut client, near) = tokio::io::duplex(64);
        let (far, mut server) = tokio::io::duplex(64);
        let tunnel = tokio::spawn(copy(near, far, Duration::from_secs(60)));
        client.write_all(b"ask").await.expect("written");
        let mut got = [0; 3];
        server.read_exact(&mut got).await.expect("passed on");
        assert_eq!(&got, b"ask");
        server.write_all(b"answer").await.expect("written");
        drop(server);
        let mut all = vec![];
        client
            .read_to_end(&mut all)
            .await
            .expect("passed on, then the end");
        assert_eq!(all, b"answer");
        drop(client);
        // The side that has gone takes nothing any more; both ways end.
        let _ = tunnel.await.expect("the tunnel ends");
    }

    #[tokio::test]
    async fn the_last_words_of_a_side_that_takes_nothing_arrive() {
        let (mut client, near) = tokio::io::duplex(64);
        let (far, mut server) = tokio::io::duplex(64);
        server.write_all(b"last words").await.expect("written");
        // Gone before it has read what the client says.
        drop(server);
        client.write_all(b"unread").await.expect("written");
        let tunnel = tokio::spawn(copy(near, far, Duration::from_secs(60)));
        let mut all = vec![];
        client.read_to_end(&mut all).await.expect("passed on");
        assert_eq!(all, b"last words");
        drop(client);
        let ended = tunnel.await.expect("the tunnel ends");
        assert_eq!(ended.expect_err("said").kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_still_tunnel_is_closed() {
        let (_client, near) = tokio::io::duplex(64);
        let (far, _server) = tokio::io::duplex(64);
        let ended = copy(near, far, Duration::from_millis(1)).await;
        assert_eq!(ended.expect_err("closed").kind(), io::ErrorKind::TimedOut);
    }
}
