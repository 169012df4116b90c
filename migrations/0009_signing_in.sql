-- People sign in: by a password and a second factor, for as long as a refresh token or a browser's
-- cookie is good. Of every secret that somebody carries the database has its hash.

alter table users
    -- PHC: argon2id, or the bcrypt of an import until the next sign-in. null: no way in by password.
    add column password_hash     text check (length(password_hash) <= 500),
    add column email_verified_at timestamptz,
    add column last_login_at     timestamptz,
    -- To five minutes.
    add column last_active_at    timestamptz,
    -- Attempts since the last that succeeded: counted before the password is looked at.
    add column failed_logins     integer not null default 0,
    add column locked_until      timestamptz,
    -- The second factor; it counts once it is enabled.
    add column totp_secret       bytea,
    add column totp_enabled_at   timestamptz,
    -- The newest step of time whose code was used: none works twice.
    add column totp_step         bigint not null default 0,
    add constraint users_totp check (totp_enabled_at is null or totp_secret is not null);
comment on column users.totp_secret is 'sealed';
-- Of an import: few, and soon none.
create index users_bcrypt on users (password_hash) where password_hash like '$2%';

-- One sign-in of a person; its end is the row's.
create table sign_ins (
    id           uuid primary key,
    tenant_id    uuid not null,
    user_id      uuid not null,
    -- How it goes on.
    kind         text not null constraint sign_ins_kind check (kind in ('tokens', 'browser')),
    -- How it began.
    method       text not null constraint sign_ins_method
                 check (method in ('password', 'invitation', 'registration', 'oidc', 'cli')),
    -- Of the refresh token that is next, or of the cookie.
    secret_hash  bytea not null check (length(secret_hash) = 32),
    device       text not null default '' check (length(device) <= 300),
    address      text,
    created_at   timestamptz not null,
    last_used_at timestamptz not null,
    expires_at   timestamptz not null,
    constraint sign_ins_in_tenant unique (tenant_id, id),
    constraint sign_ins_user foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
);
create unique index sign_ins_secret on sign_ins (secret_hash);
create index sign_ins_by_user on sign_ins (tenant_id, user_id, id);
create index sign_ins_expiry on sign_ins (expires_at);

-- Refresh tokens that were used: whoever comes with one has copied it, or was copied.
create table used_refresh_tokens (
    secret_hash bytea primary key check (length(secret_hash) = 32),
    tenant_id   uuid not null,
    sign_in_id  uuid not null,
    expires_at  timestamptz not null,
    constraint used_refresh_tokens_sign_in foreign key (tenant_id, sign_in_id)
        references sign_ins (tenant_id, id) on delete cascade
);
create index used_refresh_tokens_by_sign_in on used_refresh_tokens (tenant_id, sign_in_id);
create index used_refresh_tokens_expiry on used_refresh_tokens (expires_at);

-- Who has shown a password and is to show a second factor.
create table sign_in_challenges (
    secret_hash bytea primary key check (length(secret_hash) = 32),
    tenant_id   uuid not null,
    user_id     uuid not null,
    expires_at  timestamptz not null,
    constraint sign_in_challenges_user foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
);
create index sign_in_challenges_by_user on sign_in_challenges (tenant_id, user_id);
create index sign_in_challenges_expiry on sign_in_challenges (expires_at);

-- For whoever has lost the second factor: each opens once, and is then no more.
create table recovery_codes (
    tenant_id uuid not null,
    user_id   uuid not null,
    code_hash bytea not null check (length(code_hash) = 32),
    constraint recovery_codes_pkey primary key (tenant_id, user_id, code_hash),
    constraint recovery_codes_user foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
);

-- Links that were mailed, each good for one thing once.
create table mailed_links (
    secret_hash bytea primary key check (length(secret_hash) = 32),
    tenant_id   uuid not null,
    user_id     uuid not null,
    purpose     text not null constraint mailed_links_purpose check (purpose in ('reset', 'invitation', 'email')),
    -- Where it was sent: it proves that this address is the person's.
    email       text not null check (length(email) between 3 and 320),
    created_at  timestamptz not null,
    expires_at  timestamptz not null,
    used_at     timestamptz,
    constraint mailed_links_user foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
);
create index mailed_links_by_user on mailed_links (tenant_id, user_id, purpose);
create index mailed_links_by_address on mailed_links (lower(email), created_at);
create index mailed_links_expiry on mailed_links (expires_at);

-- The same by the address that they came from (of IPv6 the /64), whatever the account.
create table sign_in_failures (
    address      text primary key check (length(address) <= 64),
    failures     integer not null,
    locked_until timestamptz,
    last_at      timestamptz not null
);
create index sign_in_failures_age on sign_in_failures (last_at);

-- Keys that sign access tokens: the newest signs, all verify.
create table signing_keys (
    id          uuid primary key,
    public_key  bytea not null check (length(public_key) = 32),
    private_key bytea not null,
    created_at  timestamptz not null
);
comment on column signing_keys.private_key is 'sealed';

-- People open streams too, not only keys.
alter table stream_tickets
    alter column api_key_id drop not null,
    add column sign_in_id uuid,
    -- The end of the access token that it was made with.
    add column holder_until timestamptz,
    add constraint stream_tickets_sign_in foreign key (tenant_id, sign_in_id)
        references sign_ins (tenant_id, id) on delete cascade,
    add constraint stream_tickets_holder check ((api_key_id is null) <> (sign_in_id is null));
create index stream_tickets_by_sign_in on stream_tickets (tenant_id, sign_in_id) where sign_in_id is not null;
