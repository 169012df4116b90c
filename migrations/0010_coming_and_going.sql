-- How people and tenants go, and how strangers come.

-- The newest job that was to delete the person, who is disabled meanwhile. It may have failed or been
-- cancelled; whoever may sign in again has none.
alter table users add column deletion_job_id uuid;

-- A tenant that is not active is suspended: nobody gets in, and its jobs and schedules stand still.
alter table tenants
    -- When it goes. Until then it can be brought back.
    add column delete_at timestamptz,
    -- Since then there is no way back: some of it is gone.
    add column deleting_since timestamptz,
    -- Whether it was suspended before it was to be deleted: it is again, should that be taken back.
    add column suspended_before boolean not null default false,
    add constraint tenants_to_be_deleted check (delete_at is null or not active),
    add constraint tenants_suspended_before check (not suspended_before or delete_at is not null),
    add constraint tenants_deleting check (deleting_since is null or delete_at is not null),
    add constraint tenants_platform_stays check (active or id <> '00000000-0000-0000-0000-000000000001');
-- Every worker reads them once a second.
create index tenants_suspended on tenants (id) where not active;

-- Who may make a tenant where only invited people may: whoever comes with the secret, once.
create table tenant_invitations (
    id          uuid primary key,
    secret_hash bytea not null check (length(secret_hash) = 32),
    -- Whom it is for; null: whoever has it.
    email       text check (length(email) between 3 and 320),
    -- Of the tenant; null: as the configuration says.
    tier        text constraint tenant_invitations_tier check (tier in ('free', 'standard', 'enterprise')),
    created_at  timestamptz not null,
    expires_at  timestamptz not null,
    used_at     timestamptz
);
create unique index tenant_invitations_secret on tenant_invitations (secret_hash);
create index tenant_invitations_expiry on tenant_invitations (expires_at);
