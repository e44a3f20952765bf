-- name: persistence_points
-- The one at a version or before it, and the one behind it.
select
    (
        select e.version
        from holdfast.events e
        where e.instance_id = %(instance_id)s and e.type = 'Persisted' and e.version <= %(at)s
        order by e.version desc
        limit 1
    ),
    (
        select e.version
        from holdfast.events e
        where e.instance_id = %(instance_id)s and e.type = 'Persisted' and e.version > %(at)s
        order by e.version
        limit 1
    );

-- name: is_there
select from holdfast.instance_rows where instance_id = %(instance_id)s and is_initialized;

-- name: living_with_key
select instance_id
from holdfast.instance_rows
where app = %(app)s
    and workflow = %(workflow)s
    and correlation_key = %(correlation_key)s
    and not is_completed
    and subflow is distinct from 'run';

-- name: forks
select
    instance_id, (data ->> 'origin_version')::bigint as at, data ->> 'by' as by, data ->> 'why' as why,
    recorded_at as made_at
from holdfast.events
where type = 'InstanceForked' and data ->> 'origin' = %(origin)s
order by recorded_at, instance_id;
