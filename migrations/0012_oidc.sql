-- Identity providers (OpenID Connect): whose word a tenant takes for who its people are.

create table oidc_providers (
    id             uuid primary key,
    tenant_id      uuid not null references tenants (id) on delete cascade,
    name           text not null check (length(name) between 1 and 63),
    display_name   text not null check (length(display_name) between 1 and 200),
    enabled        boolean not null,
    -- The issuer.
    provider_url   text not null check (length(provider_url) <= 2000),
    client_id      text not null check (length(client_id) between 1 and 500),
    client_secret  bytea not null,
    -- null: below the public URL.
    redirect_uri   text check (length(redirect_uri) <= 2000),
    scopes         text[] not null,
    username_claim text not null check (length(username_claim) <= 200),
    email_claim    text not null check (length(email_claim) <= 200),
    groups_claim   text not null check (length(groups_claim) <= 200),
    -- [{group, role | teamId, teamRole}]
    group_mapping  jsonb not null,
    default_role   text not null constraint oidc_providers_role check (default_role in ('viewer', 'user', 'operator', 'admin')),
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    constraint oidc_providers_in_tenant unique (tenant_id, id),
    -- It stands in addresses where no tenant does.
    constraint oidc_providers_name unique (name)
);
create index oidc_providers_by_tenant on oidc_providers (tenant_id, name);
comment on column oidc_providers.client_secret is 'sealed';

-- Who somebody is to an issuer, whatever the provider is called through which it said so.
create table oidc_identities (
    id           uuid primary key,
    tenant_id    uuid not null,
    user_id      uuid not null,
    issuer       text not null check (length(issuer) <= 2000),
    subject      text not null check (length(subject) between 1 and 255),
    -- Whether the account's address, or whoever was in it, has shown that both are the same person. Not
    -- yet of an account that was made for an address that nobody vouched for.
    proven       boolean not null,
    -- The provider's name, where the person linked it, having shown who they are without one. Of one that a
    -- provider's word linked or made, a provider that anybody below the person could have set up says
    -- nothing; nor of this one another provider of the same issuer.
    linked_through text,
    created_at   timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    constraint oidc_identities_linked check (proven or linked_through is null),
    constraint oidc_identities_in_tenant unique (tenant_id, id),
    constraint oidc_identities_subject unique (tenant_id, issuer, subject),
    constraint oidc_identities_user foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
);
create index oidc_identities_by_user on oidc_identities (tenant_id, user_id);

-- Memberships that groups gave, and so may take away. One that a person gave stays out of this.
create table oidc_memberships (
    tenant_id   uuid not null,
    identity_id uuid not null,
    team_id     uuid not null,
    user_id     uuid not null,
    constraint oidc_memberships_pkey primary key (tenant_id, identity_id, team_id),
    constraint oidc_memberships_identity foreign key (tenant_id, identity_id)
        references oidc_identities (tenant_id, id) on delete cascade,
    constraint oidc_memberships_member foreign key (tenant_id, team_id, user_id)
        references team_members (tenant_id, team_id, user_id) on delete cascade
);
create index oidc_memberships_by_member on oidc_memberships (tenant_id, team_id, user_id);

-- Browsers that were sent to a provider and are to come back. Nothing here signs anybody in: the rest
-- is in the browser's cookie.
create table oidc_states (
    state_hash   bytea primary key check (length(state_hash) = 32),
    -- Of the cookie.
    browser_hash bytea not null check (length(browser_hash) = 32),
    provider     text not null,
    provider_url text not null,
    return_to    text not null check (length(return_to) <= 2000),
    -- The sign-in of whoever links an identity to the account that they are in already.
    tenant_id    uuid,
    sign_in_id   uuid,
    expires_at   timestamptz not null,
    constraint oidc_states_links check ((tenant_id is null) = (sign_in_id is null)),
    constraint oidc_states_sign_in foreign key (tenant_id, sign_in_id)
        references sign_ins (tenant_id, id) on delete cascade
);
create index oidc_states_expiry on oidc_states (expires_at);
create index oidc_states_by_sign_in on oidc_states (tenant_id, sign_in_id) where sign_in_id is not null;
