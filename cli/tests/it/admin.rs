//! Ways in: the first start's key, further tenants and keys; and the master key.

use std::{fs, os::unix::fs::PermissionsExt};

use sqlx::Executor;
use streamspace_testkit::{Process, eventually};

use crate::installation::{DEADLINE, Installation, streamspace};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_leaves_one_key_in_a_file_and_nowhere_else() {
    let installation = Installation::fresh("key");
    let up = installation.up().await;
    let file = installation.dir.join("admin-key");
    let key = fs::read_to_string(&file).unwrap();
    assert!(key.starts_with("sk_"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(up.output().contains(&file.display().to_string()), "{}", up.output());
    assert!(!up.output().contains(key.trim()), "no terminal, no key");
    up.term();
    up.exited(DEADLINE).await;

    installation.up().await;
    assert_eq!(fs::read_to_string(&file).unwrap(), key, "the second start makes none");
    let (tenants, owners, keys): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from tenants where slug = 'default' and tier = 'enterprise'),
                (select count(*) from users where role = 'owner' and platform_admin), (select count(*) from api_keys)",
    )
    .fetch_one(&mut installation.connect().await)
    .await
    .unwrap();
    assert_eq!((tenants, owners, keys), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn further_tenants_and_keys_are_made_beside_a_running_installation() {
    let installation = Installation::new("admin").await;
    let _up = installation.up().await;
    let create = ["admin", "tenants", "create", "Acme & Co", "--owner-email", "ann@acme.test"];
    let (status, output) = installation.run(&create).await;
    assert!(status.success() && output.contains("tenant acme-co "), "{output}");
    let (status, output) = installation.run(&create).await;
    assert!(!status.success() && output.contains("is taken"), "{output}");
    let standard = ["admin", "tenants", "create", "Beta", "--owner-email", "bea@beta.test"];
    let standard = [&standard[..], &["--set", "tenants.default_tier=standard"]].concat();
    assert!(installation.run(&standard).await.0.success());
    let tiers: String =
        sqlx::query_scalar("select string_agg(slug || ' ' || tier, ', ' order by slug) from tenants where slug in ('acme-co', 'beta')")
            .fetch_one(&mut installation.connect().await)
            .await
            .unwrap();
    assert_eq!(tiers, "acme-co free, beta standard");

    let key = ["admin", "api-keys", "create", "ci", "--tenant", "acme-co"];
    let of_owner = [&key[..], &["--user", "ann@acme.test", "--expires-in", "90d"]].concat();
    let (status, output) = installation.run(&of_owner).await;
    assert!(status.success() && output.contains("sk_"), "{output}");
    let of_role = [&key[..], &["--role", "viewer", "--scope", "jobs.read"]].concat();
    let (status, output) = installation.run(&of_role).await;
    assert!(status.success() && output.contains("sk_"), "{output}");
    let (status, output) = installation.run(&[&key[..], &["--user", "bob@acme.test"]].concat()).await;
    assert!(!status.success() && output.contains("no such person"), "{output}");

    let file = installation.dir.join("ci.key");
    let to_file =
        ["admin", "api-keys", "create", "ci", "--role", "viewer", "--key-file", file.to_str().unwrap()];
    let (status, output) = installation.run(&[&to_file[..], &["--tenant", "acme"]].concat()).await;
    assert!(!status.success() && output.contains("no such tenant") && !file.exists(), "{output}");
    let right = [&to_file[..], &["--tenant", "acme-co"]].concat();
    let (status, output) = installation.run(&right).await;
    assert!(status.success() && !output.contains("sk_"), "{output}");
    let key = fs::read_to_string(&file).unwrap();
    assert!(key.starts_with("sk_") && fs::metadata(&file).unwrap().permissions().mode() & 0o777 == 0o600);
    let (status, output) = installation.run(&right).await;
    assert!(!status.success() && output.contains("cannot make"), "{output}");
    assert_eq!(fs::read_to_string(&file).unwrap(), key);
    let keys: i64 = sqlx::query_scalar(
        "select count(*) from api_keys where role = 'viewer' and not scopes @> '{jobs.read}'",
    )
    .fetch_one(&mut installation.connect().await)
    .await
    .unwrap();
    assert_eq!(keys, 1, "what could not be written down was not made");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_granted_and_taken_back_in_the_audit() {
    let installation = Installation::new("platform").await;
    let _up = installation.up().await;
    let create = ["admin", "tenants", "create", "Acme", "--owner-email", "ann@acme.test"];
    assert!(installation.run(&create).await.0.success());
    let mut connection = installation.connect().await;
    for (change, expected) in [("grant", true), ("revoke", false)] {
        let (status, output) =
            installation.run(&["admin", "platform", change, "Ann@acme.test", "--tenant", "acme"]).await;
        assert!(status.success() && output.contains("platform administrator"), "{output}");
        let (is_admin, audited): (bool, bool) = sqlx::query_as(
            "select platform_admin,
                    exists (select from audit a where a.tenant_id = u.tenant_id and a.resource_id = u.id::text and action = $1)
             from users u where email = 'ann@acme.test'",
        )
        .bind(format!("platform.{change}"))
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert!(is_admin == expected && audited, "{change}");
    }
    let (status, output) = installation.run(&["admin", "platform", "grant", "ann@acme.test"]).await;
    assert!(!status.success() && output.contains("no such person"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_key_takes_over_from_the_old_one() {
    let installation = Installation::new("rotate").await;
    let _up = installation.up().await;
    let mut connection = installation.connect().await;
    let table =
        "create table vault (id uuid primary key, secret bytea); comment on column vault.secret is 'sealed'";
    connection.execute(table).await.unwrap();
    let file = installation.dir.join("master.key");
    let keys = |text: String| text.lines().filter(|line| !line.starts_with('#')).count();

    let (status, output) = installation.run(&["admin", "keys", "rotate"]).await;
    assert!(status.success(), "{output}");
    assert_eq!(keys(fs::read_to_string(&file).unwrap()), 2, "the old one still opens");
    let (status, output) = installation.run(&["admin", "keys", "retire"]).await;
    assert!(status.success(), "{output}");
    assert_eq!(keys(fs::read_to_string(&file).unwrap()), 1);
    // A value under a key that is not in the file: nothing is retired over its head.
    connection
        .execute("insert into vault values (gen_random_uuid(), decode('01' || repeat('ab', 60), 'hex'))")
        .await
        .unwrap();
    let (status, output) = installation.run(&["admin", "keys", "rotate"]).await;
    assert!(!status.success() && output.contains("vault.secret"), "{output}");
    assert_eq!(keys(fs::read_to_string(&file).unwrap()), 2);
}

/// Signs the administrator of the first start in; answers the URL and an access token.
async fn sign_in(installation: &Installation, up: &Process) -> (String, String) {
    let line = up.line("runs at", DEADLINE).await;
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().trim_end_matches('/');
    let _ = rustls::crypto::ring::default_provider().install_default();
    let password = fs::read_to_string(installation.dir.join("admin-password")).unwrap();
    let (email, password) = password.trim().split_once('\n').unwrap();
    let body = serde_json::json!({ "email": email, "password": password.trim() });
    let asked = reqwest::Client::new().post(format!("{url}/api/v1/auth/login")).json(&body);
    let answer =
        eventually(DEADLINE, "the API answers", async || asked.try_clone().unwrap().send().await.ok()).await;
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["user"]["failedLoginCount"], 0);
    (url.to_owned(), answer["accessToken"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_failures_have_closed_is_opened() {
    let installation = Installation::new("open").await;
    let up = installation.up().await;
    let (url, _) = sign_in(&installation, &up).await;
    let guess = async || {
        let body =
            serde_json::json!({ "email": "nobody@example.org", "password": "a guess", "tenant": "default" });
        let asked = reqwest::Client::new().post(format!("{url}/api/v1/auth/login")).json(&body);
        asked.send().await.unwrap().status()
    };
    for _ in 0..20 {
        assert_eq!(guess().await, 401);
    }
    assert_eq!(guess().await, 429);
    let open = ["admin", "open-address", "127.0.0.1"];
    let (status, output) = installation.run(&open).await;
    assert!(status.success() && output.contains("may sign in again"), "{output}");
    assert_eq!(guess().await, 401);
    let audited =
        "select count(*) from audit where action = 'sign_ins.open_address' and resource_id = '127.0.0.1'";
    assert_eq!(number(&installation, audited).await, 1);
    let (status, output) = installation.run(&["admin", "open-address", "192.0.2.1"]).await;
    assert!(status.success() && output.contains("nothing was changed"), "{output}");
}

/// What was sealed is lost, and people can sign in.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_is_lost_is_followed_by_another() {
    let installation = Installation::new("lost-key").await;
    let up = installation.up().await;
    sign_in(&installation, &up).await;
    let (_, output) = installation.run(&["doctor"]).await;
    assert!(output.contains("pass  stored secrets"), "{output}");
    up.term();
    up.exited(DEADLINE).await;
    fs::remove_file(installation.dir.join("master.key")).unwrap();

    let up = installation.up().await;
    let (url, token) = sign_in(&installation, &up).await;
    let profile = reqwest::Client::new().get(format!("{url}/api/v1/auth/profile")).bearer_auth(&token);
    assert_eq!(profile.send().await.unwrap().status(), 200);
    assert!(up.output().contains("made a new one"), "{}", up.output());
    let (status, output) = installation.run(&["doctor"]).await;
    assert!(!status.success() && output.contains("1 of 2 were sealed under a key"), "{output}");
}

/// Prepared, it does so while people sign in.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_master_key_takes_over_while_everything_runs() {
    let installation = Installation::new("prepare").await;
    let up = installation.up().await;
    let done = async |args: &[&str]| {
        let (status, output) = installation.run(&[&["admin", "keys"], args].concat()).await;
        assert!(status.success(), "{args:?}: {output}");
        output
    };
    assert!(done(&["rotate", "--prepare"]).await.contains("prepared"));
    up.term();
    assert!(up.exited(DEADLINE).await.success(), "{}", up.output());

    let up = installation.up().await;
    let client = reqwest::Client::new();
    let (url, token) = sign_in(&installation, &up).await;
    let mfa = async |what: &str, body: &str| {
        let request = client.post(format!("{url}/api/v1/auth/mfa/{what}")).bearer_auth(&token);
        request
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(mfa("enroll", "{}").await, 200);
    assert!(!done(&["rotate"]).await.contains("Not prepared"));
    // It opens what was sealed anew behind its back: the code is what is wrong.
    assert_eq!(mfa("verify", r#"{"code": "000000"}"#).await, 422);
    sign_in(&installation, &up).await;
    assert!(done(&["rotate"]).await.contains("Not prepared"));
}

async fn number(installation: &Installation, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut installation.connect().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_listed_suspended_deleted_and_brought_back() {
    let installation = Installation::new("tenants").await;
    let _up = installation.up().await;
    let tenants = async |args: &[&str]| {
        let (status, output) = installation.run(&[&["admin", "tenants"], args].concat()).await;
        (status.code(), output)
    };
    let done = async |args: &[&str]| {
        let (code, output) = tenants(args).await;
        assert_eq!(code, Some(0), "{args:?}: {output}");
        output
    };
    done(&["create", "Acme", "--owner-email", "ann@acme.test", "--contact-email", "office@acme.test"]).await;
    let table = done(&["list"]).await;
    assert!(table.contains("SLUG") && table.contains("acme") && table.contains("default"), "{table}");
    assert!(!table.contains("platform"), "{table}");
    assert_eq!(done(&["list", "-q"]).await.lines().collect::<Vec<_>>(), ["default", "acme"]);
    let shown = done(&["show", "acme", "-o", "json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["slug"], &shown["active"], &shown["people"]),
        (&"acme".into(), &true.into(), &1.into())
    );
    assert_eq!(shown["owners"][0], "ann@acme.test");
    let (code, output) = tenants(&["show", "nobody"]).await;
    assert!(code == Some(1) && output.contains("no such tenant"), "{output}");

    // What locks people out is asked about, and nobody can be asked here.
    for ask in [&["suspend", "acme"][..], &["delete", "acme"], &["delete", "acme", "--now"]] {
        let (code, output) = tenants(ask).await;
        assert!(code == Some(2) && output.contains("--yes"), "{output}");
    }
    assert!(done(&["suspend", "acme", "--yes"]).await.contains("acme is suspended"));
    assert!(done(&["list"]).await.contains("suspended"));
    assert!(done(&["resume", "acme"]).await.contains("acme is active"));
    assert!(done(&["set-tier", "acme", "enterprise"]).await.contains("enterprise"));

    let deleted = done(&["delete", "acme", "--yes"]).await;
    assert!(deleted.contains("admin tenants undelete acme"), "{deleted}");
    let days = "select round(extract(epoch from delete_at - now()) / 86400)::bigint from tenants where slug = 'acme'";
    assert_eq!(number(&installation, days).await, 7);
    let (code, output) = tenants(&["resume", "acme"]).await;
    assert!(code == Some(1) && output.contains("undelete it first"), "{output}");
    assert!(done(&["undelete", "acme"]).await.contains("acme is active"));
    let (code, output) = tenants(&["undelete", "acme"]).await;
    assert!(code == Some(1) && output.contains("not to be deleted"), "{output}");
    let audited: String = sqlx::query_scalar(
        "select string_agg(action, ' ' order by at, id) from audit
         where tenant_id = (select id from tenants where slug = 'acme') and action like 'tenants.%'",
    )
    .fetch_one(&mut installation.connect().await)
    .await
    .unwrap();
    assert_eq!(
        audited,
        "tenants.create tenants.suspend tenants.resume tenants.set_tier tenants.delete tenants.undelete"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_printed_once_and_kept_as_a_hash() {
    let installation = Installation::new("invite").await;
    let _up = installation.up().await;
    let invite = ["admin", "tenants", "invite", "--email", "ann@acme.test", "--tier", "standard"];
    let (status, output) = installation.run(&invite).await;
    assert!(status.success() && output.contains("Registration is closed here"), "{output}");
    let open = [&invite[..], &["--expires-in", "12h", "--set", "tenants.registration=invite"]].concat();
    let (status, output) = installation.run(&open).await;
    assert!(status.success() && !output.contains("is closed"), "{output}");
    let token = output.lines().find(|line| line.starts_with("ti_")).unwrap().trim().to_owned();
    let stored = format!(
        "select count(*) from tenant_invitations t where strpos(to_jsonb(t)::text, '{token}') = 0
           and tier = 'standard' and used_at is null and expires_at > now() + interval '11 h'"
    );
    assert_eq!(number(&installation, &stored).await, 2, "of 12 h and of 7 days");
    let told = format!("select count(*) from audit a where strpos(to_jsonb(a)::text, '{token}') > 0");
    assert_eq!(number(&installation, &told).await, 0);
    let (status, output) = installation.run(&[&invite[..], &["--expires-in", "91d"]].concat()).await;
    assert!(!status.success() && output.contains("at most 90d"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_whose_process_is_killed_is_finished_by_the_next() {
    let installation = Installation::new("deletion").await;
    let up = async || {
        let process = installation.command(&["up", "--set", "jobs.lease=3s"]).start().unwrap();
        process.line("runs at", DEADLINE).await;
        process
    };
    let first = up().await;
    let create = ["admin", "tenants", "create", "Acme", "--owner-email", "ann@acme.test"];
    assert!(installation.run(&create).await.0.success());
    let mut connection = installation.connect().await;
    let rows = 30_000;
    let fill = format!(
        "insert into idempotency_keys (tenant_id, actor, method, path, key, body_hash, expires_at)
         select t.id, 'user', 'POST', '/', n::text, '', now() + interval '1 day'
         from tenants t, generate_series(1, {rows}) n where t.slug = 'acme'"
    );
    connection.execute(sqlx::AssertSqlSafe(fill)).await.unwrap();
    let (status, output) = installation.run(&["admin", "tenants", "delete", "acme", "--now", "--yes"]).await;
    assert!(status.success(), "{output}");
    // The minute has passed.
    let passes = "update tenants set delete_at = now() - interval '1 second' where slug = 'acme';
                  update jobs set run_at = now() where kind = 'identity.delete_tenant'";
    connection.execute(sqlx::raw_sql(passes)).await.unwrap();
    let left = "select count(*) from idempotency_keys";
    eventually(DEADLINE, "some of it is gone", async || {
        (number(&installation, left).await < rows).then_some(())
    })
    .await;
    first.kill9().await;
    assert!(number(&installation, left).await > 0, "it was killed in the middle");
    let (status, output) = installation.run(&["admin", "tenants", "undelete", "acme"]).await;
    assert!(!status.success() && output.contains("has begun"), "{output}");

    let _second = up().await;
    eventually(DEADLINE, "all of it is gone", async || {
        (number(&installation, "select count(*) from tenants where slug = 'acme'").await == 0).then_some(())
    })
    .await;
    assert_eq!(number(&installation, left).await, 0);
    assert_eq!(number(&installation, "select count(*) from users").await, 1, "those of others");
    let kept = "select count(*) from audit where action = 'tenants.create' and after->>'slug' = 'acme'";
    assert_eq!(number(&installation, kept).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_audit_is_found() {
    let installation = Installation::new("audit").await;
    let up = installation.up().await;
    let (url, _) = sign_in(&installation, &up).await;
    let key = fs::read_to_string(installation.dir.join("admin-key")).unwrap();
    // Of itself it begins within five minutes.
    let seal = streamspace().args(["schedules", "run", "audit.seal"]).env("STREAMSPACE_URL", url);
    let (status, output) = seal.env("STREAMSPACE_API_KEY", key.trim()).run(DEADLINE).await.unwrap();
    assert!(status.success(), "{output}");
    let verify = ["admin", "audit", "verify"];
    let sealed = eventually(DEADLINE, "everything is sealed", async || {
        let (status, output) = installation.run(&verify).await;
        assert!(status.success(), "{output}");
        output.contains(" 0 are not sealed yet").then_some(output)
    });
    let sealed = sealed.await;
    assert!(!sealed.contains("0 rows"), "the first start is in it: {sealed}");

    let changed = "update audit set action = 'nothing.happened'
                   where id = (select id from audit order by id limit 1) returning id::text";
    let row: String = sqlx::query_scalar(changed).fetch_one(&mut installation.connect().await).await.unwrap();
    let (status, output) = installation.run(&verify).await;
    assert!(!status.success() && output.contains("the audit is not what it was"), "{output}");
    assert!(output.contains(&row), "it names the row {row}: {output}");
}
