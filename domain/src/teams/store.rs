use sqlx::PgConnection;
use streamspace_common::{TeamId, TenantId, UserId};

use super::model::{Member, NewTeam, Team, TeamRole, Whom};

struct TeamRow {
    id: TeamId,
    name: String,
    description: String,
    created_by: Option<UserId>,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    role: Option<String>,
}

impl TeamRow {
    fn into_team(self) -> Team {
        Team {
            id: self.id,
            name: self.name,
            description: self.description,
            created_by: self.created_by,
            created_at: self.created_at.to_jiff(),
            updated_at: self.updated_at.to_jiff(),
            role: self.role.as_deref().map(role),
        }
    }
}

/// All of a tenant, with the role that `user` has in each.
pub(super) async fn of_tenant(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: Option<UserId>,
    named: Option<&str>,
    after: Option<TeamId>,
    limit: u32,
) -> sqlx::Result<Vec<Team>> {
    let rows = sqlx::query_as!(
        TeamRow,
        r#"select t.id as "id: TeamId", t.name, t.description, t.created_by as "created_by: UserId",
                  t.created_at, t.updated_at, m.role as "role?"
           from teams t
           left join team_members m on m.tenant_id = t.tenant_id and m.team_id = t.id and m.user_id = $2
           where t.tenant_id = $1 and ($3::uuid is null or t.id < $3)
             and ($4::text is null or position(lower($4) in lower(t.name)) > 0)
           order by t.id desc
           limit $5"#,
        tenant.0,
        user.map(|user| user.0),
        after.map(|after| after.0),
        named,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(TeamRow::into_team).collect())
}

pub(super) async fn of_user(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    named: Option<&str>,
    after: Option<TeamId>,
    limit: u32,
) -> sqlx::Result<Vec<Team>> {
    let rows = sqlx::query_as!(
        TeamRow,
        r#"select t.id as "id: TeamId", t.name, t.description, t.created_by as "created_by: UserId",
                  t.created_at, t.updated_at, m.role as "role?"
           from team_members m
           join teams t on t.tenant_id = m.tenant_id and t.id = m.team_id
           where m.tenant_id = $1 and m.user_id = $2 and ($3::uuid is null or m.team_id < $3)
             and ($4::text is null or position(lower($4) in lower(t.name)) > 0)
           order by m.team_id desc
           limit $5"#,
        tenant.0,
        user.0,
        after.map(|after| after.0),
        named,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(TeamRow::into_team).collect())
}

/// With the role that `user` has in it.
pub(super) async fn get(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    user: Option<UserId>,
) -> sqlx::Result<Option<Team>> {
    let row = sqlx::query_as!(
        TeamRow,
        r#"select t.id as "id: TeamId", t.name, t.description, t.created_by as "created_by: UserId",
                  t.created_at, t.updated_at, m.role as "role?"
           from teams t
           left join team_members m on m.tenant_id = t.tenant_id and m.team_id = t.id and m.user_id = $3
           where t.tenant_id = $1 and t.id = $2"#,
        tenant.0,
        team.0,
        user.map(|user| user.0),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(TeamRow::into_team))
}

/// Locks the team's row, if there is one, until the commit.
pub(super) async fn lock(conn: &mut PgConnection, tenant: TenantId, team: TeamId) -> sqlx::Result<()> {
    sqlx::query!("select id from teams where tenant_id = $1 and id = $2 for update", tenant.0, team.0)
        .fetch_optional(conn)
        .await?;
    Ok(())
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    tenant: TenantId,
    new: &NewTeam,
    by: UserId,
) -> sqlx::Result<Team> {
    let row = sqlx::query_as!(
        TeamRow,
        r#"insert into teams (id, tenant_id, name, description, created_by) values ($1, $2, $3, $4, $5)
           returning id as "id: TeamId", name, description, created_by as "created_by: UserId",
                     created_at, updated_at, null as role"#,
        TeamId::new().0,
        tenant.0,
        new.name,
        new.description,
        by.0,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into_team())
}

pub(super) async fn update(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    new: &NewTeam,
) -> sqlx::Result<jiff::Timestamp> {
    let updated_at = sqlx::query_scalar!(
        "update teams set name = $3, description = $4, updated_at = now()
         where tenant_id = $1 and id = $2 returning updated_at",
        tenant.0,
        team.0,
        new.name,
        new.description,
    )
    .fetch_one(conn)
    .await?;
    Ok(updated_at.to_jiff())
}

