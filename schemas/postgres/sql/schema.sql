-- name: lock_schema
-- One migration at a time, until the end of the transaction.
select pg_advisory_xact_lock(7311868340951413072);

-- name: schema_version
select max(version_num) from holdfast.schema_version;

-- name: moved
-- Whether the database lives in another cluster than when it was last migrated, and whether it is written on another
-- timeline. A standby, which nobody writes to, is on none.
select
    c.system_identifier <> s.system_identifier::text,
    coalesce(c.timeline <> holdfast.timeline(), false)
from holdfast.cluster c, pg_control_system() s;

-- name: lock_log
-- Who has written to the log commits first, and who waits writes in the new epoch: no event of the old one can still
-- appear when readers take all of it for complete.
lock table holdfast.events in share row exclusive mode;

-- name: raise_epoch
-- Transaction ids of another cluster say nothing about those of this one, and after a restore or a promotion ids are
-- given out again that the server before had given out: the epoch tells them apart.
with former as (
    select system_identifier from holdfast.cluster
), moved as (
    update holdfast.cluster c
    set epoch = c.epoch + 1, system_identifier = s.system_identifier::text, timeline = holdfast.timeline()
    from pg_control_system() s
    returning c.epoch, c.system_identifier
), forgotten as (
    update holdfast.instance_rows set last_xid = null
    where last_xid is not null and exists (select from moved m, former f where m.system_identifier <> f.system_identifier)
)
select epoch from moved;
