-- Ends that an outage of our own database caused. The first ten cost a job no attempt; after that they
-- are retries like others, since a job that causes them itself must not go on for ever.
create function queue.outages(errors jsonb) returns bigint
language sql immutable parallel safe
return (select count(*) from jsonb_array_elements(coalesce(errors, '[]'::jsonb)) e where e->>'kind' = 'outage');

-- How an attempt really ends: whoever was asked to stop is neither retried nor put back, and an outage
-- (7) becomes a retry (3) or a failure (1) once there were too many.
create function queue.verdict(job jobs, code smallint) returns smallint
language sql immutable parallel safe
return case when job.cancel_requested_at is not null and code > 2 then 2
            when code <> 7 or queue.outages(job.errors) < 10 then code
            when job.attempt < job.max_attempts then 3
            else 1 end;
