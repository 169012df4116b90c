//! A program signs in by the browser of its person, and by nothing less.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use streamspace_testkit::eventually;

use crate::{
    app::{Answer, App, PASSWORD, Person},
    sign_in::{cheap, login},
};

pub const PROGRAM: &str = "http://127.0.0.1:41234/callback";
pub const VERIFIER: &str = "a-verifier-that-never-left-the-program-it-is-of";

/// A browser that somebody is signed in at.
pub struct Browser<'a> {
    app: &'a App,
    pub cookie: String,
}

impl<'a> Browser<'a> {
    pub async fn of(app: &'a App, who: &Person) -> Self {
        let body = json!({ "email": who.email, "password": PASSWORD, "tenant": who.slug });
        let login =
            app.anonymous(Method::POST, "/api/v1/auth/login").header("origin", app.url("")).json(&body);
        let signed_in = Answer::of(login).await.expect(200);
        let cookie = signed_in.header("set-cookie").split(';').next().unwrap().to_owned();
        Self { app, cookie }
    }

    pub async fn goes_to(&self, path: &str) -> Answer {
        self.sent_to(path, "same-origin").await
    }

    async fn sent_to(&self, path: &str, by: &str) -> Answer {
        let request = goes(self.app, path).header("cookie", &self.cookie).header("sec-fetch-site", by);
        Answer::of(request).await
    }

    /// To the page with the question; answers where its button leads.
    pub async fn is_asked(&self, path: &str) -> String {
        yes(&self.goes_to(path).await.expect(200))
    }

    /// Signs a program in as far as its code.
    async fn code(&self) -> String {
        let asked = self.is_asked(&authorize(PROGRAM)).await;
        code(&self.goes_to(&asked).await)
    }
}

fn goes(app: &App, path: &str) -> reqwest::RequestBuilder {
    app.anonymous(Method::GET, path).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
}

pub fn authorize(program: &str) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER.as_bytes()));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("redirect_uri", program)
        .append_pair("state", "the program's own")
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .finish();
    format!("/api/v1/auth/cli/authorize?{query}")
}

fn yes(page: &Answer) -> String {
    let (_, rest) = page.text.split_once("data-to=\"").unwrap_or_else(|| panic!("{}", page.text));
    let query = rest.split('"').next().unwrap().replace("&amp;", "&");
    format!("/api/v1/auth/cli/authorize{query}")
}

#[track_caller]
pub fn code(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.text);
    let sent: url::Url = answer.header("location").parse().unwrap();
    assert!(sent.as_str().starts_with(PROGRAM), "{sent}");
    let told: std::collections::HashMap<_, _> = sent.query_pairs().into_owned().collect();
    assert_eq!(told["state"], "the program's own");
    told["code"].clone()
}

pub async fn exchange(app: &App, body: &Value) -> Answer {
    Answer::of(app.anonymous(Method::POST, "/api/v1/auth/cli/token").json(body)).await
}

pub fn shown(code: &str) -> Value {
    json!({ "code": code, "codeVerifier": VERIFIER, "redirectUri": PROGRAM })
}

async fn profile(app: &App, token: &str) -> Answer {
    Answer::of(app.anonymous(Method::GET, "/api/v1/auth/profile").bearer_auth(token)).await
}

async fn started() -> App {
    let app = App::start_with(cheap()).await;
    app.set_password(&app.ours.user).await;
    app
}

#[tokio::test]
async fn who_says_yes_in_the_browser_signs_the_program_in() {
    let app = started().await;
    let who = &app.ours.user;
    let browser = Browser::of(&app, who).await;
    let code = browser.code().await;
    let signed_in = exchange(&app, &shown(&code)).await.expect(200);
    assert_eq!(signed_in.header("set-cookie"), "");
    let signed_in = signed_in.json();
    assert_eq!(
        (&signed_in["tokenType"], &signed_in["user"]["id"]),
        (&json!("Bearer"), &json!(who.id.to_string()))
    );
    let token = signed_in["accessToken"].as_str().unwrap();
    assert_eq!(profile(&app, token).await.expect(200).json()["email"], who.email);
    // A sign-in of its own, with both ways to go on.
    let refresh = json!({ "refreshToken": signed_in["refreshToken"] });
    let request = app.anonymous(Method::POST, "/api/v1/auth/refresh").json(&refresh);
    let token = Answer::of(request).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned();
    let listed = Answer::of(app.anonymous(Method::GET, "/api/v1/auth/sessions").bearer_auth(&token)).await;
    let listed = listed.expect(200).json();
    let told: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|s| (&s["kind"], &s["method"])).collect();
    assert_eq!(told, [(&json!("tokens"), &json!("cli")), (&json!("browser"), &json!("password"))]);
    assert_eq!(app.count("select count(*) from cli_requests").await, 0);

    // The code was good once.
    exchange(&app, &shown(&code)).await.problem(401, "unauthenticated");
    profile(&app, &token).await.expect(200);
}

