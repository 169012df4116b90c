//! A WebSocket that sends what a client hears, and listens only for its end.

use std::time::{Duration, Instant};

use axum::{
    body::Bytes,
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    response::Response,
};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::time::{interval_at, timeout};

use crate::{
    routes::streams::KEEP_ALIVE,
    watch::{Change, Client, Ended},
};

/// Clients have nothing to say here.
const LARGEST_MESSAGE: usize = 4 * 1024;
/// Three pings without any answer: nobody is there.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a close may take that nobody waits for.
const FAREWELL: Duration = Duration::from_secs(1);

pub fn serve(upgrade: WebSocketUpgrade, client: Client) -> Response {
    upgrade.max_message_size(LARGEST_MESSAGE).max_frame_size(LARGEST_MESSAGE).on_upgrade(
        async move |socket| {
            let (mut sink, source) = socket.split();
            if let Some(why) = talk(&mut sink, source, &client).await {
                let close = Message::Close(Some(CloseFrame { code: code(why), reason: why.as_str().into() }));
                // Whoever does not read may not read this either.
                let _ = timeout(FAREWELL, sink.send(close)).await;
            }
        },
    )
}

/// `None`: the client has gone.
async fn talk(
    sink: &mut SplitSink<WebSocket, Message>,
    mut source: SplitStream<WebSocket>,
    client: &Client,
) -> Option<Ended> {
    let mut ping = interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            change = client.next() => match change {
                Ok(change) => tokio::select! {
                    sent = send(sink, &change) => sent.ok()?,
                    why = client.must_end() => return Some(why),
                },
                Err(why) => return Some(why),
            },
            said = source.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => heard = Instant::now(),
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return None;
                }
                timeout(FAREWELL, sink.send(Message::Ping(Bytes::new()))).await.ok()?.ok()?;
            }
        }
    }
}

async fn send(sink: &mut SplitSink<WebSocket, Message>, change: &Change) -> Result<(), axum::Error> {
    for message in change.messages() {
        sink.send(Message::Text(message.clone())).await?;
    }
    Ok(())
}

fn code(why: Ended) -> u16 {
    match why {
        Ended::SlowConsumer | Ended::Revoked => close_code::POLICY,
        Ended::Unconfirmed => close_code::AGAIN,
        Ended::Gone => close_code::NORMAL,
        Ended::Stopping => close_code::AWAY,
    }
}
