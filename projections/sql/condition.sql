-- name: condition
-- Counts and ages, each by one look into an index; ages are in seconds, 0 where there is nothing.
select
    (
        select count(*) from holdfast.hosts
        where app = %(app)s and lease_expiration > clock_timestamp() and programs <> '{}'
    ) as hosts,
    (select count(*) from holdfast.instance_rows where lock_owner = %(host_id)s) as locks,
    (
        select count(*) from holdfast.inbox where app = %(app)s and verdict = 'buffered' and body is not null
    ) as buffered,
    coalesce((
        select extract(epoch from clock_timestamp() - received_at)
        from holdfast.inbox
        where app = %(app)s and verdict = 'buffered' and body is not null
        order by sequence
        limit 1
    ), 0)::float8 as oldest_buffered,
    (select count(*) from holdfast.inbox where app = %(app)s and verdict = 'dead_lettered') as dead_inbox,
    (select count(*) from holdfast.outbox where app = %(app)s and dead_reason is null) as outbox,
    coalesce((
        select extract(epoch from clock_timestamp() - created_at)
        from holdfast.outbox
        where app = %(app)s and dead_reason is null
        order by sequence
        limit 1
    ), 0)::float8 as oldest_outbox,
    (select count(*) from holdfast.outbox where app = %(app)s and dead_reason is not null) as dead_outbox,
    coalesce((
        select extract(epoch from clock_timestamp() - b.due)
        from holdfast.bookmarks b
        join holdfast.instance_rows r on r.instance_id = b.instance_id and not r.is_suspended
        where b.app = %(app)s and b.kind = 'timer' and b.due < clock_timestamp()
        order by b.due
        limit 1
    ), 0)::float8 as timer_lag,
    coalesce((
        select extract(epoch from clock_timestamp() - recorded_at)
        from holdfast.events
        where (epoch, xid) >= (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()))
        order by epoch, xid, position
        limit 1
    ), 0)::float8 as horizon_lag,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint - pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        as horizon_transactions;

-- name: non_persisted_by_class
select class, count(*) from holdfast.non_persisted where app = %(app)s group by class;

-- name: lease_lives
select exists (select from holdfast.hosts where host_id = %(host_id)s and lease_expiration > clock_timestamp());