#[tokio::test]
async fn a_browser_is_shown_where_to_sign_in_and_a_program_is_refused() {
    let app = started().await;
    let address = authorize(PROGRAM);
    let page = Answer::of(goes(&app, &address)).await.expect(200);
    assert!(page.text.contains("name=\"password\"") && !page.text.contains("data-to"), "{}", page.text);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"), "{policy}");
    // What runs is what is there, and nothing that anybody could add.
    for (name, part) in [("script-src", "script"), ("style-src", "style")] {
        let (_, text) = page.text.split_once(&format!("<{part}>")).unwrap();
        let text = text.split(&format!("</{part}>")).next().unwrap();
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text.as_bytes()));
        assert!(policy.contains(&format!("{name} 'sha256-{hash}';")), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");

    // A cookie that is over, as none.
    let browser = Browser::of(&app, &app.ours.user).await;
    app.execute("delete from sign_ins").await;
    eventually(Duration::from_secs(5), "its end is seen", async || {
        browser.goes_to(&address).await.text.contains("name=\"password\"").then_some(())
    })
    .await;

    Answer::of(app.anonymous(Method::GET, &address)).await.problem(401, "unauthenticated");
    // More would come of it than a key may have.
    app.get(&app.ours.user, &address).await.problem(403, "forbidden");
    let body = json!({ "email": app.ours.user.email, "password": PASSWORD, "tenant": app.ours.user.slug });
    let token = login(&app, body).await.expect(200).json()["accessToken"].as_str().unwrap().to_owned();
    let request = app.anonymous(Method::GET, &address).bearer_auth(&token);
    Answer::of(request).await.problem(403, "forbidden");
    assert_eq!(app.count("select count(*) from cli_requests").await, 0);
}

#[tokio::test]
async fn no_code_leaves_the_browsers_machine() {
    let app = started().await;
    let browser = Browser::of(&app, &app.ours.user).await;
    for foreign in [
        "https://evil.example/",
        "http://evil.example:41234/",
        "http://127.0.0.1.evil.example:41234/",
        "http://127.0.0.1@evil.example:41234/",
        "http://127.0.0.1/",
        "//evil.example:41234/",
        "javascript:alert(1)",
    ] {
        let refused = browser.goes_to(&authorize(foreign)).await.problem(422, "invalid").json();
        assert_eq!(refused["errors"][0]["pointer"], "redirect_uri", "{foreign}");
    }
    for (name, text) in [("code_challenge_method", "plain"), ("code_challenge", "x"), ("state", "")] {
        let address: url::Url = app.url(&authorize(PROGRAM)).parse().unwrap();
        let pairs = address.query_pairs().map(|(key, value)| match key == name {
            true => (key, text.into()),
            false => (key, value),
        });
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let refused =
            browser.goes_to(&format!("{}?{query}", address.path())).await.problem(422, "invalid").json();
        assert_eq!(refused["errors"][0]["pointer"], name);
    }
    assert_eq!(app.count("select count(*) from cli_requests").await, 0);
}

#[tokio::test]
async fn a_yes_is_good_once_for_who_was_asked_and_what_was_asked() {
    let app = started().await;
    app.set_password(&app.ours.viewer).await;
    let browser = Browser::of(&app, &app.ours.user).await;
    let asks_again = async |browser: &Browser<'_>, path: &str| {
        yes(&browser.goes_to(path).await.expect(200));
    };

    // Another sign-in's, also of the same person.
    let asked = browser.is_asked(&authorize(PROGRAM)).await;
    for other in [&app.ours.viewer, &app.ours.user] {
        asks_again(&Browser::of(&app, other).await, &asked).await;
    }
    // For another program, or another challenge.
    let other = asked.replace("41234", "41235");
    assert_ne!(other, asked);
    asks_again(&browser, &other).await;
    // That question took the place of the first.
    asks_again(&browser, &asked).await;

    // From elsewhere: whoever could write the address still is not believed.
    let asked = browser.is_asked(&authorize(PROGRAM)).await;
    yes(&browser.sent_to(&asked, "cross-site").await.expect(200));

    // Once, however many come at once.
    let asked = browser.is_asked(&authorize(PROGRAM)).await;
    let answers = futures::future::join_all((0..8).map(|_| browser.goes_to(&asked))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 303).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 303)));

    // Not for ever.
    let asked = browser.is_asked(&authorize(PROGRAM)).await;
    app.execute("update cli_requests set expires_at = now() where not allowed").await;
    asks_again(&browser, &asked).await;
    assert_eq!(app.count("select count(*) from cli_requests where not allowed").await, 3, "one a browser");
}

