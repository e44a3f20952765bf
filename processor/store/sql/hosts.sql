-- name: open_host
insert into holdfast.hosts (host_id, app, machine, process_id, lease_expiration, programs, message_types)
values (
    %(host_id)s,
    %(app)s,
    %(machine)s,
    %(process_id)s,
    clock_timestamp() + make_interval(secs => %(lease_seconds)s::float8),
    %(programs)s::text[],
    %(message_types)s::text[]
);

-- name: forget_hosts
-- A host that ended long ago is of no interest unless instances still name it as where they were last loaded.
delete from holdfast.hosts h
where h.app = %(app)s
    and h.lease_expiration < clock_timestamp() - interval '1 day'
    and not exists (select from holdfast.instance_rows r where r.lock_owner = h.host_id);

-- name: renew_host
update holdfast.hosts
set lease_expiration = clock_timestamp() + make_interval(secs => %(lease_seconds)s::float8)
where host_id = %(host_id)s and lease_expiration > clock_timestamp()
returning host_id;

-- name: close_host
with gone as (
    delete from holdfast.hosts where host_id = %(host_id)s
)
update holdfast.instance_rows r
set lock_owner = case
    when r.is_initialized and r.execution_status = 'executing' and not r.is_suspended
        then '00000000-0000-0000-0000-000000000000'::uuid
end
from (
    select instance_id from holdfast.instance_rows where lock_owner = %(host_id)s order by instance_id for update
) held
where r.instance_id = held.instance_id;

-- name: share
with before as (
    select host_id, partitions from holdfast.hosts where host_id = %(host_id)s for update
)
update holdfast.hosts h
set partitions = %(partitions)s::int[],
    consuming_since = %(consuming_since)s::timestamptz[],
    held_back = %(held_back)s::int[],
    shared_at = clock_timestamp()
from before b
where h.host_id = b.host_id
returning h.partitions <> b.partitions;

-- name: living_hosts
-- Who brings no programs along is a client that holds an instance, and consumes nothing.
select
    host_id, extract(epoch from lease_expiration - clock_timestamp())::float8, partitions, shared_at
from holdfast.hosts
where app = %(app)s and lease_expiration > clock_timestamp() and programs <> '{}';

-- name: known_types
select distinct unnest(message_types)
from holdfast.hosts
where app = %(app)s and lease_expiration > clock_timestamp();

-- name: runs_elsewhere
select
from holdfast.hosts
where app = %(app)s
    and host_id <> %(host_id)s
    and lease_expiration > clock_timestamp()
    and programs @> %(programs)s::text[]
limit 1;

-- name: now
select clock_timestamp();
