use sqlx::PgConnection;
use streamspace_common::{TeamId, TenantId, UserId};
use uuid::Uuid;

use super::{TeamRole, store::role};

/// The teams that somebody is in, until the commit.
pub(super) async fn lock_teams_of(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "select id from teams
         where tenant_id = $1 and id in (select team_id from team_members where tenant_id = $1 and user_id = $2)
         order by id for update",
        tenant.0,
        user.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// A team that loses its last owner who can sign in.
pub(super) struct Orphan {
    pub team: TeamId,
    /// Who comes next in it; those who can sign in before those who can't.
    pub next: Option<UserId>,
}

pub(super) async fn orphans(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Vec<Orphan>> {
    sqlx::query_as!(
        Orphan,
        r#"select m.team_id as "team: TeamId", n.user_id as "next?: UserId"
           from team_members m
           left join lateral (
             select o.user_id from team_members o join users u on u.tenant_id = o.tenant_id and u.id = o.user_id
             where o.tenant_id = m.tenant_id and o.team_id = m.team_id and o.user_id <> m.user_id
             order by u.active desc, array_position(array['owner', 'admin', 'member', 'viewer'], o.role),
                      o.joined_at, o.user_id
             limit 1) n on true
           where m.tenant_id = $1 and m.user_id = $2 and m.role = 'owner'
             and not exists (
               select from team_members o join users u on u.tenant_id = o.tenant_id and u.id = o.user_id and u.active
               where o.tenant_id = m.tenant_id and o.team_id = m.team_id and o.role = 'owner'
                 and o.user_id <> m.user_id)"#,
        tenant.0,
        user.0,
    )
    .fetch_all(conn)
    .await
}

/// Makes people owners; answers what each was in the team before.
pub(super) async fn make_owners(
    conn: &mut PgConnection,
    tenant: TenantId,
    owners: &[(TeamId, UserId)],
) -> sqlx::Result<Vec<(TeamId, UserId, Option<TeamRole>)>> {
    let (teams, users): (Vec<Uuid>, Vec<Uuid>) = owners.iter().map(|(team, user)| (team.0, user.0)).unzip();
    let rows = sqlx::query!(
        r#"with new as (select * from unnest($2::uuid[], $3::uuid[]) as n(team_id, user_id)),
           before as materialized (
             select m.team_id, m.user_id, m.role from team_members m join new on new.team_id = m.team_id
                                                                         and new.user_id = m.user_id
             where m.tenant_id = $1),
           made as (
             insert into team_members (tenant_id, team_id, user_id, role)
             select $1, team_id, user_id, 'owner' from new
             on conflict (tenant_id, team_id, user_id) do update set role = 'owner')
           select new.team_id as "team!: TeamId", new.user_id as "user!: UserId", b.role as "role?"
           from new left join before b using (team_id, user_id)"#,
        tenant.0,
        &teams,
        &users,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.team, row.user, row.role.as_deref().map(role))).collect())
}

pub(super) async fn delete_memberships(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
) -> sqlx::Result<Vec<(TeamId, TeamRole)>> {
    let rows = sqlx::query!(
        r#"delete from team_members where tenant_id = $1 and user_id = $2
           returning team_id as "team: TeamId", role"#,
        tenant.0,
        user.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.team, role(&row.role))).collect())
}

pub(super) async fn delete_teams(
    conn: &mut PgConnection,
    tenant: TenantId,
    teams: &[TeamId],
) -> sqlx::Result<()> {
    let teams: Vec<Uuid> = teams.iter().map(|team| team.0).collect();
    sqlx::query!("delete from teams where tenant_id = $1 and id = any($2)", tenant.0, &teams)
        .execute(conn)
        .await?;
    Ok(())
}

/// So many rows of each table of a tenant at most; answers how many.
pub(super) async fn erase(conn: &mut PgConnection, tenant: TenantId, most: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query_scalar!(
        r#"with members as (
             delete from team_members where (tenant_id, team_id, user_id) in (
               select tenant_id, team_id, user_id from team_members where tenant_id = $1 limit $2) returning 1),
           empty as (
             delete from teams t where t.id = any(array(
               select id from teams where tenant_id = $1
                 and not exists (select from team_members m where m.tenant_id = $1 and m.team_id = teams.id)
               limit $2)) returning 1)
           select (select count(*) from members) + (select count(*) from empty) as "gone!""#,
        tenant.0,
        most,
    )
    .fetch_one(conn)
    .await?;
    Ok(gone.unsigned_abs())
}
