-- A program signs in by the browser of its person: first a question to whoever is signed in there,
-- then, when they have said yes, a code that the program exchanges. The hash is of the one, then of the
-- other. What ends the browser's sign-in ends this.
create table cli_requests (
    secret_hash  bytea primary key check (length(secret_hash) = 32),
    tenant_id    uuid not null,
    user_id      uuid not null,
    sign_in_id   uuid not null,
    allowed      boolean not null default false,
    -- Where the code goes.
    redirect_uri text not null check (length(redirect_uri) between 1 and 200),
    -- RFC 7636, S256: whoever exchanges the code shows what this is the hash of.
    challenge    bytea not null check (length(challenge) = 32),
    expires_at   timestamptz not null,
    constraint cli_requests_user foreign key (tenant_id, user_id)
        references users (tenant_id, id) on delete cascade,
    constraint cli_requests_sign_in foreign key (tenant_id, sign_in_id)
        references sign_ins (tenant_id, id) on delete cascade
);
-- Somebody is asked one thing at a time, however often a page sends their browser here.
create unique index cli_requests_question on cli_requests (tenant_id, sign_in_id) where not allowed;
create index cli_requests_by_sign_in on cli_requests (tenant_id, sign_in_id);
create index cli_requests_by_user on cli_requests (tenant_id, user_id);
create index cli_requests_expiry on cli_requests (expires_at);

-- How whoever let a program in had signed in themselves: a second factor that their tenant comes to want
-- is wanted of the program's sign-in as of theirs.
alter table sign_ins add column browser_method text;