#[tokio::test]
async fn a_code_is_for_the_program_that_asked_and_while_its_browser_is_signed_in() {
    let app = started().await;
    let browser = Browser::of(&app, &app.ours.user).await;
    // Who reads a code on its way does not know the verifier, and uses it up.
    for (field, text) in [
        ("codeVerifier", "another-verifier-that-is-long-enough-to-be-one"),
        ("redirectUri", "http://127.0.0.1:41235/callback"),
    ] {
        let code = browser.code().await;
        let mut body = shown(&code);
        body[field] = text.into();
        exchange(&app, &body).await.problem(401, "unauthenticated");
        exchange(&app, &shown(&code)).await.problem(401, "unauthenticated");
    }
    let failed = "select count(*) from audit where action = 'sign_ins.fail' and tenant_id =";
    assert_eq!(app.count(&format!("{failed} '{}'", app.ours.id)).await, 2);

    // Too late.
    let code = browser.code().await;
    let left = app
        .count("select round(extract(epoch from expires_at - queue.now()))::bigint from cli_requests where allowed")
        .await;
    assert!((55..=60).contains(&left), "{left}");
    app.execute("update cli_requests set expires_at = now() where allowed").await;
    exchange(&app, &shown(&code)).await.problem(401, "unauthenticated");

    // Not by a page, ours neither: it would get a cookie for a program.
    let code = browser.code().await;
    let request = app.anonymous(Method::POST, "/api/v1/auth/cli/token").header("origin", app.url(""));
    Answer::of(request.json(&shown(&code))).await.problem(403, "forbidden");
    for text in ["", "cc_", &"x".repeat(10_000), "' or 1=1 --"] {
        let refused = exchange(&app, &shown(text)).await.status;
        assert!(matches!(refused, 401 | 422), "{refused}");
    }

    // Who signs out takes it along.
    let out = app
        .anonymous(Method::POST, "/api/v1/auth/logout")
        .header("cookie", &browser.cookie)
        .header("origin", app.url(""));
    Answer::of(out).await.expect(204);
    exchange(&app, &shown(&code)).await.problem(401, "unauthenticated");

    // Of two that come at once one is in.
    let browser = Browser::of(&app, &app.ours.user).await;
    let body = shown(&browser.code().await);
    let answers = futures::future::join_all((0..8).map(|_| exchange(&app, &body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    // Who is disabled is not.
    let code = browser.code().await;
    app.execute(&format!("update users set active = false where id = '{}'", app.ours.user.id)).await;
    exchange(&app, &shown(&code)).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn the_question_names_who_is_asked_and_runs_nothing_of_theirs() {
    let app = started().await;
    let who = &app.ours.user;
    app.execute(&format!("update users set name = '<script>\"{{x}}''&' where id = '{}'", who.id)).await;
    let browser = Browser::of(&app, who).await;
    let page = browser.goes_to(&authorize("http://[::1]:41234/<b>\"'")).await.expect(200);
    assert!(page.text.contains("&lt;script&gt;&quot;{x}&#39;&amp;"), "{}", page.text);
    assert!(page.text.contains("[::1]:41234") && page.text.contains(&who.email), "{}", page.text);
    assert!(page.text.contains("error=access_denied&amp;state=the+program%27s+own"), "{}", page.text);
    assert_eq!(page.text.matches("<script>").count(), 1);
    assert!(!page.text.contains("<b>"), "{}", page.text);
    assert_eq!(page.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_second_factor_that_is_wanted_later_is_wanted_of_the_program_too() {
    let app = started().await;
    let browser = Browser::of(&app, &app.ours.user).await;
    let signed_in = exchange(&app, &shown(&browser.code().await)).await.expect(200).json();
    let token = signed_in["accessToken"].as_str().unwrap();
    let set = app.request(&app.ours.owner, Method::PUT, "/api/v1/settings/auth.mfa_required");
    Answer::of(set.json(&json!({ "value": true }))).await.expect(200);
    let jobs =
        async |token: &str| Answer::of(app.anonymous(Method::GET, "/api/v1/jobs").bearer_auth(token)).await;
    eventually(Duration::from_secs(5), "it acts on the program", async || {
        (jobs(token).await.status == 403).then_some(())
    })
    .await;
    jobs(token).await.problem(403, "mfa-required");
    // Nor does a browser let another in.
    eventually(Duration::from_secs(5), "it acts on the browser", async || {
        (browser.goes_to(&authorize(PROGRAM)).await.status == 403).then_some(())
    })
    .await;
    browser.goes_to(&authorize(PROGRAM)).await.problem(403, "mfa-required");
}
