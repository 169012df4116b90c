//! What of signing in is over by time.

use streamspace_common::Role;
use streamspace_domain::{Ports, identity::jobs::Expire};
use streamspace_queue::{self as queue, State};

use crate::bed::Bed;

/// Of each kind one that is over, and one that is not. `$T` is the tenant, `$U` a person.
const ROWS: &str = "
    create temporary table ends on commit drop as
        select 'over' as what, now() - interval '40 days' as at union select 'good', now() + interval '1 hour';
    insert into sign_ins (id, tenant_id, user_id, kind, method, secret_hash, created_at, last_used_at, expires_at)
    select gen_random_uuid(), '$T', '$U', 'browser', 'password', sha256(what::bytea), at, at, at from ends;
    insert into used_refresh_tokens (secret_hash, tenant_id, sign_in_id, expires_at)
    select sha256(what::bytea), '$T', s.id, at from ends, sign_ins s where s.expires_at > now();
    insert into sign_in_challenges (secret_hash, tenant_id, user_id, expires_at)
    select sha256(what::bytea), '$T', '$U', at from ends;
    insert into cli_requests (secret_hash, tenant_id, user_id, sign_in_id, allowed, redirect_uri, challenge, expires_at)
    select sha256(what::bytea), '$T', '$U', s.id, what = 'over', 'http://127.0.0.1:1/', sha256('x'), at
    from ends, sign_ins s where s.expires_at > now();
    insert into mailed_links (secret_hash, tenant_id, user_id, purpose, email, created_at, expires_at)
    select sha256(what::bytea), '$T', '$U', 'reset', 'u@example.org', at, at from ends;
    insert into sign_in_failures (address, failures, last_at) select what, 1, at from ends;
    insert into api_keys (id, tenant_id, user_id, name, prefix, secret_hash, scopes, hourly_limit, expires_at)
    select gen_random_uuid(), '$T', '$U', what, 'sk_', sha256(what::bytea), '{*}', 1, at from ends;";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_forgotten_and_nothing_else() {
    let bed = Bed::new().await;
    let who = bed.person(bed.tenant, Role::User).await;
    let user = who.user.expect("a person").to_string();
    bed.execute(&ROWS.replace("$T", &bed.tenant.to_string()).replace("$U", &user)).await;
    let worker = bed.worker(&Ports::default());
    let mut tx = bed.tx(&who);
    let expire = queue::enqueue(&mut tx, Expire {}).await.expect("enqueued").id;
    tx.commit().await.expect("committed");
    assert_eq!(bed.ends(expire).await.state, State::Succeeded);
    for table in [
        "sign_ins",
        "used_refresh_tokens",
        "sign_in_challenges",
        "cli_requests",
        "mailed_links",
        "sign_in_failures",
    ] {
        assert_eq!(bed.number(&format!("select count(*) from {table}")).await, 1, "{table}");
    }
    assert_eq!(bed.number("select count(*) from api_keys where active and name = 'good'").await, 1);
    assert_eq!(bed.number("select count(*) from api_keys where not active and name = 'over'").await, 1);
    assert_eq!(bed.number("select count(*) from audit where action = 'api_keys.expire'").await, 1);
    worker.stop().await;
}
