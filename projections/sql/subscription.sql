-- name: lock_projection
select pg_advisory_xact_lock(
    hashtextextended(concat_ws(':', 'holdfast.projections', %(app)s::text, %(name)s::text, %(build)s::text), 0)
);

-- name: try_lock_projection
-- And until the end of the transaction no statement waits for long for a lock of anybody else.
select
    pg_try_advisory_xact_lock(
        hashtextextended(concat_ws(':', 'holdfast.projections', %(app)s::text, %(name)s::text, %(build)s::text), 0)
    ),
    set_config('lock_timeout', %(lock_timeout)s::text, true);

-- name: checkpoint
select version, status, epoch, xid::text::bigint, position, created_at
from holdfast.projections
where app = %(app)s::text and name = %(name)s::text and build = %(build)s::text;

-- name: is_due
-- The version of a build for which there are events below the safe horizon.
select p.version
from holdfast.projections p
where p.app = %(app)s::text
    and p.name = %(name)s::text
    and p.build = %(build)s::text
    and p.status = 'running'
    and exists (
        select from holdfast.events e
        where (e.epoch, e.xid, e.position) > (p.epoch, p.xid, p.position)
            and (e.epoch, e.xid) < (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()))
    );

-- name: enter_schema
-- What was found without a schema before is found still, behind the tables of the build.
select set_config('search_path', quote_ident(%(schema)s::text) || ', ' || current_setting('search_path'), true);

-- name: move_checkpoint
update holdfast.projections
set epoch = %(epoch)s::int,
    xid = %(xid)s::text::xid8,
    position = %(position)s::bigint,
    recorded_at = %(recorded_at)s::timestamptz,
    handled = handled + %(handled)s::bigint,
    error = null,
    failed_instance_id = null,
    failed_version = null,
    updated_at = clock_timestamp()
where app = %(app)s::text
    and name = %(name)s::text
    and build = %(build)s::text
    and position = %(from_position)s::bigint
    and status = 'running';

-- name: keep_skipped
insert into holdfast.skipped_events (app, name, build, instance_id, version, type, error)
values (
    %(app)s::text, %(name)s::text, %(build)s::text,
    %(instance_id)s::uuid, %(event_version)s::bigint, %(type)s::text, %(error)s::text
)
on conflict do nothing;

-- name: forget_skipped
delete from holdfast.skipped_events s
using unnest(%(instance_ids)s::uuid[], %(versions)s::bigint[]) as e (instance_id, version)
where s.app = %(app)s::text
    and s.name = %(name)s::text
    and s.build = %(build)s::text
    and (s.instance_id, s.version) = (e.instance_id, e.version);

-- name: stop_projection
update holdfast.projections
set status = 'stopped',
    error = %(error)s::text,
    failed_instance_id = %(instance_id)s::uuid,
    failed_version = %(event_version)s::bigint,
    updated_at = clock_timestamp()
where app = %(app)s::text and name = %(name)s::text and build = %(build)s::text;

-- name: note_error
update holdfast.projections
set error = %(error)s::text, updated_at = clock_timestamp()
where app = %(app)s::text
    and name = %(name)s::text
    and build = %(build)s::text
    and status = 'running'
    and error is distinct from %(error)s::text;
