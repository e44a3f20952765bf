-- name: lock_schema
-- One migration at a time, until the end of the transaction.
select pg_advisory_xact_lock(7311868340951413072);

-- name: schema_version
select max(version_num) from holdfast.schema_version;

-- name: moved
-- Whether the database lives in another cluster than when it was last migrated.
select c.system_identifier <> s.system_identifier::text
from holdfast.cluster c, pg_control_system() s;

-- name: raise_epoch
-- Transaction ids of the former cluster say nothing about those of this one: the epoch tells them apart.
with moved as (
    update holdfast.cluster c
    set epoch = c.epoch + 1, system_identifier = s.system_identifier::text
    from pg_control_system() s
    where c.system_identifier <> s.system_identifier::text
    returning c.epoch
)
update holdfast.instance_rows set last_xid = null
where exists (select from moved) and last_xid is not null;
