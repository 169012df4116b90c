-- Tickets for streams: what a browser puts into a URL instead of its key. One row each until it is
-- used, so that any replica takes it and none takes it twice.
create table stream_tickets (
    secret_hash bytea primary key check (length(secret_hash) = 32),
    tenant_id   uuid not null references tenants (id) on delete cascade,
    api_key_id  uuid not null,
    path        text not null check (length(path) between 1 and 1024),
    expires_at  timestamptz not null,
    constraint stream_tickets_in_tenant unique (tenant_id, secret_hash),
    constraint stream_tickets_api_key foreign key (tenant_id, api_key_id) references api_keys (tenant_id, id) on delete cascade
);
create index stream_tickets_expiry on stream_tickets (expires_at);
create index stream_tickets_by_key on stream_tickets (tenant_id, api_key_id);
