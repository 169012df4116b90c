-- The audit, sealed: a chain of hashes for each tenant, written seconds after its rows.
--
-- What is sealed in what order follows from `at` alone, so a row's `at` must be past every row that was
-- sealed before it, however late its transaction commits (docs/decisions/0009-sealing-the-audit.md).

-- When a row is written. Its transaction has its number before the clock is read.
create function queue.audit_time() returns timestamptz
language plpgsql volatile as $$
begin
    perform pg_current_xact_id();
    return clock_timestamp();
end $$;

alter table audit alter column at set default queue.audit_time();

-- The order in which rows are sealed.
create index audit_by_time on audit (at, id);

-- One pass of sealing adds one record for each tenant of whom it found rows.
create table audit_chain (
    tenant_id  uuid not null,
    sequence   bigint not null check (sequence > 0),
    pass       bigint not null,
    -- The rows, in the order (at, id), and the SHA-256 of each, one after the other. An anchor has
    -- none: its rows went with their month.
    row_ids    uuid[] not null,
    row_hashes bytea not null check (length(row_hashes) = 32 * cardinality(row_ids)),
    anchor     boolean not null default false,
    -- The last row of the pass, whoever's it is.
    last_at    timestamptz not null,
    last_id    uuid not null,
    -- Of the hash before, the tenant, the sequence and all rows.
    hash       bytea not null check (length(hash) = 32),
    sealed_at  timestamptz not null default clock_timestamp(),
    constraint audit_chain_pkey primary key (tenant_id, sequence)
);
create index audit_chain_by_pass on audit_chain (pass);

-- How far sealing has come: one row.
create table audit_horizon (
    one           boolean primary key default true check (one),
    pass          bigint not null default 0,
    sealed_at     timestamptz not null default '-infinity',
    sealed_id     uuid not null default '00000000-0000-0000-0000-000000000000',
    -- No row before this can appear any more.
    until         timestamptz not null default '-infinity',
    -- Becomes `until` once every transaction has ended that had a number then.
    noted_at      timestamptz not null default '-infinity',
    noted_xid     xid8 not null default '0',
    -- Months before this are dropped.
    dropped_until timestamptz not null default '-infinity'
);
insert into audit_horizon default values;

-- What of a row is sealed: all of it.
create function queue.audit_hash(a audit) returns bytea
language sql stable parallel safe
return sha256(convert_to(jsonb_build_array(
    a.id, (extract(epoch from a.at) * 1000000)::bigint, a.tenant_id, a.user_id, a.actor_type, a.actor_id, a.action,
    a.resource_type, a.resource_id, a.before, a.after, a.ip, a.request_id)::text, 'UTF8'));

-- Seals the next rows, `most` at most; answers how many. As the owner: the application's role cannot
-- write the chain.
create function queue.seal_audit(most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    -- How far clocks may be set back.
    slack  constant interval := interval '2 seconds';
    h      audit_horizon;
    bound  timestamptz;
    first  timestamptz;
    sealed integer := 0;
    part   record;
    head   record;
begin
    select * into h from audit_horizon for update skip locked;
    if not found then
        return 0; -- another seals
    end if;
    if h.noted_xid > pg_current_xact_id() or h.noted_xid = '0' then
        -- The first time, or a backup that another server made: its numbers mean nothing here.
        h.noted_at := now();
        h.noted_xid := pg_current_xact_id();
    elsif pg_snapshot_xmin(pg_current_snapshot()) > h.noted_xid then
        h.until := greatest(h.until, h.noted_at - slack);
        -- The transaction's start is before its number.
        h.noted_at := now();
        h.noted_xid := pg_current_xact_id();
    end if;

    select a.at into first from audit a
    where a.at >= h.sealed_at and (a.at, a.id) > (h.sealed_at, h.sealed_id) and a.at < h.until
    order by a.at, a.id limit 1;
    if found then
        -- A record's rows are of one month, so that they go together.
        bound := least(h.until, date_trunc('month', first, 'UTC') + interval '1 month');
        for part in
            with batch as materialized (
                select a.tenant_id, a.at, a.id, queue.audit_hash(a) as hash from audit a
                where a.at >= first and (a.at, a.id) > (h.sealed_at, h.sealed_id) and a.at < bound
                order by a.at, a.id limit most),
            last as (select b.at, b.id from batch b order by b.at desc, b.id desc limit 1)
            select b.tenant_id, array_agg(b.id order by b.at, b.id) as ids,
                   string_agg(b.hash, ''::bytea order by b.at, b.id) as hashes,
                   string_agg(uuid_send(b.id) || b.hash, ''::bytea order by b.at, b.id) as text,
                   count(*)::integer as rows, (select at from last) as last_at, (select id from last) as last_id
            from batch b group by b.tenant_id order by b.tenant_id
        loop
            if sealed = 0 then
                h.pass := h.pass + 1;
            end if;
            select c.sequence, c.hash into head from audit_chain c
            where c.tenant_id = part.tenant_id order by c.sequence desc limit 1;
            insert into audit_chain (tenant_id, sequence, pass, row_ids, row_hashes, last_at, last_id, hash)
            values (part.tenant_id, coalesce(head.sequence, 0) + 1, h.pass, part.ids, part.hashes,
                    part.last_at, part.last_id,
                    sha256(coalesce(head.hash, decode(repeat('00', 32), 'hex')) || uuid_send(part.tenant_id)
                           || int8send(coalesce(head.sequence, 0) + 1) || part.text));
            sealed := sealed + part.rows;
            h.sealed_at := part.last_at;
            h.sealed_id := part.last_id;
        end loop;
    end if;
    update audit_horizon set pass = h.pass, sealed_at = h.sealed_at, sealed_id = h.sealed_id, until = h.until,
                             noted_at = h.noted_at, noted_xid = h.noted_xid;
    return sealed;
end $$;

-- Drops the months of the audit that ended before `horizon` and are sealed. Of each tenant's chain the
-- last record of them stays, without its rows. The application's role may call this, so it cannot reach
-- what is younger than 90 days.
create function queue.drop_audit_months(horizon timestamptz) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    h       audit_horizon;
    part    record;
    ended   timestamptz;
    dropped integer := 0;
begin
    select * into h from audit_horizon for update skip locked;
    if not found then
        return 0;
    end if;
    horizon := least(horizon, now() - interval '90 days');
    for part in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'audit'::regclass order by c.relname
    loop
        ended := (to_date(right(part.relname, 7), 'YYYY_MM') + interval '1 month')::timestamp at time zone 'UTC';
        continue when ended >= horizon or ended > h.until;
        if exists (select from audit a where a.at >= h.sealed_at and (a.at, a.id) > (h.sealed_at, h.sealed_id)
                                         and a.at < ended) then
            continue;
        end if;
        execute format('drop table %I', part.relname);
        dropped := dropped + 1;
        h.dropped_until := greatest(h.dropped_until, ended);
    end loop;
    if dropped > 0 then
        delete from audit_chain c
        where c.last_at < h.dropped_until
          and exists (select from audit_chain later where later.tenant_id = c.tenant_id
                        and later.sequence > c.sequence and later.last_at < h.dropped_until);
        update audit_chain set anchor = true, row_ids = '{}', row_hashes = ''
        where last_at < h.dropped_until and not anchor;
        update audit_horizon set dropped_until = h.dropped_until;
    end if;
    return dropped;
end $$;
