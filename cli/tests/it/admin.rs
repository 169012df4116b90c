//! Ways in: the first start's key, further tenants and keys; and the master key.

use std::{fs, os::unix::fs::PermissionsExt};

use sqlx::Executor;

use crate::installation::{DEADLINE, Installation};

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
