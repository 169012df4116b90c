-- When the audit was last told that somebody came with this key, though it is refused: once in a while is
-- enough, however often they come.
alter table api_keys add column refusal_noted_at timestamptz;
