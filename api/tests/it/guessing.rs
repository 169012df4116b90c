//! What a stranger learns of accounts by asking: nothing, from the words nor from the time.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use streamspace_common::{Config, Role, TenantId, config::AuthConfig};
use streamspace_domain::sign_in::Passwords;
use streamspace_testkit::Percentiles;

use crate::{
    app::{Answer, App, PASSWORD, Person},
    sign_in::{cheap, generous},
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

/// An account, or none, and what is tried there.
struct Shape {
    what: &'static str,
    /// A number makes it another each time.
    email: String,
    tenant: Option<&'static str>,
    password: &'static str,
    times: Vec<Duration>,
}

fn shape(
    what: &'static str,
    email: impl Into<String>,
    tenant: Option<&'static str>,
    password: &'static str,
) -> Shape {
    Shape { what, email: email.into(), tenant, password, times: Vec::new() }
}

const WRONG: &str = "a guess that is wrong";

/// Everything that an account can be which refuses; one more is a line more.
async fn shapes(app: &App) -> Vec<Shape> {
    let email = |name: &str| format!("{name}@example.org");
    let change = async |name: &str, change: &str| {
        app.colleague(&app.ours.owner, Role::User, name).await;
        let hash = format!(
            "update users set password_hash = (select password_hash from users where id = '{}') where username = '{name}'",
            app.ours.user.id
        );
        app.execute(&hash).await;
        app.execute(&format!("update users set {change} where username = '{name}'")).await;
        email(name)
    };
    app.set_password(&app.ours.user).await;
    let locked = change("locked", "locked_until = now() + interval '1 day'").await;
    let disabled = change("disabled", "active = false").await;
    let empty = change("empty", "password_hash = null").await;
    let second = change("second", "totp_secret = 'x', totp_enabled_at = now()").await;
    app.colleague(&app.theirs.owner, Role::User, "twofold").await;
    let twofold = change("twofold", "name = 'In two tenants'").await;
    app.colleague(&app.theirs.owner, Role::User, "threefold").await;
    app.colleague(&app.platform, Role::User, "threefold").await;
    let threefold = change("threefold", "name = 'In three tenants'").await;
    let id = TenantId::new();
    let made = format!(
        "insert into tenants (id, name, slug, active) values ('{id}', 'Suspended', 'suspended', false)"
    );
    app.execute(&made).await;
    let there = Person { tenant: id, slug: "suspended".to_owned(), ..app.ours.owner.clone() };
    let suspended = app.colleague(&there, Role::User, "suspended").await;
    app.set_password(&suspended).await;
    vec![
        shape("known", &app.ours.user.email, Some("ours"), WRONG),
        shape("closed by failures", &locked, Some("ours"), WRONG),
        shape("closed by failures, and the right password", locked, Some("ours"), PASSWORD),
        shape("disabled", &disabled, Some("ours"), WRONG),
        shape("disabled, and the right password", disabled, Some("ours"), PASSWORD),
        shape("without a password", empty, Some("ours"), WRONG),
        shape("with a second factor", second, Some("ours"), WRONG),
        shape("of a suspended tenant, and the right password", suspended.email, Some("suspended"), PASSWORD),
        shape("in one tenant, which is not named", &app.ours.operator.email, None, WRONG),
        shape("in two tenants", twofold, None, WRONG),
        shape("in three tenants", threefold, None, WRONG),
    ]
}

/// So many attempts of each shape, and as many once more for those that look different.
const ATTEMPTS: usize = 10;
const MOST: usize = 60;

/// Refusals are told at multiples of it.
const BEAT: Duration = Duration::from_millis(100);

/// Hashing that takes longer than what is waited for before a refusal, so that a look more or less is seen: twice
/// as long, since even the quickest of a busy machine is not as quick as it can be.
async fn slow() -> AuthConfig {
    let of = |argon2_iterations| AuthConfig {
        argon2_iterations,
        lockout_failures: 10_000,
        ..AuthConfig::default()
    };
    // The least of some: what else the machine does is gone when it matters.
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let since = Instant::now();
        Passwords::new(&of(2)).hash(PASSWORD.into()).await.unwrap();
        least = least.min(since.elapsed());
    }
    of((2.0 * 0.2 / least.as_secs_f64()).ceil().clamp(2.0, 30.0) as u32)
}

