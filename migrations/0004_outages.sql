-- Ends that an outage of our own database caused. The first ones cost a job no attempt; a job that
-- causes them itself must not go on for ever.
create function queue.outages(errors jsonb) returns bigint
language sql immutable parallel safe
return (select count(*) from jsonb_array_elements(coalesce(errors, '[]'::jsonb)) e where e->>'kind' = 'outage');
