//! The command line signs people in, and they stay in until they sign out.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio};

use reqwest::{Response, header};
use serde_json::{Value, json};
use streamspace_testkit::eventually;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr},
};
use url::Url;

use crate::{
    client::{Person, Said},
    installation::DEADLINE,
};

const PAST: &str = "2020-01-01T00:00:00Z";

impl Person {
    /// As the owner of the first start.
    pub async fn signed_in() -> Self {
        let person = Self::new().await;
        let said = person.signs_in(&person.first_password()).await;
        assert_eq!(said.code, 0, "{}", said.err);
        person
    }

    /// The address on a line, the password on the next.
    fn first_password(&self) -> String {
        fs::read_to_string(self.server.installation.dir.join("admin-password")).unwrap()
    }

    pub async fn signs_in(&self, lines: &str) -> Said {
        self.hears(&["login", "--url", &self.server.url, "--password"], lines).await
    }

    fn credentials(&self) -> PathBuf {
        self.home.path().join(".config/streamspace/credentials.toml")
    }

    fn saved(&self, field: &str) -> String {
        let text = fs::read_to_string(self.credentials()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field} = ")));
        line.unwrap_or_else(|| panic!("no {field}: {text}")).trim_matches('"').to_owned()
    }

    fn save(&self, field: &str, value: &str) {
        let text = fs::read_to_string(self.credentials()).unwrap();
        fs::write(self.credentials(), text.replace(&self.saved(field), value)).unwrap();
    }

    async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query_scalar(sql).fetch_one(&mut self.server.installation.connect().await).await.unwrap()
    }
}

