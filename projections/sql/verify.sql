-- name: stored
-- What the instance store holds of each persisted instance, and where its stream stands at the same moment.
select
    i.instance_id, i.workflow, i.program_hash, i.correlation_key, i.is_initialized, i.execution_status, i.outcome,
    i.is_suspended, i.suspension_reason, i.suspension_exception_name, i.pending_timer, i.version,
    i.parent_id, i.subflow, i.awaited_as, s.promoted::text,
    (
        select max(e.version)
        from holdfast.events e
        where e.instance_id = i.instance_id
    ) as last_version,
    (
        select coalesce(json_agg(b order by b.name), '[]')::text
        from holdfast.bookmarks b
        where b.instance_id = i.instance_id
    ) as bookmarks,
    s.state, s.state_encoding
from holdfast.instance_rows i
left join holdfast.instance_states s on s.instance_id = i.instance_id
where (i.is_initialized or exists (select from holdfast.events e where e.instance_id = i.instance_id))
    and (%(instance_id)s::uuid is null or i.instance_id = %(instance_id)s::uuid)
    and (%(app)s::text is null or i.app = %(app)s::text)
    and (%(after)s::uuid is null or i.instance_id > %(after)s::uuid)
order by i.instance_id
limit %(limit)s::bigint;

-- name: next_events
-- The next events of several streams, each from where folding it has come to up to the version that the
-- instance store knew of, so many of each at most.
select e.instance_id, e.version, e.type, e.data::text
from unnest(%(instance_ids)b::uuid[], %(done)b::bigint[], %(versions)b::bigint[]) as s (instance_id, done, version)
cross join lateral (
    select e.instance_id, e.version, e.type, e.data
    from holdfast.events e
    where e.instance_id = s.instance_id and e.version > s.done and e.version <= s.version
    order by e.version
    limit %(limit)s::bigint
) e
order by e.instance_id, e.version;

-- name: has_row
select from holdfast.instance_rows where instance_id = %(instance_id)s::uuid;

-- name: without_row
-- Streams whose instance has no row, and whether they are closed, as of discarded instances; the open ones, which
-- must have one, or a single one of either kind.
select b.instance_id, l.version, l.is_closed
from holdfast.events b
cross join lateral (
    select
        e.version,
        e.type = 'Persisted' and e.data ->> 'reason' in ('completed', 'faulted', 'cancelled', 'terminated') as is_closed
    from holdfast.events e
    where e.instance_id = b.instance_id
    order by e.version desc
    limit 1
) l
where b.version = 1
    and (%(instance_id)s::uuid = b.instance_id or %(instance_id)s::uuid is null and not l.is_closed)
    and (%(app)s::text is null or b.metadata ->> 'app' = %(app)s::text)
    and not exists (select from holdfast.instance_rows r where r.instance_id = b.instance_id);
