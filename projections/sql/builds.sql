-- name: add_projection
insert into holdfast.projections (app, name, build, version, schema_name)
values (%(app)s::text, %(name)s::text, %(build)s::text, %(version)s::int, %(schema)s::text);

-- name: remove_projection
delete from holdfast.projections
where app = %(app)s::text and name = %(name)s::text and build = %(build)s::text
returning name;

-- name: remove_skipped
delete from holdfast.skipped_events where app = %(app)s::text and name = %(name)s::text and build = %(build)s::text;

-- name: promote_projection
update holdfast.projections
set build = 'live', updated_at = clock_timestamp()
where app = %(app)s::text and name = %(name)s::text and build = 'next';

-- name: promote_skipped
update holdfast.skipped_events
set build = 'live'
where app = %(app)s::text and name = %(name)s::text and build = 'next';

-- name: resume_projection
update holdfast.projections
set status = 'running', error = null, failed_instance_id = null, failed_version = null, updated_at = clock_timestamp()
where app = %(app)s::text and name = %(name)s::text and build = %(build)s::text and status = 'stopped'
returning name;

-- name: open_transactions
select l.virtualxid, l.pid
from pg_locks l
join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'virtualxid'
    and l.granted
    and l.mode = 'ExclusiveLock'
    and l.pid <> pg_backend_pid()
    and a.datname = current_database()
    and a.usesysid is not null
    and a.backend_xmin is not null;

-- name: create_schema
select holdfast.create_schema(%(schema)s::text);

-- name: drop_schema
select holdfast.drop_schema(%(schema)s::text);

-- name: rename_schema
select holdfast.rename_schema(%(schema)s::text, %(new_name)s::text);

-- name: copy_rights
select holdfast.copy_rights(%(schema)s::text, %(to_schema)s::text);

-- name: built_in
-- Of which projection a schema holds what is to take the place of its tables.
select app, name
from holdfast.projections
where build = 'next' and schema_name || '__next' = %(schema)s::text;

-- name: open_to_observers
select holdfast.open_to_observers(%(schema)s::text);

-- name: wait_briefly
select set_config('lock_timeout', %(lock_timeout)s::text, true);

-- name: dependents
-- Views and foreign keys that stand elsewhere.
select format('view %%I.%%I', vn.nspname, v.relname)
from pg_namespace n
join pg_class t on t.relnamespace = n.oid
join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = t.oid and d.classid = 'pg_rewrite'::regclass
join pg_rewrite r on r.oid = d.objid
join pg_class v on v.oid = r.ev_class
join pg_namespace vn on vn.oid = v.relnamespace
where n.nspname = %(schema)s::text and vn.oid <> n.oid
union
select format('table %%I.%%I', fn.nspname, f.relname)
from pg_namespace n
join pg_class t on t.relnamespace = n.oid
join pg_constraint c on c.confrelid = t.oid and c.contype = 'f'
join pg_class f on f.oid = c.conrelid
join pg_namespace fn on fn.oid = f.relnamespace
where n.nspname = %(schema)s::text and fn.oid <> n.oid
order by 1;
