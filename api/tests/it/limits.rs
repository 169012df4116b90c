//! How often anybody may ask: alone, behind proxies, and over several processes that share a Redis.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use futures::future::join;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use streamspace_common::{
    Config,
    config::{LimitsConfig, RedisConfig, ServerConfig},
};
use streamspace_testkit::{Proxy, Redis, eventually};

use crate::{
    app::{Answer, App, PASSWORD, Person},
    sign_in::{cheap, login},
};

/// Open to everybody and counted by address.
const PUBLIC: &str = "/.well-known/jwks.json";
/// Counted against a key, and no work.
const NOWHERE: &str = "/api/v1/nowhere";
const A_WHILE: Duration = Duration::from_secs(30);

fn per_address(address_per_minute: u32) -> Config {
    Config { limits: LimitsConfig { address_per_minute, ..Default::default() }, ..Default::default() }
}

/// Proxies on this machine, as the test is, tell who asks.
fn behind_proxies(address_per_minute: u32) -> Config {
    let trusted_proxies = Some("127.0.0.0/8".parse().unwrap());
    Config {
        server: ServerConfig { trusted_proxies, ..Default::default() },
        ..per_address(address_per_minute)
    }
}

async fn forwarded(app: &App, for_whom: &str) -> Answer {
    Answer::of(app.anonymous(Method::GET, PUBLIC).header("x-forwarded-for", for_whom)).await
}

/// Whoever guesses keys is told to wait; whoever is known, or comes without any, is not.
#[tokio::test]
async fn an_address_comes_so_often_with_what_is_refused() {
    let app = App::start_with(per_address(3)).await;
    let refused = |shown: Shown| {
        let request = app.anonymous(Method::GET, "/api/v1/jobs");
        Answer::of(match shown {
            Shown::Key => request.header("x-api-key", format!("sk_{}", "A".repeat(43))),
            Shown::Cookie => request.header("cookie", format!("__Host-streamspace=ss_{}", "A".repeat(43))),
            Shown::Nothing => request,
        })
    };
    for shown in [Shown::Key, Shown::Cookie, Shown::Key] {
        refused(shown).await.problem(401, "unauthenticated");
    }
    for shown in [Shown::Key, Shown::Cookie] {
        refused(shown).await.problem(429, "rate-limited");
    }
    refused(Shown::Nothing).await.problem(401, "unauthenticated");
    app.get(&app.ours.user, "/api/v1/jobs").await.expect(200);
    Answer::of(app.anonymous(Method::GET, PUBLIC)).await.expect(200);
}

enum Shown {
    Key,
    Cookie,
    Nothing,
}

#[tokio::test]
async fn an_address_has_its_minute() {
    let app = App::start_with(per_address(3)).await;
    for left in [2, 1, 0] {
        let answer = Answer::of(app.anonymous(Method::GET, PUBLIC)).await.expect(200);
        assert_eq!(answer.header("ratelimit-policy"), "\"minute\";q=3;w=60");
        assert!(answer.header("ratelimit").starts_with(&format!("\"minute\";r={left};t=")));
    }
    let refused = Answer::of(app.anonymous(Method::GET, PUBLIC)).await.problem(429, "rate-limited");
    let after = refused.header("retry-after").parse::<u64>().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(refused.header("ratelimit"), format!("\"minute\";r=0;t={after}"));
    // Whoever is known has a limit of their own, and what is always open stays so.
    app.get(&app.ours.user, "/api/v1/jobs").await.expect(200);
    for path in ["/", "/health", "/api/v1/auth/health", "/api/openapi.json", "/api/docs/"] {
        let answer = Answer::of(app.anonymous(Method::GET, path)).await.expect(200);
        assert_eq!(answer.header("ratelimit"), "", "{path}");
    }
}

#[tokio::test]
async fn attempts_to_sign_in_are_counted_by_address_whatever_comes_of_them() {
    let app = App::start_with(Config { auth: cheap().auth, ..per_address(3) }).await;
    app.set_password(&app.ours.user).await;
    let body =
        |password: &str| json!({ "email": app.ours.user.email, "password": password, "tenant": "ours" });
    let signed_in = login(&app, body(PASSWORD)).await.expect(200);
    assert!(signed_in.header("ratelimit").starts_with("\"minute\";r=2;"), "{:?}", signed_in.headers);
    login(&app, body("a guess")).await.problem(401, "unauthenticated");
    let refresh = || {
        let body = json!({ "refreshToken": signed_in.json()["refreshToken"] });
        Answer::of(app.anonymous(Method::POST, "/api/v1/auth/refresh").json(&body))
    };
    refresh().await.expect(200);
    refresh().await.problem(429, "rate-limited");
    let refused = login(&app, body(PASSWORD)).await.problem(429, "rate-limited");
    assert!(refused.header("ratelimit").starts_with("\"minute\";r=0;"), "{:?}", refused.headers);
    // What was refused was not looked at: the token that came a second time has ended nothing.
    assert_eq!(app.count("select count(*) from audit where action = 'sign_ins.reuse'").await, 0);
}

