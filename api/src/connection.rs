//! Connections that end when their other side takes nothing: whoever asks for a stream and does not
//! read it would hold it for ever.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};

/// How long a write may wait for room. What was written before, the kernels hold: a client has had
/// time for all of that too.
pub const STALL: Duration = Duration::from_secs(30);

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Accepts connections whose writes do not wait longer than this.
pub struct Impatient {
    pub listener: TcpListener,
    pub stall: Duration,
}

impl Listener for Impatient {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (Connection { stream, stall: self.stall, stalled: None }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Impatient>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Impatient>) -> Self {
        Self(*stream.remote_addr())
    }
}

pub struct Connection<S> {
    stream: S,
    stall: Duration,
    /// Since a write found no room.
    stalled: Option<Pin<Box<Sleep>>>,
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
        Pin::new(&mut self.stream).poll_read(cx, buffer)
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
    use std::convert::Infallible;

    use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
    use futures::stream;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc,
    };

    use super::*;

    /// Tells of its drop.
    struct Held(mpsc::UnboundedSender<()>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_ends() -> io::Result<()> {
        let (dropped, mut ended) = mpsc::unbounded_channel();
        let endless = get(async move |ConnectInfo(Peer(_)): ConnectInfo<Peer>| {
            let held = Held(dropped.clone());
            Body::from_stream(stream::repeat_with(move || {
                let _held = &held;
                Ok::<_, Infallible>(vec![b'.'; 16 * 1024])
            }))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listener = Impatient { listener, stall: Duration::from_millis(200) };
        let router = Router::new().route("/", endless);
        let service = router.into_make_service_with_connect_info::<Peer>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let mut client = TcpStream::connect(address).await?;
        client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await?;
        let mut begun = [0; 8];
        client.read_exact(&mut begun).await?;
        assert_eq!(&begun, b"HTTP/1.1");
        let ended = tokio::time::timeout(Duration::from_secs(10), ended.recv()).await;
        assert_eq!(ended, Ok(Some(())), "the stream ends though its client is connected");
        drop(client);
        Ok(())
    }

    #[tokio::test]
    async fn whoever_reads_slowly_is_waited_for() -> io::Result<()> {
        let (stream, mut slow) = tokio::io::duplex(16);
        let stall = Duration::from_secs(1);
        let mut connection = Connection { stream, stall, stalled: None };
        let written = tokio::spawn(async move { connection.write_all(&[b'.'; 16 * 6]).await });
        for _ in 0..6 {
            tokio::time::sleep(stall / 3).await;
            slow.read_exact(&mut [0; 16]).await?;
        }
        written.await.expect("no panic")
    }
}
