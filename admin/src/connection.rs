//! What a connection may not do: say nothing at first, or take nothing later. Whoever asks for a
//! stream and does not read it would hold it for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};

/// How HTTP/2 begins. What begins otherwise is HTTP/1, whose own timer runs from then on.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) struct Connection<S> {
    stream: S,
    opening: Option<Opening>,
    stall: Duration,
    /// Since a write found no room.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Free once nothing is left of the connection, whatever it was upgraded to.
    _place: Option<OwnedSemaphorePermit>,
}

/// While it is not clear which protocol is spoken.
struct Opening {
    end: Pin<Box<Sleep>>,
    heard: usize,
}

impl<S> Connection<S> {
    pub fn new(stream: S, opening: Duration, stall: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        let opening = Some(Opening { end: Box::pin(sleep(opening)), heard: 0 });
        Self { stream, opening, stall, stalled: None, _place: place }
    }
}

impl Opening {
    /// Whether it still is not clear.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let expected = &PREFACE[self.heard..];
        self.heard += bytes.len();
        self.heard < PREFACE.len() && expected.starts_with(bytes)
    }
}

impl<S: Unpin> Connection<S> {
    fn wait<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), cx);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let end = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.stall)));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let Some(opening) = &mut this.opening else { return read };
        if read.is_ready() {
            if !opening.hear(&buffer.filled()[before..]) {
                this.opening = None;
            }
            return read;
        }
        ready!(opening.end.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client asks nothing")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wait(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wait(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wait(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wait(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn whoever_reads_slowly_is_waited_for() {
        let (stream, mut slow) = tokio::io::duplex(16);
        let mut connection = Connection::new(stream, SECOND, SECOND, None);
        let written = tokio::spawn(async move { connection.write_all(&[b'.'; 16 * 6]).await });
        for _ in 0..6 {
            tokio::time::sleep(SECOND / 3).await;
            slow.read_exact(&mut [0; 16]).await.expect("more");
        }
        written.await.expect("no panic").expect("all is written");
    }

    #[tokio::test]
    async fn whoever_has_begun_may_be_silent() {
        for (said, may_be_silent) in [("G", true), ("PO", true), ("", false), ("PRI * HTTP", false)] {
            let (stream, mut client) = tokio::io::duplex(64);
            let mut connection = Connection::new(stream, SECOND / 10, SECOND, None);
            client.write_all(said.as_bytes()).await.expect("room");
            connection.read_exact(&mut vec![0; said.len()]).await.expect("what was said");
            let read = tokio::time::timeout(SECOND / 2, connection.read(&mut [0; 8])).await;
            assert_eq!(read.is_err(), may_be_silent, "{said:?}: {read:?}");
        }
    }
}
