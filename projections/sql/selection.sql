-- part: meant
-- Which events are meant, beside those of an app.
    and (%(types)s::text[] is null or p.type = any(%(types)s::text[]))
    and (%(since)s::timestamptz is null or p.recorded_at >= %(since)s::timestamptz)
    and (%(until)s::timestamptz is null or p.recorded_at <= %(until)s::timestamptz)
    and (%(instance_id)s::uuid is null or p.instance_id = %(instance_id)s::uuid)
    and ((%(workflow)s::text is null and %(correlation_key)s::text is null) or exists (
        select from holdfast.events s
        where s.instance_id = p.instance_id
            and s.version = 1
            and (%(workflow)s::text is null or s.data ->> 'workflow' = %(workflow)s::text)
            and (%(correlation_key)s::text is null or s.data ->> 'correlation_key' = %(correlation_key)s::text)
    ))
    and (%(promoted)s::jsonb is null or exists (
        select from holdfast.instance_states t
        where t.instance_id = p.instance_id and t.promoted @> %(promoted)s::jsonb
    ))
    and (%(skipped_by)s::text is null or exists (
        select from holdfast.skipped_events k
        where (k.app, k.name, k.build) = (%(app)s::text, %(skipped_by)s::text, 'live')
            and (k.instance_id, k.version) = (p.instance_id, p.version)
    ))

-- name: select_events
-- As `read_page` of the log does, up to an end, and with more criteria. What is said of an instance is what its first
-- event says; what it shows for queries is what it shows now.
with page as materialized (
    select
        e.instance_id, e.version, e.type, e.data, e.epoch, e.xid, e.position, e.metadata, e.recorded_at
    from holdfast.events e
    where (e.epoch, e.xid, e.position) > (%(epoch)s::int, %(xid)s::text::xid8, %(position)s::bigint)
        and (e.epoch, e.xid, e.position) <= (%(end_epoch)s::int, %(end_xid)s::text::xid8, %(end_position)s::bigint)
        and (e.epoch, e.xid) < (holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot()))
    order by e.epoch, e.xid, e.position
    limit %(limit)s::bigint
), wanted as (
    select
        p.instance_id, p.version, p.type, p.data::text, p.epoch, p.xid::text::bigint as xid, p.position,
        p.metadata::text, p.recorded_at
    from page p
    where p.metadata ->> 'app' = %(app)s::text
        -- meant
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

-- name: count_selected
select p.type, count(*)
from holdfast.events p
where (p.epoch, p.xid, p.position) > (%(epoch)s::int, %(xid)s::text::xid8, %(position)s::bigint)
    and (p.epoch, p.xid, p.position) <= (%(end_epoch)s::int, %(end_xid)s::text::xid8, %(end_position)s::bigint)
    and p.metadata ->> 'app' = %(app)s::text
    -- meant
group by p.type
order by p.type;

-- name: is_known
-- Whether an app has history, or ever had a worker; and the apps that had one.
select
    exists (select from holdfast.programs where app = %(app)s::text)
    or exists (select from holdfast.tally where app = %(app)s::text)
    or exists (select from holdfast.events where metadata ->> 'app' = %(app)s::text),
    array(select distinct app from holdfast.programs order by app);

-- name: is_to_come
select %(moment)s::timestamptz > clock_timestamp();

-- name: first_since
-- The first event that was recorded since a moment, or where the safe horizon is if that comes before: what appears
-- behind it may have been recorded since, too.
select epoch, xid, position
from (
    (
        select e.epoch, e.xid::text::bigint as xid, e.position
        from holdfast.events e
        where e.recorded_at >= %(moment)s::timestamptz
        order by e.epoch, e.xid, e.position
        limit 1
    )
    union all
    select holdfast.current_epoch(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint, 1
) places
order by epoch, xid, position
limit 1;

-- name: last_until
select epoch, xid::text::bigint, position
from holdfast.events
where recorded_at <= %(moment)s::timestamptz
order by epoch desc, xid desc, position desc
limit 1;
