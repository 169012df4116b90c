//! What pages of other origins may do in a browser, and that browsers come back by TLS alone.

use reqwest::{Method, RequestBuilder};
use streamspace_common::{Config, config::ServerConfig};

use crate::app::{Answer, App};

const LISTED: &str = "https://app.example.com";
const OTHER: &str = "https://evil.example.com";
const EXPOSED: [&str; 6] =
    ["ratelimit", "ratelimit-policy", "retry-after", "x-request-id", "location", "link"];

async fn app(origins: &str) -> App {
    let cors_origins = Some(origins.parse().unwrap());
    App::start_with(Config {
        server: ServerConfig { cors_origins, ..Default::default() },
        ..Default::default()
    })
    .await
}

/// What a browser asks before it sends something that no form could.
fn preflight(app: &App, origin: &str) -> RequestBuilder {
    app.anonymous(Method::OPTIONS, "/api/v1/schedules/x")
        .header("origin", origin)
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "content-type,idempotency-key,x-api-key")
}

fn get(app: &App, origin: &str) -> RequestBuilder {
    app.request(&app.ours.owner, Method::GET, "/api/v1/jobs").header("origin", origin)
}

#[track_caller]
fn tells_pages_nothing(answer: &Answer) {
    let told: Vec<_> =
        answer.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).collect();
    assert!(told.is_empty(), "{told:?}");
}

/// `Vary` of all lines.
fn varies(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all("vary").iter().map(|line| line.to_str().unwrap().to_lowercase());
    lines.flat_map(|line| line.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn a_listed_origin_reads_answers_with_the_credentials_of_the_browser() {
    let app = app(&format!("http://localhost:3000,{LISTED}")).await;
    let nobody = app.anonymous(Method::GET, "/api/v1/jobs").header("origin", LISTED);
    for (request, status) in [(get(&app, LISTED), 200), (nobody, 401)] {
        let answer = Answer::of(request).await.expect(status);
        assert_eq!(answer.header("access-control-allow-origin"), LISTED);
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        let exposed = answer.header("access-control-expose-headers").to_lowercase();
        let mut exposed: Vec<&str> = exposed.split(',').map(str::trim).collect();
        let mut expected = EXPOSED;
        exposed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(exposed, expected);
        assert!(varies(&answer).contains(&"origin".to_owned()), "{:?}", answer.headers);
    }
}

#[tokio::test]
async fn an_origin_that_is_not_listed_reads_nothing() {
    let app = app(LISTED).await;
    for origin in [OTHER, "null", "https://app.example.com:8443", "http://app.example.com", "*"] {
        let answer = Answer::of(get(&app, origin)).await.expect(200);
        tells_pages_nothing(&answer);
        assert!(varies(&answer).contains(&"origin".to_owned()), "{origin}: a cache must tell them apart");
        tells_pages_nothing(&Answer::of(preflight(&app, origin)).await);
    }
    tells_pages_nothing(&app.get(&app.ours.owner, "/api/v1/jobs").await.expect(200));
}

#[tokio::test]
async fn without_origins_no_page_reads_anything() {
    let app = App::start().await;
    tells_pages_nothing(&Answer::of(get(&app, LISTED)).await.expect(200));
    tells_pages_nothing(&Answer::of(preflight(&app, LISTED)).await);
}

#[tokio::test]
async fn every_origin_comes_without_credentials() {
    let app = app("*").await;
    for request in [get(&app, OTHER), preflight(&app, OTHER)] {
        let answer = Answer::of(request).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
}

#[tokio::test]
async fn a_browser_asks_first_and_is_not_counted() {
    let app = app(LISTED).await;
    for _ in 0..3 {
        let answer =
            Answer::of(preflight(&app, LISTED).header("x-api-key", &app.ours.owner.key)).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), LISTED);
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert!(
            answer.header("access-control-allow-methods").split(',').any(|method| method.trim() == "PUT")
        );
        assert_eq!(answer.header("access-control-allow-headers"), "content-type,idempotency-key,x-api-key");
        assert_eq!(answer.header("ratelimit"), "");
        assert!(!answer.header("x-request-id").is_empty() && answer.text.is_empty());
    }
    let counted = Answer::of(get(&app, LISTED)).await.expect(200);
    assert!(counted.header("ratelimit").starts_with("\"hour\";r=9999;"), "{}", counted.header("ratelimit"));
}

#[tokio::test]
async fn whoever_comes_by_tls_is_told_to_stay_with_it() {
    for (url, told) in [
        (Some("https://streamspace.example.com"), "max-age=31536000; includeSubDomains"),
        (Some("http://streamspace.example.com"), ""),
        (None, ""),
    ] {
        let public_url = url.map(|url| url.parse().unwrap());
        let server = ServerConfig { public_url, ..Default::default() };
        let app = App::start_with(Config { server, ..Default::default() }).await;
        for path in ["/", "/api/docs/", "/api/v1/jobs", NOWHERE] {
            let answer = Answer::of(app.anonymous(Method::GET, path)).await;
            assert_eq!(answer.header("strict-transport-security"), told, "{url:?} {path}");
        }
    }
}

const NOWHERE: &str = "/nowhere";
