-- Teams: people of a tenant who share sessions and an allowance. Names are not unique: that a name is
-- taken would tell of teams that one does not see.
create table teams (
    id          uuid primary key,
    tenant_id   uuid not null references tenants (id) on delete cascade,
    name        text not null check (length(name) between 1 and 200),
    description text not null default '' check (length(description) <= 2000),
    -- Whoever made it; they may be gone.
    created_by  uuid,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint teams_in_tenant unique (tenant_id, id)
);

create table team_members (
    tenant_id uuid not null references tenants (id) on delete cascade,
    team_id   uuid not null,
    user_id   uuid not null,
    role      text not null constraint team_members_role check (role in ('viewer', 'member', 'admin', 'owner')),
    joined_at timestamptz not null default now(),
    constraint team_members_pkey primary key (tenant_id, team_id, user_id),
    constraint team_members_team foreign key (tenant_id, team_id) references teams (tenant_id, id) on delete cascade,
    constraint team_members_user foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
);
create index team_members_by_user on team_members (tenant_id, user_id, team_id);
