//! What a stranger learns of accounts by asking: nothing, from the words nor from the time.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use streamspace_common::{Config, config::AuthConfig};

use crate::{
    app::{Answer, App},
    sign_in::generous,
};

/// How far apart the middle ranks of two samples lie, in standard deviations (Mann and Whitney).
fn apart(one: &[Duration], other: &[Duration]) -> f64 {
    let mut all: Vec<_> = one.iter().map(|t| (*t, true)).chain(other.iter().map(|t| (*t, false))).collect();
    all.sort_unstable();
    let ranks: f64 =
        all.iter().enumerate().filter(|(_, (_, is_one))| *is_one).map(|(n, _)| n as f64 + 1.0).sum();
    let (n, m) = (one.len() as f64, other.len() as f64);
    let u = ranks - n * (n + 1.0) / 2.0;
    (u - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

#[test]
fn what_differs_is_seen() {
    let ms = |range: std::ops::Range<u64>| range.map(Duration::from_millis).collect::<Vec<_>>();
    assert!(apart(&ms(0..60), &ms(0..60)).abs() < 0.5);
    assert!(apart(&ms(0..60), &ms(30..90)).abs() > 4.0);
}

/// Interleaved, so that whatever else this machine does happens to both.
#[tokio::test]
async fn known_and_unknown_accounts_take_the_same_time() {
    let auth = AuthConfig { lockout_failures: 1000, ..AuthConfig::default() };
    let app = App::start_with(Config { auth, limits: generous(), ..Config::default() }).await;
    app.set_password(&app.ours.user).await;
    let attempt = async |email: &str, tenant: Option<&str>| {
        let mut body = json!({ "email": email, "password": "a guess that is wrong" });
        if let Some(tenant) = tenant {
            body["tenant"] = tenant.into();
        }
        let since = Instant::now();
        let answer = Answer::of(app.anonymous(Method::POST, "/api/v1/auth/login").json(&body)).await;
        answer.problem(401, "unauthenticated");
        since.elapsed()
    };
    for tenant in [Some("ours"), None] {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for n in 0..40 {
            known.push(attempt(&app.ours.user.email, tenant).await);
            unknown.push(attempt(&format!("nobody{n}@example.org"), tenant).await);
        }
        let apart = apart(&known, &unknown);
        println!("figure: known and unknown accounts are {apart:.1} deviations apart (tenant {tenant:?})");
        assert!(apart.abs() < 4.0, "{apart}: {known:?} {unknown:?}");
    }
}
