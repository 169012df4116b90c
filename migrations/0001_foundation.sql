-- Tenants, people and their keys; the audit; the job engine.
--
-- Every tenant table has `unique (tenant_id, id)`, and references between tenant tables carry the
-- tenant, so that no row can point across. References to jobs are the exception: they outlive the
-- job's row. jobs.tenant_id has no foreign key: its lock on the tenant's row, taken by every
-- enqueue, costs more than it proves (docs/decisions).

create schema queue;

-- The queue's time. Everything that waits, leases or fires asks this, never a host's clock. Tests
-- shift it with the setting `streamspace.clock_shift`.
create function queue.now() returns timestamptz
language sql stable parallel safe
return statement_timestamp() + coalesce(nullif(current_setting('streamspace.clock_shift', true), '')::interval, interval '0');

-- Identity ----------------------------------------------------------------------------------------

create table tenants (
    id            uuid primary key,
    name          text not null check (length(name) between 1 and 200),
    slug          text not null constraint tenants_slug_form check (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    contact_email text,
    tier          text not null default 'free' constraint tenants_tier check (tier in ('free', 'standard', 'enterprise')),
    metadata      jsonb not null default '{}',
    active        boolean not null default true,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    constraint tenants_slug unique (slug)
);

insert into tenants (id, name, slug, tier)
values ('00000000-0000-0000-0000-000000000001', 'Platform', 'platform', 'enterprise');

create table users (
    id             uuid primary key,
    tenant_id      uuid not null references tenants (id),
    email          text not null check (length(email) between 3 and 320),
    username       text not null check (length(username) between 1 and 64),
    name           text not null check (length(name) <= 200),
    role           text not null constraint users_role check (role in ('viewer', 'user', 'operator', 'admin', 'owner')),
    platform_admin boolean not null default false,
    active         boolean not null default true,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    constraint users_in_tenant unique (tenant_id, id),
    -- Nobody signs in to the platform tenant.
    constraint users_not_in_platform check (tenant_id <> '00000000-0000-0000-0000-000000000001')
);
create unique index users_email_per_tenant on users (tenant_id, lower(email));
create unique index users_username_per_tenant on users (tenant_id, lower(username));

create table api_keys (
    id           uuid primary key,
    tenant_id    uuid not null references tenants (id),
    -- The person that the key acts as; null for a key of the tenant.
    user_id      uuid,
    -- A tenant key's own role; a person's key has the person's.
    role         text constraint api_keys_role check (role in ('viewer', 'user', 'operator', 'admin')),
    name         text not null check (length(name) between 1 and 200),
    prefix       text not null,
    secret_hash  bytea not null check (length(secret_hash) = 32),
    scopes       text[] not null default '{*}',
    hourly_limit integer not null check (hourly_limit > 0),
    active       boolean not null default true,
    expires_at   timestamptz,
    last_used_at timestamptz,
    created_by   uuid,
    created_at   timestamptz not null default now(),
    constraint api_keys_in_tenant unique (tenant_id, id),
    constraint api_keys_user foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade,
    constraint api_keys_owner check ((user_id is null) <> (role is null))
);
create unique index api_keys_secret on api_keys (secret_hash);
create index api_keys_by_user on api_keys (tenant_id, user_id);

-- Audit: the application's role can only insert -----------------------------------------------------

create table audit (
    id            uuid not null,
    at            timestamptz not null default now(),
    tenant_id     uuid not null,
    user_id       uuid,
    actor_type    text not null,
    actor_id      uuid,
    action        text not null,
    resource_type text not null,
    resource_id   text,
    before        jsonb,
    after         jsonb,
    ip            text,
    request_id    text,
    constraint audit_pkey primary key (tenant_id, id, at)
) partition by range (at);

-- Answers to requests that carried an Idempotency-Key ------------------------------------------------

create table idempotency_keys (
    tenant_id    uuid not null references tenants (id),
    actor        text not null,
    method       text not null,
    path         text not null,
    key          text not null check (length(key) between 1 and 255),
    body_hash    bytea not null,
    -- Who holds the lock, until when; both null once an answer is stored.
    lock_id      uuid,
    locked_until timestamptz,
    status       smallint,
    headers      jsonb,
    body         bytea check (length(body) <= 65536),
    -- The answer carried a secret: it is not replayed, only where the thing is.
    location     text,
    secret       boolean not null default false,
    expires_at   timestamptz not null,
    constraint idempotency_keys_pkey primary key (tenant_id, actor, method, path, key)
);
create index idempotency_keys_expiry on idempotency_keys (expires_at);

-- Jobs ------------------------------------------------------------------------------------------------

-- `blocked` waits for a concurrency key; the API shows it as `queued` and says what holds the key.
create type job_state as enum (
    'scheduled', 'queued', 'blocked', 'running', 'retrying', 'snoozed', 'parked', 'succeeded', 'failed', 'cancelled'
);

create table jobs (
    id                  uuid not null constraint jobs_pkey primary key,
    tenant_id           uuid not null,
    -- Raised at every claim, and whenever an attempt loses or ends its hold: an attempt owns the
    -- job exactly while its token equals this.
    fence               bigint not null default 0,
    -- Raised at every change that a reader can see.
    row_version         bigint not null default 1,
    -- The process that runs it.
    boot_id             uuid,
    run_at              timestamptz not null,
    -- run_at - priority x ageing step: the whole order of a lane in one static column.
    order_at            timestamptz not null,
    created_at          timestamptz not null,
    claimed_at          timestamptz,
    started_at          timestamptz,
    cancel_requested_at timestamptz,
    cancel_delivered_at timestamptz,
    cancel_stopped_at   timestamptz,
    finished_at         timestamptz,
    -- Since when no worker that saw it knew its kind.
    unknown_since       timestamptz,
    release             bigint not null,
    timeout_ms          bigint not null,
    attempt             integer not null default 0,
    max_attempts        integer not null,
    state               job_state not null,
    version             smallint not null default 1,
    priority            smallint not null default 0,
    -- 0 none, 1 while waiting, 2 until finished, 3 for its time.
    unique_mode         smallint not null default 0,
    kind                text not null,
    queue               text not null,
    -- Where it is claimed from: its queue, or queue/kind@version once a worker handed it back
    -- because it does not know the kind; only workers that do look there.
    lane                text not null,
    unique_key          text,
    slot_keys           text[],
    slot_limits         smallint[],
    blocked_on          text,
    park_key            text,
    parent_id           uuid,
    user_id             uuid,
    creator_type        text not null,
    creator_id          uuid,
    request_id          text,
    traceparent         text,
    args                jsonb not null,
    progress            jsonb,
    checkpoint          jsonb,
    result              jsonb,
    warning             text,
    -- The newest twenty: {attempt, at, kind, message}.
    errors              jsonb,
    constraint jobs_in_tenant unique (tenant_id, id)
) with (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_limit = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.2
);

-- Only what can be claimed now. A claim names lanes and the position in each.
create index jobs_claim on jobs (lane, tenant_id, order_at, id) where state = 'queued';
-- What becomes claimable by time: promoted when due. A parked job's run_at is its timeout.
create index jobs_due on jobs (run_at) where state in ('scheduled', 'retrying', 'snoozed', 'parked');
create index jobs_running on jobs (boot_id) where state = 'running';
create index jobs_blocked on jobs (blocked_on, order_at, id) where state = 'blocked';
create index jobs_parked on jobs (tenant_id, park_key) where state = 'parked';
create index jobs_unknown on jobs (unknown_since) where state = 'queued' and unknown_since is not null;
create index jobs_failed on jobs (tenant_id, id) where state = 'failed';
create index jobs_by_user on jobs (tenant_id, user_id, id) where user_id is not null;
create index jobs_children on jobs (parent_id, id) where parent_id is not null;

-- Adds one error with its time, and keeps the newest twenty.
create function queue.append_error(errors jsonb, error jsonb) returns jsonb
language sql stable parallel safe
return (
    select jsonb_agg(e order by n)
    from jsonb_array_elements(coalesce(errors, '[]'::jsonb) || jsonb_build_array(error || jsonb_build_object('at', queue.now())))
         with ordinality as x(e, n)
    where n > jsonb_array_length(coalesce(errors, '[]'::jsonb)) + 1 - 20
);

-- How an attempt really ends: whoever was asked to stop is neither retried nor put back.
create function queue.verdict(cancel_requested_at timestamptz, code smallint) returns smallint
language sql immutable parallel safe
return case when cancel_requested_at is not null and code > 2 then 2 else code end;

-- One row per process that runs jobs: the lease of all its jobs. `beats` moves at each beat; who
-- sees it stand still for a lease, by its own monotonic clock, removes the row and frees the jobs.
create table workers (
    boot_id     uuid primary key,
    host        text not null,
    pid         integer not null,
    version     text not null,
    release     bigint not null,
    -- null: all.
    queues      text[],
    -- kind@version for each version that it can read.
    kinds       text[] not null,
    concurrency integer not null,
    running     integer not null default 0,
    abandoned   integer not null default 0,
    draining    boolean not null default false,
    started_at  timestamptz not null,
    beat_at     timestamptz not null,
    beats       bigint not null default 0
) with (fillfactor = 50);

-- A slot of a concurrency key, held by a job. The primary key is what enforces the limit.
create table job_slots (
    key     text not null,
    slot_no smallint not null,
    job_id  uuid not null,
    fence   bigint not null,
    boot_id uuid not null,
    constraint job_slots_pkey primary key (key, slot_no)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index job_slots_by_job on job_slots (job_id);

create table job_keys (
    tenant_id uuid not null,
    kind      text not null,
    key       text not null,
    job_id    uuid not null,
    -- Past this the key protects nothing.
    until     timestamptz,
    constraint job_keys_pkey primary key (tenant_id, kind, key)
);
create index job_keys_by_job on job_keys (job_id);
create index job_keys_until on job_keys (until) where until is not null;

-- Effects that an attempt has committed under a name; a later attempt skips them.
create table job_steps (
    job_id uuid not null,
    step   text not null,
    value  jsonb,
    at     timestamptz not null,
    constraint job_steps_pkey primary key (job_id, step)
);

-- The last time an event happened that jobs park for. `xid` tells a parking job whether the event
-- came after it looked.
create table job_events (
    tenant_id uuid not null,
    key       text not null,
    xid       xid8 not null,
    at        timestamptz not null,
    constraint job_events_pkey primary key (tenant_id, key)
);

-- Pauses and limits of queues, for everyone (the platform's tenant) or for one tenant's jobs.
create table queue_controls (
    queue          text not null check (length(queue) between 1 and 64),
    tenant_id      uuid not null references tenants (id) on delete cascade,
    paused_at      timestamptz,
    max_running    integer constraint queue_controls_max_running check (max_running >= 0),
    rate_count     integer constraint queue_controls_rate check (rate_count > 0),
    rate_period_ms bigint check (rate_period_ms > 0),
    -- The bucket of the rate, filled by who claims.
    tokens         double precision not null default 0,
    refilled_at    timestamptz,
    updated_at     timestamptz not null,
    updated_by     uuid,
    constraint queue_controls_pkey primary key (queue, tenant_id)
) with (fillfactor = 50);

-- Depth and oldest age of each queue and tenant, counted by the scheduler that holds the lease.
create table queue_depths (
    queue      text not null,
    tenant_id  uuid not null,
    waiting    bigint not null,
    delayed    bigint not null,
    blocked    bigint not null,
    parked     bigint not null,
    running    bigint not null,
    oldest_at  timestamptz,
    counted_at timestamptz not null,
    constraint queue_depths_pkey primary key (queue, tenant_id)
) with (fillfactor = 50);

-- Work over many items: one row an item, counts kept on one row.
create table job_batches (
    job_id    uuid primary key,
    tenant_id uuid not null,
    total     integer not null,
    succeeded integer not null default 0,
    failed    integer not null default 0,
    cancelled integer not null default 0,
    chunks    integer not null default 0,
    constraint job_batches_in_tenant unique (tenant_id, job_id)
) with (fillfactor = 50);

create table job_batch_items (
    batch_id uuid not null,
    item_no  integer not null,
    state    text not null default 'pending' constraint job_batch_items_state
             check (state in ('pending', 'succeeded', 'failed', 'cancelled')),
    item     jsonb not null,
    error    text,
    counted  boolean not null default false,
    constraint job_batch_items_pkey primary key (batch_id, item_no),
    constraint job_batch_items_batch foreign key (batch_id) references job_batches (job_id) on delete cascade
);
create index job_batch_items_failed on job_batch_items (batch_id, item_no) where state = 'failed';

-- Schedules ---------------------------------------------------------------------------------------------

create table schedules (
    id            uuid primary key,
    tenant_id     uuid not null references tenants (id) on delete cascade,
    name          text not null check (length(name) between 1 and 200),
    kind          text not null,
    args          jsonb not null,
    -- A cron expression, or for built-in ones an interval.
    cron          text,
    every_ms      bigint check (every_ms > 0),
    time_zone     text not null default 'UTC',
    jitter_ms     bigint not null default 0 check (jitter_ms >= 0),
    catch_up      text not null default 'one' constraint schedules_catch_up check (catch_up in ('skip', 'one', 'all')),
    catch_up_ms   bigint not null default 86400000 check (catch_up_ms >= 0),
    overlap       text not null default 'skip' constraint schedules_overlap check (overlap in ('allow', 'skip')),
    built_in      boolean not null default false,
    paused        boolean not null default false,
    -- The next time of the cron; null: never again, or paused.
    next_at       timestamptz,
    -- next_at plus its jitter: when it really fires.
    fire_at       timestamptz,
    last_fire_at  timestamptz,
    last_job_id   uuid,
    missed_count  bigint not null default 0,
    -- Whoever's rights its jobs have.
    user_id       uuid,
    creator_type  text not null,
    creator_id    uuid,
    row_version   bigint not null default 1,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    constraint schedules_in_tenant unique (tenant_id, id),
    constraint schedules_name_per_tenant unique (tenant_id, name),
    constraint schedules_when check ((cron is null) <> (every_ms is null)),
    constraint schedules_user foreign key (tenant_id, user_id) references users (tenant_id, id)
);
create index schedules_due on schedules (fire_at) where fire_at is not null and not paused;

-- The ledger: the unique row that decides who fires a tick.
create table job_fires (
    schedule_id uuid not null,
    fire_at     timestamptz not null,
    tenant_id   uuid not null,
    -- null: missed or skipped, and why.
    job_id      uuid,
    outcome     text not null constraint job_fires_outcome check (outcome in ('fired', 'skipped', 'missed', 'manual')),
    at          timestamptz not null,
    constraint job_fires_pkey primary key (schedule_id, fire_at)
) partition by range (fire_at);

-- Who exports the fleet's gauges: one row a duty, held for a lease.
create table leases (
    name    text primary key,
    boot_id uuid not null,
    until   timestamptz not null
);

-- Months --------------------------------------------------------------------------------------------------

-- Makes the partitions of this month and the next two. Runs as the owner: the one way past the
-- application's role having no DDL.
create function queue.make_partitions() returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    parent text;
    first  timestamptz;
    made   integer := 0;
begin
    foreach parent in array array['audit', 'job_fires'] loop
        for i in -1..2 loop
            first := date_trunc('month', queue.now(), 'UTC') + make_interval(months => i);
            if to_regclass(format('%s_%s', parent, to_char(first at time zone 'UTC', 'YYYY_MM'))) is null then
                execute format('create table if not exists %I partition of %I for values from (%L) to (%L)',
                    format('%s_%s', parent, to_char(first at time zone 'UTC', 'YYYY_MM')), parent,
                    first, date_trunc('month', first + interval '40 days', 'UTC'));
                made := made + 1;
            end if;
        end loop;
    end loop;
    return made;
end $$;

-- Drops the months of a partitioned table that ended before `horizon`.
create function queue.drop_partitions(parent text, horizon timestamptz) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    part    record;
    dropped integer := 0;
begin
    if parent not in ('job_fires') then
        raise exception 'months of % are not dropped this way', parent;
    end if;
    for part in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
        where p.relname = parent and p.relnamespace = 'public'::regnamespace
    loop
        if to_date(right(part.relname, 7), 'YYYY_MM') + interval '1 month' < horizon then
            execute format('drop table %I', part.relname);
            dropped := dropped + 1;
        end if;
    end loop;
    return dropped;
end $$;

select queue.make_partitions();
