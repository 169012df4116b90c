-- no-transaction
-- Whoever signs in, or wants a new password, names an address and often no tenant.
create index concurrently users_email on users (lower(email));
