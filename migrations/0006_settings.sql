-- What administrators of a tenant set at run time. Which keys there are, of which type and with which
-- default, stands in the code.
create table settings (
    tenant_id    uuid not null references tenants (id) on delete cascade,
    key          text not null check (length(key) between 1 and 100),
    -- null: the default holds.
    value        jsonb,
    -- When and by whom it was last set, or returned to its default.
    updated_at   timestamptz,
    updater_type text,
    updater_id   uuid,
    constraint settings_pkey primary key (tenant_id, key)
);
