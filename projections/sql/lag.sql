-- name: lags
select
    app, name, build, version, schema_name, status, cursor, events_behind, time_behind, handled, skipped, error,
    failed_instance_id, failed_version, updated_at
from holdfast.projection_lag
where %(app)s::text is null or app = %(app)s::text
order by app, name, build;

-- name: skipped_events
select app, name, build, instance_id, version, type, error, skipped_at
from holdfast.skipped_events
where (%(app)s::text is null or app = %(app)s::text) and (%(name)s::text is null or name = %(name)s::text)
order by skipped_at desc, instance_id, version
limit %(limit)s::bigint;

-- name: end_of_log
select epoch, xid::text::bigint, position from holdfast.events order by epoch desc, xid desc, position desc limit 1;

-- name: progress
select
    p.position,
    coalesce((select e.position from holdfast.events e order by e.epoch desc, e.xid desc, e.position desc limit 1), 0),
    case when p.status = 'stopped' then p.error end
from holdfast.projections p
where p.app = %(app)s::text and p.name = %(name)s::text and p.build = %(build)s::text;

-- name: places
select build, epoch, xid::text::bigint, position, case when status = 'stopped' then error end
from holdfast.projections
where app = %(app)s::text and name = %(name)s::text;

-- name: resume_stopped
update holdfast.projections
set status = 'running', error = null, failed_instance_id = null, failed_version = null, updated_at = clock_timestamp()
where app = %(app)s::text and name = %(name)s::text and status = 'stopped'
returning build;

-- name: skip_failed
-- The checkpoint of a stopped build stands right before the event that failed, but for events that it does not want.
with skipped as (
    update holdfast.projections p
    set status = 'running',
        epoch = e.epoch,
        xid = e.xid,
        position = e.position,
        recorded_at = e.recorded_at,
        error = null,
        failed_instance_id = null,
        failed_version = null,
        updated_at = clock_timestamp()
    from holdfast.projections before
    join holdfast.events e on e.instance_id = before.failed_instance_id and e.version = before.failed_version
    where p.app = %(app)s::text
        and p.name = %(name)s::text
        and p.status = 'stopped'
        and (before.app, before.name, before.build) = (p.app, p.name, p.build)
    returning p.app, p.name, p.build, e.instance_id, e.version, e.type, before.error
), kept as (
    insert into holdfast.skipped_events (app, name, build, instance_id, version, type, error)
    select app, name, build, instance_id, version, type, error from skipped
    on conflict do nothing
)
select build from skipped;
