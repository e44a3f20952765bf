-- name: lock_scratch
select pg_advisory_xact_lock(hashtextextended('holdfast.scratches:' || %(schema)s::text, 0));

-- name: scratches
-- Those whose schema is still theirs, of an app and with a name where these are given.
select
    s.schema_name as schema, s.app, s.name, s.version, s.as_of,
    s.until_epoch || '-' || s.until_xid || '-' || s.until_position as until,
    s.epoch || '-' || s.xid || '-' || s.position as cursor,
    s.handled, s.skipped, s.is_complete, s.created_at, s.updated_at
from holdfast.scratches s
join pg_namespace n on n.nspname = s.schema_name and n.oid = s.schema_oid
where (%(app)s::text is null or s.app = %(app)s::text) and (%(schema)s::text is null or s.schema_name = %(schema)s::text)
order by s.schema_name;

-- name: schema_is_taken
-- Whether there is a schema of this name, or a projection's tables will stand in it.
select
    exists (select from pg_namespace n where n.nspname = %(schema)s::text)
    or exists (select from holdfast.projections p where p.schema_name = %(schema)s::text);

-- name: drop_scratch
select holdfast.drop_scratch(%(schema)s::text);

-- name: add_scratch
insert into holdfast.scratches (schema_name, schema_oid, app, name, version, as_of, until_epoch, until_xid, until_position)
select
    n.nspname, n.oid, %(app)s::text, %(name)s::text, %(version)s::int, %(as_of)s::text,
    %(epoch)s::int, %(xid)s::text::xid8, %(position)s::bigint
from pg_namespace n
where n.nspname = %(schema)s::text;

-- name: take_scratch
-- Where a scratch that is not complete stands, for its own; and whether all up to its end can be seen, now and for good.
select
    s.epoch, s.xid::text::bigint, s.position,
    (s.until_epoch, s.until_xid) < (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()))
from holdfast.scratches s
where s.schema_name = %(schema)s::text and not s.is_complete
for update;

-- name: move_scratch
update holdfast.scratches
set epoch = %(epoch)s::int,
    xid = %(xid)s::text::xid8,
    position = %(position)s::bigint,
    handled = handled + %(handled)s::bigint,
    skipped = skipped + %(skipped)s::bigint,
    is_complete = %(is_complete)s::boolean,
    updated_at = clock_timestamp()
where schema_name = %(schema)s::text;

-- name: was_skipped
-- Whether the projection passed over this event before, in any build.
select exists (
    select from holdfast.skipped_events
    where app = %(app)s::text and name = %(name)s::text
        and instance_id = %(instance_id)s::uuid and version = %(event_version)s::bigint
);

-- name: is_beyond_log
-- Whether no transaction has come to this place yet.
select (%(epoch)s::int, %(xid)s::text::xid8)
    >= (holdfast.current_epoch(), pg_snapshot_xmax(pg_current_snapshot()));

-- name: is_future
select %(moment)s::timestamptz > clock_timestamp();

-- name: place_at
-- Where the log ended at a moment: its last event, in the order of the log, that was recorded by then.
select epoch, xid::text::bigint, position
from holdfast.events
where recorded_at <= %(moment)s::timestamptz
order by epoch desc, xid desc, position desc
limit 1;

-- name: live_schema
select schema_name
from holdfast.projections
where app = %(app)s::text and name = %(name)s::text and build = 'live' and schema_name is not null;

-- name: tables
-- The tables that stand in one of two schemas or in both.
select distinct c.relname
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname in (%(before)s::text, %(after)s::text) and c.relkind in ('r', 'p') and not c.relispartition
order by 1;

-- name: compare_tables
select key, before, after, copies from holdfast.compare_tables(%(before)s::text, %(after)s::text, %(table)s::text);
