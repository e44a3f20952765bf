-- name: append_many
-- The events of a stream count from its head, if the head is where the writer expects it: at a number,
-- or anywhere (-1), or at least at 1 (-2). A stream whose last event was written by a younger
-- transaction is late and left alone. Events refer to their stream by its ordinal.
with streams as materialized (
    select
        s.ordinal,
        s.instance_id,
        c.epoch,
        coalesce(h.version, 0) as actual,
        coalesce((h.epoch, h.xid) > (c.epoch, pg_current_xact_id()), false) as late,
        case s.expected
            when -1 then true
            when -2 then h.version is not null
            else coalesce(h.version, 0) = s.expected
        end as expected
    from unnest(%(instance_ids)b::uuid[], %(expected)b::bigint[]) with ordinality
        as s (instance_id, expected, ordinal)
    cross join holdfast.cluster c
    left join lateral (
        select e.version, e.epoch, e.xid
        from holdfast.events e
        where e.instance_id = s.instance_id
        order by e.version desc
        limit 1
    ) h on true
), written as (
    insert into holdfast.events (epoch, instance_id, version, type, data, metadata)
    select s.epoch, s.instance_id, s.actual + e.index, e.type, e.data::json, e.metadata::json
    from unnest(
        %(ordinals)b::int[], %(indexes)b::int[], %(types)b::text[], %(data)b::text[], %(metadata)b::text[]
    ) with ordinality as e (ordinal, index, type, data, metadata, place)
    join streams s on s.ordinal = e.ordinal and s.expected and not s.late
    order by e.place
    returning instance_id, position
), heads as (
    select instance_id, max(position) as position
    from written
    group by instance_id
)
select s.actual, s.expected, s.epoch, pg_current_xact_id()::text::bigint, h.position
from streams s
left join heads h on h.instance_id = s.instance_id
order by s.ordinal;

-- name: read_stream
-- The events come as one row of columns, which a client reads faster than as many rows.
select
    array_agg(p.instance_id), array_agg(p.version), array_agg(p.type), array_agg(p.data), array_agg(p.epoch),
    array_agg(p.xid), array_agg(p.position), array_agg(p.metadata), array_agg(p.recorded_at)
from (
    select
        e.instance_id, e.version, e.type, e.data::text as data, e.epoch, e.xid::text::bigint as xid, e.position,
        e.metadata::text as metadata, e.recorded_at
    from holdfast.events e
    where e.instance_id = %(instance_id)s::uuid
        and e.version >= %(from_version)s::bigint
        and e.version <= %(to_version)s::bigint
    order by e.version
    limit %(limit)s::bigint
) p;

-- name: read_all
-- Nothing below the oldest running transaction can still appear, so no reader skips what commits late. One row of columns,
-- as in read_stream.
select
    array_agg(p.instance_id), array_agg(p.version), array_agg(p.type), array_agg(p.data), array_agg(p.epoch),
    array_agg(p.xid), array_agg(p.position), array_agg(p.metadata), array_agg(p.recorded_at)
from (
    select
        e.instance_id, e.version, e.type, e.data::text as data, e.epoch, e.xid::text::bigint as xid, e.position,
        e.metadata::text as metadata, e.recorded_at
    from holdfast.events e
    where (e.epoch, e.xid, e.position) > (%(epoch)s::int, %(xid)s::text::xid8, %(position)s::bigint)
        and (e.epoch, e.xid) < (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()))
    order by e.epoch, e.xid, e.position
    limit %(limit)s::bigint
) p;

-- name: read_page
-- As read_all, of which only the events of an app and of some types are given back. The last one, without an instance,
-- says in the place of the version how many events were looked at, and which one was the last of them.
with page as materialized (
    select
        e.instance_id, e.version, e.type, e.data, e.epoch, e.xid, e.position, e.metadata, e.recorded_at
    from holdfast.events e
    where (e.epoch, e.xid, e.position) > (%(epoch)s::int, %(xid)s::text::xid8, %(position)s::bigint)
        and (e.epoch, e.xid) < (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()))
    order by e.epoch, e.xid, e.position
    limit %(limit)s::bigint
), wanted as (
    select
        p.instance_id, p.version, p.type, p.data::text, p.epoch, p.xid::text::bigint as xid, p.position,
        p.metadata::text, p.recorded_at
    from page p
    where p.metadata ->> 'app' = %(app)s::text
        and (%(types)s::text[] is null or p.type = any(%(types)s::text[]))
    union all
    (
        select
            null, (select count(*) from page), '', '', p.epoch, p.xid::text::bigint, p.position, '', p.recorded_at
        from page p
        order by p.epoch desc, p.xid desc, p.position desc
        limit 1
    )
)
select
    array_agg(w.instance_id), array_agg(w.version), array_agg(w.type), array_agg(w.data), array_agg(w.epoch),
    array_agg(w.xid), array_agg(w.position), array_agg(w.metadata), array_agg(w.recorded_at)
from (select * from wanted order by epoch, xid, position, instance_id nulls last) w;

-- name: horizon_lag
select count(*), coalesce(extract(epoch from clock_timestamp() - min(recorded_at)), 0)::float8
from holdfast.events
where (epoch, xid) >= (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()));
