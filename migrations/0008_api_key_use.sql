-- Keys that change their secret, and what keys are used for.

-- The secret before the last rotation works on until then.
alter table api_keys
    add column previous_hash bytea check (length(previous_hash) = 32),
    add column previous_until timestamptz,
    add constraint api_keys_previous check ((previous_hash is null) = (previous_until is null));
create unique index api_keys_previous_secret on api_keys (previous_hash) where previous_hash is not null;
create index api_keys_previous_until on api_keys (previous_until) where previous_until is not null;

-- Every call of a key. Without a foreign key: it is written in batches, later, and outlives its key.
create table api_key_calls (
    id          uuid not null,
    at          timestamptz not null,
    tenant_id   uuid not null,
    api_key_id  uuid not null,
    method      text not null,
    route       text not null,
    status      smallint not null,
    address     text,
    duration_us bigint not null,
    constraint api_key_calls_pkey primary key (tenant_id, id, at)
) partition by range (at);
create index api_key_calls_by_key on api_key_calls (tenant_id, api_key_id, id);

create table api_key_days (
    tenant_id  uuid not null,
    api_key_id uuid not null,
    day        date not null,
    calls      bigint not null,
    -- Answered with 400 and more.
    errors     bigint not null,
    constraint api_key_days_pkey primary key (tenant_id, api_key_id, day),
    constraint api_key_days_key foreign key (tenant_id, api_key_id) references api_keys (tenant_id, id) on delete cascade
) with (fillfactor = 70);
create index api_key_days_by_day on api_key_days (day);

-- As in 0001, with one table more.
create or replace function queue.make_partitions() returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    parent text;
    first  timestamptz;
    made   integer := 0;
begin
    foreach parent in array array['audit', 'job_fires', 'api_key_calls'] loop
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

create or replace function queue.drop_partitions(parent text, horizon timestamptz) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    part    record;
    dropped integer := 0;
begin
    if parent not in ('job_fires', 'api_key_calls') then
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
