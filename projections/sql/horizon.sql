-- name: is_settled
-- Nothing can appear any more up to a place in the log.
select (%(epoch)s::int, %(xid)s::text::xid8) < (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()));

-- name: newest_transaction
-- This one: a snapshot knows the last that has ended, and not which have begun since.
select pg_current_xact_id()::text::bigint;

-- name: is_over
-- Whether every transaction before this one has ended.
select pg_snapshot_xmin(pg_current_snapshot()) >= %(xid)s::text::xid8;