#[tokio::test]
async fn a_person_has_one_minute_for_all_their_sign_ins_and_each_key_its_hour() {
    let limits = LimitsConfig { user_per_minute: 4, ..Default::default() };
    let app = App::start_with(Config { limits, ..cheap() }).await;
    let who = &app.ours.user;
    app.set_password(who).await;
    let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
    let tokens = [login(&app, body.clone()).await, login(&app, body.clone()).await]
        .map(|answer| answer.json()["accessToken"].as_str().unwrap().to_owned());
    let ours = format!("http://{}", app.address);
    let page = app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", ours).json(&body);
    let cookie =
        Answer::of(page).await.expect(200).header("set-cookie").split(';').next().unwrap().to_owned();
    let jobs = || app.anonymous(Method::GET, "/api/v1/jobs");
    let ways: [&dyn Fn() -> RequestBuilder; 3] =
        [&|| jobs().bearer_auth(&tokens[0]), &|| jobs().bearer_auth(&tokens[1]), &|| {
            jobs().header("cookie", &cookie)
        }];
    for (left, way) in [3, 2, 1].into_iter().zip(ways) {
        let answer = Answer::of(way()).await.expect(200);
        assert_eq!(answer.header("ratelimit-policy"), "\"minute\";q=4;w=60");
        assert!(answer.header("ratelimit").starts_with(&format!("\"minute\";r={left};")));
    }
    // An answer that refuses counts too.
    Answer::of(app.anonymous(Method::GET, "/api/v1/audit").bearer_auth(&tokens[0])).await.expect(403);
    for way in ways {
        let refused = Answer::of(way()).await.problem(429, "rate-limited");
        let after = refused.header("retry-after").parse::<u64>().unwrap();
        assert!((1..=60).contains(&after), "{after}");
    }
    app.get(who, "/api/v1/jobs").await.expect(200);
}

#[tokio::test]
async fn an_invented_header_is_no_way_around_a_limit() {
    let app = App::start_with(per_address(3)).await;
    for spoofed in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        forwarded(&app, spoofed).await.expect(200);
    }
    forwarded(&app, "192.0.2.4").await.problem(429, "rate-limited");
}

#[tokio::test]
async fn clients_of_our_own_proxy_are_told_apart_by_what_it_appended() {
    let app = App::start_with(behind_proxies(2)).await;
    for spoofed in ["127.0.0.1", "192.0.2.7", "unknown"] {
        let told = format!("{spoofed}, 203.0.113.9");
        forwarded(&app, &told).await;
    }
    forwarded(&app, "203.0.113.9").await.problem(429, "rate-limited");
    forwarded(&app, "203.0.113.9:4711").await.problem(429, "rate-limited");
    forwarded(&app, "203.0.113.10").await.expect(200);
    Answer::of(app.anonymous(Method::GET, PUBLIC)).await.expect(200);
}

#[tokio::test]
async fn an_ipv6_network_has_one_limit_for_all_its_addresses() {
    let app = App::start_with(behind_proxies(2)).await;
    forwarded(&app, "2001:db8:0:1::1").await.expect(200);
    forwarded(&app, "2001:db8:0:1:ffff::2").await.expect(200);
    forwarded(&app, "[2001:db8:0:1::3]:443").await.problem(429, "rate-limited");
    forwarded(&app, "2001:db8:0:2::1").await.expect(200);
}

fn over(redis: String) -> Config {
    Config { redis: RedisConfig { url: Some(redis.as_str().into()) }, ..Default::default() }
}

/// Two processes over one Redis, and somebody whose key both count.
struct Replicas {
    app: App,
    there: SocketAddr,
    limit: u32,
    asked: AtomicU32,
}

impl Replicas {
    async fn start(redis: String, limit: u32) -> Self {
        let config = over(redis);
        let app = App::start_with(config.clone()).await;
        let there = app.another_with(&config).await;
        app.limit(&app.ours.user, limit).await;
        Self { app, there, limit, asked: AtomicU32::new(0) }
    }

    fn user(&self) -> &Person {
        &self.app.ours.user
    }

    fn both(&self) -> [SocketAddr; 2] {
        [self.app.address, self.there]
    }