async fn attempt(app: &App, shape: &mut Shape, n: usize) {
    let mut body = json!({ "email": shape.email.replace("{n}", &n.to_string()), "password": shape.password });
    if let Some(tenant) = shape.tenant {
        body["tenant"] = tenant.into();
    }
    let since = Instant::now();
    let answer = Answer::of(app.anonymous(Method::POST, "/api/v1/auth/login").json(&body)).await;
    shape.times.push(since.elapsed());
    answer.problem(401, "unauthenticated");
}

/// Looking at what an import has brought takes longer than looking at nothing.
#[tokio::test]
async fn accounts_of_an_import_take_as_long_as_none() {
    let app = App::start_with(cheap()).await;
    let hash = |cost| format!("$2a${cost:02}$k42ZFHFWqBp3vWli.nIn8uYyIkbvYRvodzbfbK18SSsY.CsIQPlxO");
    // The dearest takes some beats.
    for (who, cost) in [(&app.ours.user, 12), (&app.ours.operator, 9)] {
        let hash = hash(cost);
        app.execute(&format!("update users set password_hash = '{hash}' where id = '{}'", who.id)).await;
    }
    let mut nobody = shape("unknown", "nobody{n}@example.org", Some("ours"), WRONG);
    let mut known = [
        shape("of an import", &app.ours.user.email, Some("ours"), WRONG),
        shape("of an import, cheaper", &app.ours.operator.email, Some("ours"), WRONG),
    ];
    for n in 0..8 {
        app.execute("update users set failed_logins = 0, locked_until = null").await;
        app.execute("delete from sign_in_failures").await;
        for shape in known.iter_mut().chain([&mut nobody]) {
            attempt(&app, shape, n).await;
        }
    }
    let nobody = Percentiles::of(nobody.times);
    for shape in known {
        let somebody = Percentiles::of(shape.times);
        let what = format!("{}: {somebody}; unknown: {nobody}", shape.what);
        println!("figure: {what}");
        // A busy machine is slow for all of them.
        let apart = (BEAT * 3 / 2).max(nobody.p(20.0) / 3);
        assert!(somebody.p(20.0).abs_diff(nobody.p(20.0)) < apart, "{what}");
    }
}

/// Interleaved, so that whatever else this machine does happens to all of them.
#[tokio::test]
async fn known_and_unknown_accounts_take_the_same_time() {
    let app = App::start_with(Config { auth: slow().await, limits: generous(), ..Config::default() }).await;
    let mut unknown = [
        shape("unknown", "nobody{n}@example.org", Some("ours"), WRONG),
        shape("unknown, and no tenant is named", "nobody{n}@example.org", None, WRONG),
    ];
    let mut known = shapes(&app).await;
    for n in 1.. {
        let mut round: Vec<_> = unknown.iter_mut().chain(&mut known).collect();
        // Nobody is always the first.
        let first = n % round.len();
        round.rotate_left(first);
        for shape in round {
            attempt(&app, shape, n).await;
        }
        if n % ATTEMPTS > 0 {
            continue;
        }
        // What chance did is gone with more attempts; what we did grows.
        known.retain(|shape| {
            let like = &unknown[usize::from(shape.tenant.is_none())];
            let apart = apart(&shape.times, &like.times).abs();
            let [one, other] = [shape, like].map(|shape| Percentiles::of(shape.times.iter().copied()));
            let what = format!("{}: {one}; unknown: {other}; {apart:.1} deviations apart", shape.what);
            assert!(apart < 4.0, "{what}: {:?} {:?}", shape.times, like.times);
            // The quickest were disturbed the least.
            let quickest = one.p(20.0).abs_diff(other.p(20.0));
            let is_alike = (apart < 1.5 && quickest < BEAT / 2) || n >= MOST;
            if is_alike {
                println!("figure: {what}");
            }
            !is_alike
        });
        if known.is_empty() {
            break;
        }
    }
}
