-- name: living_instances
-- Persisted or not, from behind the one seen last.
select instance_id, workflow, correlation_key, program_hash, version, is_initialized, is_suspended
from holdfast.instance_rows
where app = %(app)s
    and not is_completed
    and subflow is distinct from 'run'
    and (%(after)s::uuid is null or instance_id > %(after)s::uuid)
order by instance_id
limit %(limit)s::bigint;

-- name: was_cut_short
-- Whether what ran since the instance was persisted may have come to no end: it is owned by a host that fell, its bursts
-- were counted since, or a message that it waits for, or had taken, was tried.
select exists (
    select from holdfast.instance_rows r
    where r.instance_id = %(instance_id)s
        and r.lock_owner <> '00000000-0000-0000-0000-000000000000'::uuid
        and not exists (
            select from holdfast.hosts h where h.host_id = r.lock_owner and h.lease_expiration > clock_timestamp()
        )
) or exists (
    select from holdfast.attempts a
    join holdfast.instance_rows r on r.instance_id = a.instance_id
    where a.instance_id = %(instance_id)s and a.last_attempt_at > r.last_updated_time
) or exists (
    select from holdfast.inbox m
    join holdfast.attempts a on a.app = m.app and a.message_id = m.message_id
    where m.instance_id = %(instance_id)s and m.verdict = 'buffered'
) or exists (
    select from holdfast.bookmarks b
    join holdfast.inbox m
        on m.app = b.app and m.correlation_key = b.correlation_key and m.type = b.message_type
        and m.verdict = 'buffered'
    join holdfast.attempts a on a.app = m.app and a.message_id = m.message_id
    where b.instance_id = %(instance_id)s
);

-- name: migrate_row
update holdfast.instance_rows set program_hash = %(program_hash)s where instance_id = %(instance_id)s;

-- name: migrate_bookmarks
update holdfast.bookmarks b
set line = m.line
from unnest(%(names)s::text[], %(lines)s::int[]) as m (name, line)
where b.instance_id = %(instance_id)s and b.name = m.name;

-- name: program_hashes
select program_hash from holdfast.programs where app = %(app)s;
