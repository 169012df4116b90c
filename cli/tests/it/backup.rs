//! Backup of a running installation, restore into another.

use std::fs;

use sqlx::Executor;

use crate::installation::{DEADLINE, Installation};

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_backed_up_and_restored_elsewhere() {
    let source = Installation::new("source").await;
    let up = source.up().await;
    let mut connection = source.connect().await;
    connection
        .execute("insert into tenants (id, name, slug) values (gen_random_uuid(), 'Acme', 'acme')")
        .await
        .unwrap();
    // Somebody keeps writing two rows at a time: a backup has both of a pair or none.
    let writing = tokio::spawn(async move {
        loop {
            let pair = "with id as (select gen_random_uuid() as id),
                             t as (insert into tenants (id, name, slug) select id, 'pair', 'pair-' || id from id)
                        insert into leases (name, boot_id, until) select 'pair-' || id, id, now() from id";
            connection.execute(pair).await.unwrap();
        }
    });
    let file = source.dir.join("backup");
    let file = file.to_str().unwrap();
    let (status, output) = source.run(&["admin", "backup", file]).await;
    assert!(status.success() && output.contains("SHA-256"), "{output}");
    writing.abort();
    let (status, output) = source.run(&["admin", "backup", file]).await;
    assert!(!status.success() && output.contains("--force"), "{output}");
    let (status, output) = source.run(&["admin", "restore", file]).await;
    assert!(!status.success() && output.contains("stop it first"), "{output}");

    let target = Installation::fresh("target");
    let (status, output) = target.run(&["admin", "restore", file]).await;
    assert!(status.success(), "{output}");
    let other = target.up().await;
    let mut restored = target.connect().await;
    let (acme, pairs, leases): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from tenants where slug = 'acme'), (select count(*) from tenants where name = 'pair'),
                (select count(*) from leases where name like 'pair-%')",
    )
    .fetch_one(&mut restored)
    .await
    .unwrap();
    assert_eq!(acme, 1);
    assert_eq!(pairs, leases);

    restored
        .execute("insert into tenants (id, name, slug) values (gen_random_uuid(), 'Later', 'later')")
        .await
        .unwrap();
    other.term();
    assert!(other.exited(DEADLINE).await.success());
    let (status, output) = target.run(&["admin", "restore", file, "--force"]).await;
    assert!(status.success(), "{output}");
    let other = target.up().await;
    let later: i64 = sqlx::query_scalar("select count(*) from tenants where slug = 'later'")
        .fetch_one(&mut target.connect().await)
        .await
        .unwrap();
    assert_eq!(later, 0);
    drop((up, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_changes_nothing() {
    let installation = Installation::new("damaged").await;
    let up = installation.up().await;
    let file = installation.dir.join("backup");
    let name = file.to_str().unwrap();
    assert!(installation.run(&["admin", "backup", name]).await.0.success());
    up.term();
    up.exited(DEADLINE).await;

    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(&file, bytes).unwrap();
    let (status, output) = installation.run(&["admin", "restore", name, "--force"]).await;
    assert!(!status.success() && output.contains("is damaged"), "{output}");
    // Without its manifest only pg_restore can tell, in the middle of it.
    fs::remove_file(installation.dir.join("backup.json")).unwrap();
    let (status, output) = installation.run(&["admin", "restore", name, "--force"]).await;
    assert!(!status.success() && output.contains("as it was"), "{output}");
    let _up = installation.up().await;
    let tables: i64 =
        sqlx::query_scalar("select count(*) from pg_class where relname = 'jobs' and relkind = 'r'")
            .fetch_one(&mut installation.connect().await)
            .await
            .unwrap();
    assert_eq!(tables, 1);
}