pub(super) async fn delete(conn: &mut PgConnection, tenant: TenantId, team: TeamId) -> sqlx::Result<()> {
    sqlx::query!("delete from teams where tenant_id = $1 and id = $2", tenant.0, team.0)
        .execute(conn)
        .await?;
    Ok(())
}

struct MemberRow {
    user: UserId,
    username: String,
    name: String,
    email: String,
    active: bool,
    role: String,
    joined_at: jiff_sqlx::Timestamp,
}

impl MemberRow {
    fn into_member(self) -> Member {
        Member {
            user: self.user,
            username: self.username,
            name: self.name,
            email: self.email,
            active: self.active,
            role: role(&self.role),
            joined_at: self.joined_at.to_jiff(),
        }
    }
}

pub(super) async fn members(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    after: Option<UserId>,
    limit: u32,
) -> sqlx::Result<Vec<Member>> {
    let rows = sqlx::query_as!(
        MemberRow,
        r#"select u.id as "user: UserId", u.username, u.name, u.email, u.active, m.role, m.joined_at
           from team_members m
           join users u on u.tenant_id = m.tenant_id and u.id = m.user_id
           where m.tenant_id = $1 and m.team_id = $2 and ($3::uuid is null or m.user_id > $3)
           order by m.user_id
           limit $4"#,
        tenant.0,
        team.0,
        after.map(|after| after.0),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(MemberRow::into_member).collect())
}

pub(super) async fn member(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    user: UserId,
) -> sqlx::Result<Option<Member>> {
    let row = sqlx::query_as!(
        MemberRow,
        r#"select u.id as "user: UserId", u.username, u.name, u.email, u.active, m.role, m.joined_at
           from team_members m
           join users u on u.tenant_id = m.tenant_id and u.id = m.user_id
           where m.tenant_id = $1 and m.team_id = $2 and m.user_id = $3"#,
        tenant.0,
        team.0,
        user.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(MemberRow::into_member))
}

pub(super) async fn absent(
    conn: &mut PgConnection,
    tenant: TenantId,
    teams: &[TeamId],
) -> sqlx::Result<Option<TeamId>> {
    let teams: Vec<_> = teams.iter().map(|team| team.0).collect();
    sqlx::query_scalar!(
        r#"select wanted as "team!: TeamId" from unnest($2::uuid[]) wanted
           where not exists (select from teams where tenant_id = $1 and id = wanted) limit 1"#,
        tenant.0,
        &teams,
    )
    .fetch_optional(conn)
    .await
}

/// Somebody of the tenant who can sign in. Held until the commit: they are not deleted meanwhile.
pub(super) async fn person(
    conn: &mut PgConnection,
    tenant: TenantId,
    whom: &Whom,
) -> sqlx::Result<Option<UserId>> {
    let (id, email) = match whom {
        Whom::User(id) => (Some(id.0), None),
        Whom::Email(email) => (None, Some(email.as_str())),
    };
    sqlx::query_scalar!(
        r#"select id as "id: UserId" from users
           where tenant_id = $1 and active and (id = $2 or lower(email) = lower($3))
           for key share"#,
        tenant.0,
        id,
        email,
    )
    .fetch_optional(conn)
    .await
}

/// Whether they were none before.
pub(super) async fn insert_member(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    user: UserId,
    role: TeamRole,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "insert into team_members (tenant_id, team_id, user_id, role) values ($1, $2, $3, $4)
         on conflict (tenant_id, team_id, user_id) do nothing",
        tenant.0,
        team.0,
        user.0,
        role.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn set_role(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    user: UserId,
    role: TeamRole,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update team_members set role = $4 where tenant_id = $1 and team_id = $2 and user_id = $3",
        tenant.0,
        team.0,
        user.0,
        role.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn delete_member(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    user: UserId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from team_members where tenant_id = $1 and team_id = $2 and user_id = $3",
        tenant.0,
        team.0,
        user.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether somebody else owns the team who can sign in.
pub(super) async fn has_owner_beside(
    conn: &mut PgConnection,
    tenant: TenantId,
    team: TeamId,
    user: UserId,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select 1 from team_members m
               join users u on u.tenant_id = m.tenant_id and u.id = m.user_id and u.active
               where m.tenant_id = $1 and m.team_id = $2 and m.role = 'owner' and m.user_id <> $3
           ) as "some!""#,
        tenant.0,
        team.0,
        user.0,
    )
    .fetch_one(conn)
    .await
}

fn role(text: &str) -> TeamRole {
    text.parse().expect("the column's check knows the same roles")
}
