//! HTTP over TCP as each of our listeners takes it: so many connections at once, and none that holds
//! its place without asking or taking anything.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Extension, Router, extract::ConnectInfo, middleware::AddExtension, serve::Listener};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Layer, Service};
use tracing::{debug, warn};

use crate::connection::Connection;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// How patient a server is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Connections at once; others wait in the kernel's queue.
    pub connections: usize,
    /// Until the first bytes of a connection.
    pub opening: Duration,
    /// Until a request's head is there, from the end of the last request on: so this is also how
    /// long a connection may be idle.
    pub head: Duration,
    /// How long a write may wait for room. What was written before, the kernels hold: a client has
    /// had time for all of that too.
    pub stall: Duration,
}

impl Patience {
    /// Idle connections live longer than proxies keep theirs, which mostly is a minute: a proxy must
    /// not send a request into a connection that ends.
    pub const fn with(connections: usize) -> Self {
        let seconds = Duration::from_secs;
        Self { connections, opening: seconds(10), head: seconds(65), stall: seconds(30) }
    }
}

/// Serves until `stop`; then answers what has begun, and ends. A handler finds its [`Peer`] as
/// `ConnectInfo`.
pub async fn serve_http(
    mut listener: TcpListener,
    router: Router,
    patience: Patience,
    stop: CancellationToken,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(patience.connections));
    let connections = TaskTracker::new();
    loop {
        if places.available_permits() == 0 {
            warn!("all {} connections are taken; more of them wait", patience.connections);
        }
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, Listener::accept(&mut listener).await)
        };
        let (place, (stream, peer)) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        let connection = Connection::new(stream, patience.opening, patience.stall, place.ok());
        let service = Extension(ConnectInfo(Peer(peer))).layer(router.clone());
        connections.spawn(serve_one(connection, service, patience.head, stop.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn serve_one(
    connection: Connection<TcpStream>,
    service: AddExtension<Router, ConnectInfo<Peer>>,
    head: Duration,
    stop: CancellationToken,
) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(head);
    // A peer that answers no ping is gone. WebSockets over HTTP/2 begin with CONNECT.
    server.http2().timer(TokioTimer::new()).keep_alive_interval(head / 2).enable_connect_protocol();
    let requests = Arc::new(AtomicU64::new(0));
    let service = TowerToHyperService::new(Counted { service, requests: requests.clone() });
    let mut served = pin!(server.serve_connection_with_upgrades(TokioIo::new(connection), service));
    let (mut ending, mut before) = (false, 0);
    let served = loop {
        tokio::select! {
            served = served.as_mut() => break served,
            () = stop.cancelled(), if !ending => ending = true,
            // An idle peer that answers pings would keep its place for ever. What is under way goes on.
            () = tokio::time::sleep(head), if !ending => {
                let now = requests.load(Ordering::Relaxed);
                ending = now == before;
                before = now;
            }
        }
        if ending {
            served.as_mut().graceful_shutdown();
        }
    };
    if let Err(error) = served {
        debug!(error = %error, "a connection was cut: {error}");
    }
}

/// Counts what is asked.
#[derive(Clone)]
struct Counted<S> {
    service: S,
    requests: Arc<AtomicU64>,
}

impl<R, S: Service<R>> Service<R> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.service.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::{body::Body, routing::get};
    use futures::stream;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc,
        time::{sleep, timeout},
    };

    use super::*;

    const MOMENT: Duration = Duration::from_millis(200);
    const SOON: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        serving: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl Server {
        async fn start(handler: axum::routing::MethodRouter, connections: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let patience = Patience { connections, opening: MOMENT, head: MOMENT * 2, stall: MOMENT };
            let (router, stop) = (Router::new().route("/", handler), CancellationToken::new());
            let serving = tokio::spawn(serve_http(listener, router, patience, stop.clone()));
            Self { address, stop, serving }
        }

        async fn say(&self, bytes: &[u8]) -> TcpStream {
            let mut client = TcpStream::connect(self.address).await.expect("somebody listens");
            client.write_all(bytes).await.expect("an open connection");
            client
        }
    }

    /// All that a client is told until its connection ends.
    async fn told(mut client: TcpStream) -> String {
        let mut told = Vec::new();
        // A reset is an end too.
        let _ = timeout(SOON, client.read_to_end(&mut told)).await.expect("the connection ends");
        String::from_utf8_lossy(&told).into_owned()
    }

    /// Tells of its drop.
    struct Held(mpsc::UnboundedSender<()>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_ends() {
        let (dropped, mut ended) = mpsc::unbounded_channel();
        let endless = get(async move |ConnectInfo(Peer(_)): ConnectInfo<Peer>| {
            let held = Held(dropped.clone());
            Body::from_stream(stream::repeat_with(move || {
                let _held = &held;
                Ok::<_, Infallible>(vec![b'.'; 16 * 1024])
            }))
        });
        let server = Server::start(endless, 8).await;
        let mut client = server.say(REQUEST).await;
        let mut begun = [0; 8];
        client.read_exact(&mut begun).await.expect("an answer");
        assert_eq!(&begun, b"HTTP/1.1");
        let ended = timeout(SOON, ended.recv()).await;
        assert_eq!(ended, Ok(Some(())), "the stream ends though its client is connected");
        drop(client);
    }

    #[tokio::test]
    async fn whoever_asks_nothing_loses_the_place() {
        let server = Server::start(get(async || "here"), 4).await;
        let silent = [
            server.say(b"").await,
            server.say(b"P").await,
            server.say(b"GET / HT").await,
            server.say(b"PRI * HTTP/2.0\r\n").await,
        ];
        // Its turn comes when they are gone.
        let late = told(server.say(REQUEST).await).await;
        assert!(late.starts_with("HTTP/1.1 200") && late.ends_with("here"), "{late}");
        for client in silent {
            assert!(!told(client).await.contains("200"));
        }
    }

    /// Its preface and settings are said and its pings are answered, so it is a connection like others,
    /// but nothing is asked.
    #[tokio::test]
    async fn an_idle_http_2_connection_ends() {
        let server = Server::start(get(async || "here"), 4).await;
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut client =
            server.say(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings].concat()).await;
        let until_the_end = async {
            let mut head = [0; 9];
            while client.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                client.read_exact(&mut payload).await.expect("a whole frame");
                const PING: u8 = 6;
                const ACK: u8 = 1;
                if head[3] == PING && head[4] != ACK {
                    head[4] = ACK;
                    client.write_all(&[head.as_slice(), &payload].concat()).await.expect("it listens");
                }
            }
        };
        timeout(SOON, until_the_end).await.expect("the connection ends");
    }

    #[tokio::test]
    async fn places_are_free_when_their_connections_have_ended() {
        let server = Server::start(get(async || "here"), 1).await;
        for _ in 0..3 {
            let told =
                told(server.say(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await).await;
            assert!(told.ends_with("here"), "{told}");
        }
    }

    #[tokio::test]
    async fn what_has_begun_is_answered_after_the_stop() {
        let slow = get(async || {
            sleep(MOMENT * 4).await;
            "late"
        });
        let server = Server::start(slow, 8).await;
        let client = server.say(REQUEST).await;
        sleep(MOMENT / 2).await;
        server.stop.cancel();
        let told = told(client).await;
        assert!(told.ends_with("late") && told.contains("connection: close"), "{told}");
        timeout(SOON, server.serving).await.expect("it ends").expect("no panic").expect("a clean end");
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    }
}
