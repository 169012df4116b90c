-- On whose authority a job acts when no person stands behind it: a key of the tenant. Asked again when
-- the job starts, so that what a revoked key has planned does not happen.
alter table jobs add column key_id uuid;
alter table schedules add column key_id uuid;
