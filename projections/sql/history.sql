-- name: version_at
-- The version at a moment; 0 if nothing had been recorded by then.
select coalesce(max(version), 0)
from holdfast.events
where instance_id = %(instance_id)s::uuid and recorded_at <= %(at)s::timestamptz;

-- name: last_version
-- Null if there is neither an event nor an instance.
select greatest(
    (select max(version) from holdfast.events where instance_id = %(instance_id)s::uuid),
    (select 0 from holdfast.instance_rows where instance_id = %(instance_id)s::uuid)
);