    /// Whether they let somebody through.
    async fn ask(&self, process: SocketAddr) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.app.get_at(process, self.user(), NOWHERE).await.status {
            404 => true,
            429 => false,
            other => panic!("{other}"),
        }
    }

    /// Each knows of every request that was ever made, and of none twice.
    async fn agree(&self) {
        for process in self.both() {
            eventually(A_WHILE, "a process knows what the other let through", async || {
                let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
                let answer = self.app.get_at(process, self.user(), NOWHERE).await;
                let left = format!("\"hour\";r={};", self.limit - asked);
                answer.header("ratelimit").starts_with(&left).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn two_processes_together_let_through_what_one_may() {
    const LIMIT: u32 = 1_000;
    let redis = Redis::start().await.unwrap();
    let replicas = Replicas::start(redis.url(), LIMIT).await;
    let start = Instant::now();
    let load = async |process| {
        let mut times = Vec::new();
        while replicas.ask(process).await {
            times.push(start.elapsed());
        }
        times
    };
    let (mut times, there) = join(load(replicas.app.address), load(replicas.there)).await;
    assert!(!times.is_empty() && !there.is_empty());
    times.extend(there);
    times.sort();
    let limit = LIMIT as usize;
    assert!((limit..2 * limit).contains(&times.len()), "{} were let through", times.len());
    // The others learn of it after a tenth of a second and the way there and back; this machine has
    // other things to do.
    let late = *times.last().unwrap() - times[limit - 1];
    assert!(late < Duration::from_secs(2), "{} more in {late:?}", times.len() - limit);
}

#[tokio::test]
async fn while_redis_is_dead_each_counts_alone_and_nothing_is_lost_when_it_is_back() {
    let mut redis = Redis::start().await.unwrap();
    let replicas = Replicas::start(redis.url(), 1_000_000).await;
    replicas.agree().await;
    let over = AtomicBool::new(false);
    let load = async {
        while !over.load(Ordering::Relaxed) {
            for process in replicas.both() {
                assert!(replicas.ask(process).await);
            }
        }
    };
    let faults = async {
        let goes_on = async || {
            let asked = replicas.asked.load(Ordering::Relaxed);
            eventually(A_WHILE, "requests go on", async || {
                (replicas.asked.load(Ordering::Relaxed) > asked + 200).then_some(())
            })
            .await;
        };
        goes_on().await;
        redis.kill().await;
        goes_on().await;
        redis.restart().await.unwrap();
        goes_on().await;
        over.store(true, Ordering::Relaxed);
    };
    join(load, faults).await;
    replicas.agree().await;
}

#[tokio::test]
async fn a_process_tells_everything_again_when_redis_has_forgotten_it() {
    let mut redis = Redis::start().await.unwrap();
    let replicas = Replicas::start(redis.url(), 1_000).await;
    replicas.agree().await;
    redis.restart().await.unwrap();
    // Somebody else asks there: of this one nothing new is to be told.
    replicas.app.get_at(replicas.there, &replicas.app.ours.owner, NOWHERE).await.expect(404);
    replicas.agree().await;
}

#[tokio::test]
async fn a_redis_that_says_nothing_holds_nobody_up() {
    let redis = Redis::start().await.unwrap();
    let between = Proxy::to(redis.port()).await.unwrap();
    let replicas = Replicas::start(format!("redis://127.0.0.1:{}", between.port()), 10_000).await;
    replicas.agree().await;
    between.silence();
    let start = Instant::now();
    for _ in 0..50 {
        for process in replicas.both() {
            assert!(replicas.ask(process).await);
        }
    }
    assert!(start.elapsed() < Duration::from_secs(20), "100 requests took {:?}", start.elapsed());
    between.restore();
    replicas.agree().await;
}

#[tokio::test]
async fn what_is_shared_names_nobody_and_ends_by_itself() {
    let redis = Redis::start().await.unwrap();
    let config = Config { redis: over(redis.url()).redis, ..behind_proxies(60) };
    let app = App::start_with(config).await;
    forwarded(&app, "203.0.113.9").await.expect(200);
    forwarded(&app, "2001:db8:7::1").await.expect(200);
    app.get(&app.ours.user, NOWHERE).await.expect(404);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = eventually(A_WHILE, "three windows are shared", async || {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        (keys.len() == 3).then_some(keys)
    })
    .await;
    for key in keys {
        assert!(key.starts_with("streamspace:limit:"), "{key}");
        let left: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        let most = if key.contains(":key:") { 3_600_000 } else { 60_000 };
        assert!((1..=most).contains(&left), "{key}: {left}");
        let value: Vec<String> = redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await.unwrap();
        let told = format!("{key} {value:?}");
        for secret in ["203.0.113", "2001:db8", &app.ours.user.id.to_string(), &app.ours.user.key] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}
