//! Backup of a running installation, restore into another.

use std::fs;

use sqlx::{Connection, Executor, PgConnection};
use streamspace_testkit::Postgres;

use crate::installation::{DEADLINE, Installation, streamspace};

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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_take_its_name_leaves_no_manifest_and_no_draft() {
    let installation = Installation::new("nameless").await;
    let _up = installation.up().await;
    let folder = installation.dir.join("backups");
    // Nothing replaces a folder by a file.
    fs::create_dir_all(folder.join("backup")).unwrap();
    let (status, output) =
        installation.run(&["admin", "backup", folder.join("backup").to_str().unwrap(), "--force"]).await;
    assert!(!status.success() && output.contains("cannot make"), "{output}");
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["backup"]);
}

/// Without its manifest only pg_restore can tell, in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_cut_anywhere_changes_nothing() {
    let source = Installation::new("cut").await;
    let up = source.up().await;
    let many = "insert into tenants (id, name, slug)
                select gen_random_uuid(), 'Many', 'many-' || gen_random_uuid() from generate_series(1, 5000)";
    source.connect().await.execute(many).await.unwrap();
    let file = source.dir.join("backup");
    assert!(source.run(&["admin", "backup", file.to_str().unwrap()]).await.0.success());
    drop(up);
    let whole = fs::read(&file).unwrap();

    let target = Postgres::shared().await.database().await.unwrap();
    let (status, output) =
        streamspace().args(["migrate", "--database-url", target.url()]).run(DEADLINE).await.unwrap();
    assert!(status.success(), "{output}");
    let mut connection = PgConnection::connect(target.url()).await.unwrap();
    let before = "insert into tenants (id, name, slug) values (gen_random_uuid(), 'Before', 'before')";
    connection.execute(before).await.unwrap();
    let state = "select (select count(*) from pg_class), (select count(*) from pg_constraint),
                        (select string_agg(slug, ' ' order by slug) from tenants)";
    let before: (i64, i64, String) = sqlx::query_as(state).fetch_one(&mut connection).await.unwrap();

    let cut = source.dir.join("cut");
    let restore = ["admin", "restore", cut.to_str().unwrap(), "--force", "--database-url", target.url()];
    for length in [whole.len() / 3, whole.len() / 2, whole.len() - 7000, whole.len() - 20, whole.len() - 1] {
        fs::write(&cut, &whole[..length]).unwrap();
        let (status, output) = source.run(&restore).await;
        assert!(!status.success() && output.contains("as it was"), "{length} of {}: {output}", whole.len());
        let after: (i64, i64, String) = sqlx::query_as(state).fetch_one(&mut connection).await.unwrap();
        assert_eq!(after, before, "{length} of {}", whole.len());
    }
    fs::write(&cut, &whole).unwrap();
    let (status, output) = source.run(&restore).await;
    assert!(status.success(), "{output}");
    let many: i64 = sqlx::query_scalar("select count(*) from tenants where name = 'Many'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(many, 5000);
}
