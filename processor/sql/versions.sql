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

-- name: migrate_row
update holdfast.instance_rows set program_hash = %(program_hash)s where instance_id = %(instance_id)s;

-- name: migrate_bookmarks
update holdfast.bookmarks b
set line = m.line
from unnest(%(names)s::text[], %(lines)s::int[]) as m (name, line)
where b.instance_id = %(instance_id)s and b.name = m.name;

-- name: program_hashes
select program_hash from holdfast.programs where app = %(app)s;