fn http() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    client.no_proxy().tls_certs_only([]).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_signs_in_and_signing_out_ends_it_on_the_server_too() {
    let person = Person::new().await;
    let (email, password) = {
        let lines = person.first_password();
        let mut lines = lines.lines().map(str::to_owned);
        (lines.next().unwrap(), lines.next().unwrap())
    };
    let refused = person.signs_in(&format!("{email}\nnot the password\n")).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("password is wrong") && !refused.err.contains("not the"), "{}", refused.err);
    let cut = person.signs_in(&format!("{email}\n")).await;
    assert!(cut.code == 2 && cut.err.contains("Password"), "{}", cut.err);
    assert!(!person.credentials().exists());

    let said = person.signs_in(&format!("{email}\n{password}\n")).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains(&email) && said.out.contains("credentials.toml"), "{}", said.out);
    assert!(!format!("{}{}", said.out, said.err).contains(&password));
    assert_eq!(fs::metadata(person.credentials()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(person.credentials()).unwrap().contains(&password));

    let told = person.succeeds(&["whoami"]).await;
    assert!(told.contains(&email) && told.contains("owner") && told.contains("by password"), "{told}");
    let told = person.json(&["whoami"]).await;
    assert_eq!((&told["user"]["email"], &told["tenant"]["slug"]), (&json!(email), &json!("default")));
    assert!(told["user"]["permissions"].as_array().unwrap().contains(&json!("users.manage")), "{told}");
    assert_eq!((&told["signIn"]["method"], &told["signIn"]["current"]), (&json!("password"), &json!(true)));
    let listed = person.succeeds(&["auth", "sessions", "list"]).await;
    assert!(listed.contains("this one") && listed.contains("streamspace-cli/"), "{listed}");

    let token = person.saved("access_token");
    let profile = async || {
        let request = http().get(format!("{}/api/v1/auth/profile", person.server.url)).bearer_auth(&token);
        request.send().await.unwrap().status()
    };
    assert_eq!(profile().await, 200);
    assert!(person.succeeds(&["logout"]).await.contains("Signed out"));
    assert_eq!(profile().await, 401);
    assert!(!fs::read_to_string(person.credentials()).unwrap().contains("token"));
    assert_eq!(person.says(&["whoami"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_says_whose_it_is() {
    let person = Person::logged_in().await;
    let told = person.succeeds(&["whoami"]).await;
    assert!(
        told.contains("admin@localhost") && told.contains("by an API key, from the saved login"),
        "{told}"
    );
    let file = person.home.path().join("tenant.key");
    let create = ["api-keys", "create", "ours", "--role", "operator", "--key-file", file.to_str().unwrap()];
    person.succeeds(&create).await;
    let told = person.succeeds(&["whoami", "--api-key-file", file.to_str().unwrap()]).await;
    assert!(told.contains("by a key of the tenant") && told.contains("default"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_at_once_renew_a_token_once() {
    let person = Person::signed_in().await;
    let together = async || {
        let commands = (0..6).map(|_| person.says(&["jobs", "list", "-q"]));
        for said in futures::future::join_all(commands).await {
            assert_eq!(said.code, 0, "{}", said.err);
        }
    };
    // By our clock it has ended.
    let (first, before) = (person.saved("refresh_token"), person.saved("access_token"));
    person.save("ends_at", PAST);
    together().await;
    let second = person.saved("refresh_token");
    assert!(second != first && person.saved("ends_at") != PAST);
    assert_eq!(fs::metadata(person.credentials()).unwrap().permissions().mode() & 0o777, 0o600);
    // By the server's alone.
    person.save("access_token", &format!("{}x", before.rsplit_once('.').unwrap().0));
    together().await;
    assert_ne!(person.saved("refresh_token"), second);
    let id = person.json(&["whoami"]).await["signIn"]["id"].as_str().unwrap().to_owned();
    let used = format!("select count(*) from used_refresh_tokens where sign_in_id = '{id}'");
    assert_eq!(person.count(&used).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_was_ended_elsewhere_says_what_to_do() {
    let (here, there) = (Person::signed_in().await, Person::signed_in().await);
    let id = here.json(&["whoami"]).await["signIn"]["id"].as_str().unwrap().to_owned();
    there.succeeds(&["auth", "sessions", "end", &id]).await;
    let again = there.says(&["auth", "sessions", "end", &id]).await;
    assert!(again.code == 1 && again.err.contains(&id), "{}", again.err);
    for args in [&["jobs", "list"][..], &["whoami"]] {
        let said = here.says(args).await;
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(said.err.contains("is over") && said.err.contains("streamspace login"), "{}", said.err);
    }
    assert!(here.succeeds(&["logout"]).await.contains("over already"));
    // Where nobody answers, it is forgotten all the same.
    let text =
        fs::read_to_string(there.credentials()).unwrap().replace(&there.server.url, "http://127.0.0.1:1");
    fs::write(there.credentials(), text).unwrap();
    let said = there.says(&["logout"]).await;
    assert!(said.code == 1 && said.err.contains("forgotten here"), "{}", said.err);
    assert_eq!(there.says(&["logout"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_two_tenants_says_which_is_meant() {
    let person = Person::signed_in().await;
    let create = ["users", "create", "two@example.org", "--name", "Two"];
    assert_eq!(person.hears(&create, "a password of two\n").await.code, 0);
    let other = "with other as (
                     insert into tenants (id, name, slug) values (gen_random_uuid(), 'Other', 'other') returning id)
                 insert into users (id, tenant_id, email, username, name, role, password_hash)
                 select gen_random_uuid(), other.id, email, username, users.name, role, password_hash
                 from users, other where email = 'two@example.org'";
    sqlx::query(other).execute(&mut person.server.installation.connect().await).await.unwrap();
    let two = Person::new().await;
    let lines = "two@example.org\na password of two\n";
    let cut = two.signs_in(lines).await;
    assert!(cut.code == 2 && cut.err.contains("Tenant (default, other)"), "{}", cut.err);
    let said = two.signs_in(&format!("{lines}other\n")).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(two.json(&["whoami"]).await["tenant"]["slug"], "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_asked_for() {
    let owner = Person::signed_in().await;
    let create = ["users", "create", "careful@example.org", "--name", "Careful"];
    assert_eq!(owner.hears(&create, "a password of care\n").await.code, 0);
    // The recovery code of ten bytes that are all zero.
    let enable = "with careful as (
                      update users set totp_secret = '\\x00', totp_enabled_at = now()
                      where email = 'careful@example.org' returning tenant_id, id)
                  insert into recovery_codes (tenant_id, user_id, code_hash)
                  select tenant_id, id, sha256('\\x00000000000000000000') from careful";
    sqlx::query(enable).execute(&mut owner.server.installation.connect().await).await.unwrap();
    let careful = Person::new().await;
    let lines = "careful@example.org\na password of care\n";
    let cut = careful.signs_in(lines).await;
    assert!(cut.code == 2 && cut.err.contains("recovery code"), "{}", cut.err);
    let wrong = careful.signs_in(&format!("{lines}ABCD-EFGH-IJKL-MNOP\n")).await;
    assert!(wrong.code == 1 && !wrong.err.contains("ABCD"), "{}", wrong.err);
    let said = careful.signs_in(&format!("{lines}aaaa-aaaa-aaaa-aaaa\n")).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(careful.succeeds(&["whoami"]).await.contains("on"));
    // It was good once.
    assert_eq!(careful.signs_in(&format!("{lines}aaaa-aaaa-aaaa-aaaa\n")).await.code, 1);
}

/// A command that waits for a browser.
struct Asks {
    child: Child,
    _stderr: BufReader<ChildStderr>,
    /// Where it sends the browser.
    page: Url,
}

impl Asks {
    async fn start(person: &Person) -> Self {
        let mut command = person.command(&["login", "--url", &person.server.url, "--browser"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let page = tokio::time::timeout(DEADLINE, async {
            loop {
                let mut line = String::new();
                assert!(stderr.read_line(&mut line).await.unwrap() > 0, "it ended");
                if let Ok(page) = line.trim().parse() {
                    return page;
                }
            }
        });
        let page = page.await.unwrap();
        Self { child, _stderr: stderr, page }
    }

    async fn ends(self) -> (i32, String) {
        let ended = tokio::time::timeout(DEADLINE, self.child.wait_with_output()).await.unwrap().unwrap();
        (ended.status.code().unwrap(), String::from_utf8(ended.stdout).unwrap())
    }
}

/// What a browser does, without its scripts.
struct Browser {
    http: reqwest::Client,
    cookie: String,
}

impl Browser {
    async fn of(person: &Person) -> Self {
        let lines = person.first_password();
        let (email, password) = lines.trim().split_once('\n').unwrap();
        let login = http()
            .post(format!("{}/api/v1/auth/login", person.server.url))
            .header(header::ORIGIN, &person.server.url)
            .json(&json!({ "email": email, "password": password }));
        let answer = login.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap();
        Self { http: http(), cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    async fn goes_to(&self, page: Url) -> Response {
        let request = self.http.get(page).header(header::ACCEPT, "text/html");
        request.header(header::COOKIE, &self.cookie).send().await.unwrap()
    }

    /// Where the page with the question leads to: with a yes, and with a no.
    async fn is_asked(&self, page: &Url) -> (Url, Url) {
        let text = self.goes_to(page.clone()).await.text().await.unwrap();
        let after = |mark: &str| {
            let (_, rest) = text.split_once(mark).unwrap_or_else(|| panic!("no {mark}: {text}"));
            page.join(&rest.split('"').next().unwrap().replace("&amp;", "&")).unwrap()
        };
        (after("data-to=\""), after("href=\""))
    }
}

fn location(answer: &Response) -> Url {
    answer.headers()[header::LOCATION].to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_signs_the_command_line_in() {
    let person = Person::new().await;
    let asks = Asks::start(&person).await;
    let browser = Browser::of(&person).await;
    let (yes, _) = browser.is_asked(&asks.page).await;
    let sent = location(&browser.goes_to(yes).await);
    // Whoever does not know what only the page knows is no answer.
    let mut guess = sent.clone();
    guess.set_query(Some("code=theirs&state=guessed"));
    assert_eq!(browser.goes_to(guess).await.status(), 400);
    let told = browser.goes_to(sent).await;
    assert_eq!(told.status(), 200);
    assert!(told.text().await.unwrap().contains("The command line goes on"));
    let (code, out) = asks.ends().await;
    assert!(code == 0 && out.contains("admin@localhost"), "{out}");

    let told = person.json(&["whoami"]).await;
    assert_eq!((&told["signIn"]["method"], &told["signIn"]["kind"]), (&json!("cli"), &json!("tokens")));
    person.save("ends_at", PAST);
    person.succeeds(&["jobs", "list"]).await;
    // It is a sign-in of its own.
    person.succeeds(&["logout"]).await;
    let profile = format!("{}/api/v1/auth/profile", person.server.url).parse().unwrap();
    assert_eq!(browser.goes_to(profile).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_in_the_browser_ends_the_command() {
    let person = Person::new().await;
    let asks = Asks::start(&person).await;
    let (_, no) = Browser::of(&person).await.is_asked(&asks.page).await;
    assert_eq!(http().get(no).send().await.unwrap().status(), 200);
    assert_eq!(asks.ends().await, (1, String::new()));
    assert!(!person.credentials().exists());
}

/// What a person does in a session with a keyring.
const IN_A_SESSION: &str = r#"
set -e
printf 'a password of the keyring' | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
kept() { secret-tool lookup application streamspace server "$URL/"; }
"$STREAMSPACE" login --url "$URL" --password <"$LINES_FILE"
"$STREAMSPACE" whoami -q
echo "kept: $(kept)"
kept | sed 's/"ends_at":"[^"]*"/"ends_at":"2020-01-01T00:00:00Z"/' |
    secret-tool store --label ended application streamspace server "$URL/"
"$STREAMSPACE" whoami -q & "$STREAMSPACE" whoami -q & wait
echo "renewed: $(kept)"
touch "$HOME/signed-in"
while [ -e "$HOME/signed-in" ]; do sleep 0.05; done
"$STREAMSPACE" logout
echo "left: $(kept || echo nothing)"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_a_keyring_tokens_are_in_it_and_not_in_the_file() {
    let person = Person::new().await;
    let lines = person.server.installation.dir.join("admin-password");
    let mut session = tokio::process::Command::new("dbus-run-session");
    session.args(["--", "bash", "-c", IN_A_SESSION]).env_clear();
    session.env("PATH", "/usr/bin:/bin").env("HOME", person.home.path()).env("LINES_FILE", lines);
    session.env("STREAMSPACE", env!("CARGO_BIN_EXE_streamspace")).env("URL", &person.server.url);
    session.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let session = session.spawn().unwrap();
    let signed_in = person.home.path().join("signed-in");
    eventually(DEADLINE, "the session has signed in", async || signed_in.exists().then_some(())).await;

    let file = fs::read_to_string(person.credentials()).unwrap();
    assert!(file.contains("keyring = true") && !file.contains("token"), "{file}");
    // Elsewhere on the machine there is none.
    let said = person.says(&["jobs", "list"]).await;
    assert!(said.code == 1 && said.err.contains("lies in a keyring"), "{}", said.err);
    fs::remove_file(signed_in).unwrap();

    let ended = tokio::time::timeout(DEADLINE, session.wait_with_output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert!(ended.status.success(), "{out}{err}");
    let line = |mark: &str| {
        out.lines().find_map(|line| line.strip_prefix(mark)).unwrap_or_else(|| panic!("{out}{err}"))
    };
    let kept = |mark: &str| serde_json::from_str::<Value>(line(mark)).unwrap();
    let (kept, renewed) = (kept("kept: "), kept("renewed: "));
    assert!(kept["refresh_token"].as_str().unwrap().starts_with("rt_"));
    assert!(renewed["refresh_token"] != kept["refresh_token"] && renewed["ends_at"] != PAST, "{renewed}");
    let user = kept["user"].as_str().unwrap();
    assert_eq!(out.lines().filter(|line| *line == user).count(), 3, "{out}{err}");
    assert!(out.contains("that is kept in the keyring") && out.contains("Signed out"), "{out}");
    assert_eq!(line("left: "), "nothing");
}
