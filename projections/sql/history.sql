-- name: last_by
-- The version at a moment, that of the last event recorded by then; 0 if nothing had been recorded.
select coalesce(max(version), 0)
from holdfast.events
where instance_id = %(instance_id)s::uuid and recorded_at <= %(moment)s::timestamptz;

-- name: first_from
-- The version behind the last event that was recorded before a moment.
select coalesce(max(version), 0) + 1
from holdfast.events
where instance_id = %(instance_id)s::uuid and recorded_at < %(moment)s::timestamptz;

-- name: last_version
-- Null if there is neither an event nor an instance.
select greatest(
    (select max(version) from holdfast.events where instance_id = %(instance_id)s::uuid),
    (select 0 from holdfast.instance_rows where instance_id = %(instance_id)s::uuid)
);
