//! The commands that use a server, against a real one. The tests share it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    process::{Output, Stdio},
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::Value;
use sqlx::Executor;
use streamspace_testkit::{Process, Proxy, Scratch};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::Mutex,
};

use crate::installation::{DEADLINE, Installation};

pub struct Server {
    pub installation: Installation,
    _up: Process,
    pub url: String,
}

/// Tokens end soon, and everybody comes from one address.
const UP: [&str; 5] =
    ["up", "--set", "auth.access_token_ttl=1m", "--set", "limits.address_per_minute=100000"];

/// Ends with the last test that uses it: nothing drops a static at the end of a process, and the
/// database would go on.
static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

impl Server {
    async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let installation = Installation::new("client").await;
        let up = installation.command(&UP).start().unwrap();
        let line = up.line("runs at", DEADLINE).await;
        let url = line.rsplit(' ').next().unwrap().to_owned();
        let server = Arc::new(Self { installation, _up: up, url });
        *shared = Arc::downgrade(&server);
        server
    }

    fn key(&self) -> String {
        fs::read_to_string(self.installation.dir.join("admin-key")).unwrap().trim().to_owned()
    }
}

/// Somebody at a machine, with a home directory and nothing in the environment.
pub struct Person {
    pub server: Arc<Server>,
    pub home: Scratch,
}

pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Person {
    pub async fn new() -> Self {
        Self { server: Server::shared().await, home: Scratch::new("person").unwrap() }
    }

    pub async fn logged_in() -> Self {
        let person = Self::new().await;
        let key_file = person.server.installation.dir.join("admin-key");
        let key_file = key_file.to_str().unwrap();
        person.succeeds(&["login", "--url", &person.server.url, "--api-key-file", key_file]).await;
        person
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamspace"));
        command.args(args).env_clear().env("HOME", self.home.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub async fn says(&self, args: &[&str]) -> Said {
        self.command(args).output().await.unwrap().into()
    }

    pub async fn succeeds(&self, args: &[&str]) -> String {
        let said = self.says(args).await;
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    pub async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.succeeds(&[args, &["-o", "json"]].concat()).await).unwrap()
    }

    /// With a key on its standard input.
    async fn logs_in(&self, key: &str) -> Said {
        self.hears(&["login", "--url", &self.server.url], key).await
    }

    /// With this on its standard input.
    pub async fn hears(&self, args: &[&str], text: &str) -> Said {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
        child.wait_with_output().await.unwrap().into()
    }

    /// A job that waits in a queue that starts nothing.
    async fn stuck_job(&self) -> String {
        self.succeeds(&["queues", "pause", "maintenance"]).await;
        self.succeeds(&["schedules", "run", "jobs.prune", "-q"]).await.trim().to_owned()
    }
}

/// The next line that it says on standard error.
async fn line(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap_or_default()
}

/// Those that pause the queue must not do it to each other.
static QUEUE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_checked_kept_for_its_owner_and_forgotten() {
    let person = Person::new().await;
    let nobody = person.says(&["jobs", "list"]).await;
    assert_eq!(nobody.code, 2, "{}", nobody.err);
    assert!(nobody.err.contains("streamspace login"), "{}", nobody.err);

    let file = person.home.path().join(".config/streamspace/credentials.toml");
    let refused = person.logs_in("sk_wrong\n").await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("request id") && refused.err.contains("hint:"), "{}", refused.err);
    assert!(!refused.err.contains("sk_wrong") && !file.exists());

    let accepted = person.logs_in(&format!("{}\n", person.server.key())).await;
    assert_eq!(accepted.code, 0, "{}", accepted.err);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    person.succeeds(&["jobs", "list"]).await;

    let elsewhere = person.says(&["jobs", "list", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(elsewhere.code, 2, "a saved key goes to its own server only: {}", elsewhere.err);

    person.succeeds(&["logout"]).await;
    assert!(!fs::read_to_string(&file).unwrap().contains("sk_"));
    assert_eq!(person.says(&["jobs", "list"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_one_scope_logs_in_and_is_told_which_it_lacks() {
    let person = Person::new().await;
    let file = person.home.path().join("writer.key");
    let create = ["admin", "api-keys", "create", "writer", "--role", "operator", "--scope", "jobs.write"];
    let create = [&create[..], &["--key-file", file.to_str().unwrap()]].concat();
    let (status, output) = person.server.installation.run(&create).await;
    assert!(status.success(), "{output}");

    let accepted = person.logs_in(&fs::read_to_string(&file).unwrap()).await;
    assert_eq!(accepted.code, 0, "{}", accepted.err);
    let refused = person.says(&["jobs", "list"]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("hint: ") && refused.err.contains("--scope jobs.read"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_jobs_each_says_how_its_change_went() {
    let person = Person::logged_in().await;
    let _alone = QUEUE.lock().await;
    let job = person.stuck_job().await;
    let missing = "01939c5e-0000-7000-8000-000000000000";
    let said = person.says(&["jobs", "cancel", missing, &job]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.contains(missing) && !said.err.contains(&job), "{}", said.err);
    assert!(said.out.contains(&job) && !said.out.contains(missing), "{}", said.out);
    let said = person.says(&["jobs", "cancel", &job, missing, "--wait"]).await;
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.out.contains(&job), "{}", said.out);
    person.succeeds(&["queues", "resume", "maintenance"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_bring_server_and_key_in_the_environment() {
    let person = Person::new().await;
    let mut command = person.command(&["queues", "list", "-q"]);
    command.env_remove("HOME");
    command.env("STREAMSPACE_URL", &person.server.url).env("STREAMSPACE_API_KEY", person.server.key());
    let said: Said = command.output().await.unwrap().into();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.lines().any(|queue| queue == "maintenance"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_how_a_job_ended() {
    let person = Person::logged_in().await;
    let _alone = QUEUE.lock().await;

    let job = person.stuck_job().await;
    let waits = person.succeeds(&["jobs", "show", &job]).await;
    assert!(waits.contains("paused"), "{waits}");
    let timed_out = person.says(&["jobs", "watch", &job, "--timeout", "1s"]).await;
    assert_eq!(timed_out.code, 5, "{}", timed_out.err);
    assert!(timed_out.err.contains("queued") && timed_out.err.contains("goes on"), "{}", timed_out.err);

    person.succeeds(&["jobs", "cancel", &job, "--wait"]).await;
    assert_eq!(person.says(&["jobs", "watch", &job]).await.code, 4);
    // Cancelling what is over answers how it ended.
    assert!(person.succeeds(&["jobs", "cancel", &job]).await.contains("cancelled"));

    person.succeeds(&["jobs", "retry", &job]).await;
    person.succeeds(&["queues", "resume", "maintenance"]).await;
    let done = person.says(&["jobs", "watch", &job]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("succeeded"), "{}", done.out);

    let failed = "update jobs set state = 'failed', row_version = row_version + 1,
                     errors = '[{\"attempt\": 1, \"at\": \"2026-01-01T00:00:00Z\", \"kind\": \"error\", \"message\": \"disk full\"}]'
                  where id = ";
    let failed = sqlx::AssertSqlSafe(format!("{failed}'{job}'"));
    person.server.installation.connect().await.execute(sqlx::raw_sql(failed)).await.unwrap();
    let said = person.says(&["jobs", "watch", &job]).await;
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(said.out.contains("disk full"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_started_job_is_waited_for_and_printed_in_every_form() {
    let person = Person::logged_in().await;
    let _alone = QUEUE.lock().await;
    let run = ["schedules", "run", "jobs.prune", "--wait", "--timeout", "60s"];
    let said = person.says(&run).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("jobs.prune") && said.out.contains("succeeded"), "{}", said.out);

    let job = person.json(&run).await;
    assert_eq!(job["state"], "succeeded");
    let id = job["id"].as_str().unwrap();
    let shown = person.json(&["jobs", "show", id]).await;
    assert_eq!(shown, job);
    let yaml = person.succeeds(&["jobs", "show", id, "-o", "yaml"]).await;
    assert!(yaml.starts_with(&format!("id: {id}\n")), "{yaml}");
    assert_eq!(person.succeeds(&["jobs", "show", id, "-q"]).await, format!("{id}\n"));
    let table = person.succeeds(&["jobs", "list", "--kind", "jobs.prune"]).await;
    assert!(table.starts_with("ID ") && table.contains(id) && !table.contains('\u{1b}'), "{table}");

    let changes = person.succeeds(&["jobs", "watch", id, "-o", "json"]).await;
    let last: Value = serde_json::from_str(changes.lines().last().unwrap()).unwrap();
    assert_eq!(last["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_watching_and_not_the_job() {
    let person = Person::logged_in().await;
    let _alone = QUEUE.lock().await;
    let job = person.stuck_job().await;
    let mut child = person.command(&["jobs", "watch", &job]).spawn().unwrap();
    assert!(line(&mut child).await.contains("queued"));
    let pid = nix::unistd::Pid::from_raw(child.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let said: Said = child.wait_with_output().await.unwrap().into();
    assert_eq!(said.code, 130, "{}", said.err);
    assert_eq!(person.json(&["jobs", "show", &job]).await["state"], "queued");
    person.succeeds(&["queues", "resume", "maintenance"]).await;
    person.succeeds(&["jobs", "watch", &job]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_connections_that_break() {
    let person = Person::logged_in().await;
    let _alone = QUEUE.lock().await;
    let port = person.server.url.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::to(port).await.unwrap();
    let job = person.stuck_job().await;
    let mut watch = person.command(&["jobs", "watch", &job]);
    watch.env("STREAMSPACE_URL", format!("http://127.0.0.1:{}", proxy.port()));
    let mut child = watch.env("STREAMSPACE_API_KEY", person.server.key()).spawn().unwrap();
    assert!(line(&mut child).await.contains("queued"));
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.refuse();
    tokio::time::sleep(Duration::from_secs(2)).await;
    person.succeeds(&["queues", "resume", "maintenance"]).await;
    person.succeeds(&["jobs", "watch", &job]).await;
    proxy.restore();
    let said: Said = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("succeeded"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_over_pages_to_their_limit() {
    let person = Person::logged_in().await;
    let rows = "insert into jobs (id, tenant_id, run_at, order_at, created_at, finished_at, release, timeout_ms, max_attempts,
                                  state, kind, queue, lane, creator_type, args)
                select uuidv7_of_test.id, t.id, now(), now(), now(), now(), 1, 1000, 1, 'succeeded', 'test.page', 'batch',
                       'batch', 'system', '{}'
                from tenants t, (select gen_random_uuid() as id from generate_series(1, 450)) uuidv7_of_test
                where t.slug = 'default'";
    person.server.installation.connect().await.execute(rows).await.unwrap();
    let list = ["jobs", "list", "--kind", "test.page", "-q", "--limit"];
    let ids = person.succeeds(&[&list[..], &["420"]].concat()).await;
    assert_eq!(ids.lines().collect::<BTreeSet<_>>().len(), 420);
    let all = person.succeeds(&[&list[..], &["1000"]].concat()).await;
    assert_eq!(all.lines().collect::<BTreeSet<_>>().len(), 450);
    let said = person.says(&["jobs", "list", "--kind", "test.page", "--limit", "1"]).await;
    assert!(said.err.contains("--limit"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_changed_and_removed() {
    let person = Person::logged_in().await;
    let arguments = r#"{"change": "retry", "filter": {"queue": "batch"}}"#;
    let create =
        ["schedules", "create", "--name", "nightly", "--kind", "jobs.change", "--arguments", arguments];
    let refused = person.says(&[&create[..], &["--cron", "* *"]].concat()).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("\n  cron: "), "{}", refused.err);

    let made =
        person.json(&[&create[..], &["--cron", "30 4 * * *", "--time-zone", "Europe/Berlin"]].concat()).await;
    assert_eq!(made["cron"], "30 4 * * *");
    assert!(person.succeeds(&["schedules", "list"]).await.contains("nightly"));

    let changed =
        person.json(&["schedules", "update", "nightly", "--jitter", "30s", "--overlap", "allow"]).await;
    assert_eq!((&changed["jitter"], &changed["overlap"]), (&"30s".into(), &"allow".into()));
    for kept in ["id", "cron", "timeZone", "arguments", "catchUp"] {
        assert_eq!(changed[kept], made[kept], "{kept}");
    }
    assert_eq!(person.says(&["schedules", "update", "nightly"]).await.code, 2, "nothing to change");

    let times = person.succeeds(&["schedules", "preview", "nightly", "--count", "3"]).await;
    assert!(times.lines().count() == 3 && times.lines().all(|time| time.contains(" 04:30:00 ")), "{times}");
    person.succeeds(&["schedules", "pause", "nightly"]).await;
    assert_eq!(person.json(&["schedules", "show", "nightly"]).await["paused"], true);
    person.succeeds(&["schedules", "resume", "nightly"]).await;
    person.succeeds(&["schedules", "run", "nightly"]).await;
    person.succeeds(&["schedules", "fires", "nightly"]).await;
    person.succeeds(&["schedules", "delete", "nightly"]).await;
    assert_eq!(person.says(&["schedules", "show", "nightly"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_limited_and_workers_listed() {
    let person = Person::logged_in().await;
    let limited =
        person.json(&["queues", "set", "maintenance", "--max-running", "7", "--rate", "50/s"]).await;
    assert_eq!((&limited["maxRunning"], &limited["rate"]), (&7.into(), &"50/s".into()));
    let lifted =
        person.json(&["queues", "set", "maintenance", "--max-running", "none", "--rate", "none"]).await;
    assert_eq!((&lifted["maxRunning"], &lifted["rate"]), (&Value::Null, &Value::Null));
    assert!(person.succeeds(&["queues", "show", "maintenance"]).await.contains("no limit"));

    let workers = person.succeeds(&["workers", "list", "-q"]).await;
    // One that was killed before may still be listed for as long as its lease.
    let mut live = false;
    for worker in workers.lines() {
        live |= person.says(&["workers", "show", worker]).await.out.contains("live");
    }
    assert!(live, "{workers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do() {
    let person = Person::logged_in().await;
    let unknown = person.says(&["jobs", "show", "01939c5e-0000-7000-8000-000000000000"]).await;
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("Not found") && unknown.err.contains("hint:"), "{}", unknown.err);
    assert_eq!(person.says(&["jobs", "retry"]).await.code, 2);
    assert_eq!(person.says(&["jobs", "cancel", "--all"]).await.code, 2, "nobody can be asked");
    assert_eq!(person.says(&["jobs", "show", "7"]).await.code, 2);

    let make = ["admin", "api-keys", "create", "viewer", "--role", "viewer"];
    let (_, made) = person.server.installation.run(&make).await;
    let key = made.split_whitespace().find(|word| word.starts_with("sk_")).unwrap();
    let mut command = person.command(&["queues", "pause", "maintenance"]);
    command.env("STREAMSPACE_API_KEY", key);
    let said: Said = command.output().await.unwrap().into();
    assert_eq!(said.code, 1);
    assert!(said.err.contains("STREAMSPACE_API_KEY may not do this"), "{}", said.err);
}
