-- name: export_end
-- Where the log is complete up to: the epoch and the oldest transaction that still runs, and the last event below them.
select h.epoch, h.xmin::text::bigint, e.epoch, e.xid::text::bigint, e.position
from (select holdfast.current_epoch() as epoch, pg_snapshot_xmin(pg_current_snapshot()) as xmin) h
left join lateral (
    select e.epoch, e.xid, e.position
    from holdfast.events e
    where (e.epoch, e.xid) < (h.epoch, h.xmin)
    order by e.epoch desc, e.xid desc, e.position desc
    limit 1
) e on true;

-- part: exported
-- What tells of an instance stands in its first event too, if it has no row any more.
select
    e.instance_id, e.version, e.type, e.data::text, e.epoch, e.xid::text::bigint, e.position, e.metadata::text,
    e.recorded_at,
    coalesce(i.app, e.metadata ->> 'app', ''),
    coalesce(
        i.workflow,
        (select f.data ->> 'workflow' from holdfast.events f where f.instance_id = e.instance_id and f.version = 1),
        ''
    ),
    coalesce(
        i.correlation_key,
        (
            select f.data ->> 'correlation_key'
            from holdfast.events f
            where f.instance_id = e.instance_id and f.version = 1
        ),
        ''
    )
from holdfast.events e
left join holdfast.instance_rows i on i.instance_id = e.instance_id
where (e.epoch, e.xid, e.position) > (%(epoch)s::int, %(xid)s::text::xid8, %(position)s::bigint)
    and (e.epoch, e.xid, e.position) <= (%(end_epoch)s::int, %(end_xid)s::text::xid8, %(end_position)s::bigint)
    and (%(app)s::text is null or coalesce(i.app, e.metadata ->> 'app') = %(app)s::text)
    and (%(since)s::timestamptz is null or e.recorded_at >= %(since)s::timestamptz)
    and (%(before)s::timestamptz is null or e.recorded_at < %(before)s::timestamptz)

-- name: export_log
-- Events in the order of the log.
-- exported
order by e.epoch, e.xid, e.position;

-- name: export_streams
-- The same events, or those of some types and instances, stream by stream.
-- exported
    and (%(types)s::text[] is null or e.type = any(%(types)s::text[]))
    and (%(instance_ids)s::uuid[] is null or e.instance_id = any(%(instance_ids)s::uuid[]))
order by e.instance_id, e.version;
