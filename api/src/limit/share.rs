//! Limits over several processes. Ten times a second each tells Redis what it has let through, and
//! hears what all together have. No request waits for that: while Redis is away each process counts
//! alone, and tells everything once it is back.

use std::{convert::Infallible, mem, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};
use sha2::{Digest, Sha256};
use streamspace_common::Secret;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Kind, Limits, windows::Untold};

const EVERY: Duration = Duration::from_millis(100);
/// Windows that one round tells of; the others have their turn in the next ones. A flood from ever
/// new addresses so costs Redis 60 MB a process at worst, until the minute is over.
const MOST: usize = 500;
/// Windows of one script: Redis does nothing else for half a millisecond.
const AT_ONCE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(1);
const RECONNECT: Duration = Duration::from_millis(500);

/// A subject's window is a hash in Redis: under the id of each process's window, what was let through
/// there. It is the whole number and not what was added, so it may be told twice. The window ends as
/// the process had it that told first; the others take its end over.
///
/// For each key: the window's id, its number, and the milliseconds that are left of it. The answer:
/// the sum, and the milliseconds that are left.
const TELL: &str = r"
local answer = {}
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[3 * i - 2], ARGV[3 * i - 1])
  local left = redis.call('PTTL', key)
  if left < 0 then
    left = tonumber(ARGV[3 * i])
    redis.call('PEXPIRE', key, left)
  end
  local used = 0
  for _, own in ipairs(redis.call('HVALS', key)) do used = used + own end
  answer[2 * i - 1] = used
  answer[2 * i] = left
end
return answer
";

/// Shares what is counted, until `stop`.
pub async fn share(limits: Arc<Limits>, url: Secret<String>, stop: CancellationToken) {
    // The URL may hold a password, so no error repeats it.
    let Ok(client) = Client::open(url.expose().as_str()) else {
        return error!("redis.url is not a Redis URL; each process counts requests alone");
    };
    stop.run_until_cancelled(keep_sharing(&limits, &client)).await;
}

async fn keep_sharing(limits: &Limits, client: &Client) {
    let mut alone = false;
    loop {
        let Err(error) = exchange(limits, client, &mut alone).await;
        if !mem::replace(&mut alone, true) {
            warn!(%error, "without Redis each process counts requests alone");
        }
        sleep(RECONNECT).await;
    }
}

async fn exchange(limits: &Limits, client: &Client, alone: &mut bool) -> RedisResult<Infallible> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    // It may be another Redis, or an empty one.
    limits.tell_again();
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let untold = limits.untold(MOST);
        if untold.is_empty() {
            continue;
        }
        let answers = tell(&mut connection, &untold).await?;
        for ((kind, told), answer) in untold.iter().zip(answers.concat().chunks_exact(2)) {
            limits.hear(*kind, told, answer[0], Duration::from_millis(answer[1]));
        }
        if mem::take(alone) {
            info!("Redis is back: limits are shared by all processes");
        }
    }
}

async fn tell(
    connection: &mut MultiplexedConnection,
    untold: &[(Kind, Untold)],
) -> RedisResult<Vec<Vec<u64>>> {
    let mut message = redis::pipe();
    for batch in untold.chunks(AT_ONCE) {
        let script = message.cmd("EVAL").arg(TELL).arg(batch.len());
        for (kind, told) in batch {
            script.arg(key(*kind, told.subject));
        }
        for (_, told) in batch {
            // A window without an end would stay for ever, and one that ends now is no window.
            let left = told.left.as_millis().max(1) as u64;
            script.arg(told.window).arg(told.own).arg(left);
        }
    }
    message.query_async(connection).await
}

/// Redis needs to know no address, and has no use for one.
fn key(kind: Kind, subject: u128) -> String {
    let hash = Sha256::digest(subject.to_be_bytes());
    format!("streamspace:limit:{}:{}", kind.as_str(), URL_SAFE_NO_PAD.encode(&hash[..16]))
}
