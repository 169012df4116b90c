-- When the audit was last told that somebody came with this key, though it is refused: once in a while is
-- enough, however often they come.
alter table api_keys add column refusal_noted_at timestamptz;
-- Those whose time has come.
create index api_keys_expiry on api_keys (expires_at) where active and expires_at is not null;
