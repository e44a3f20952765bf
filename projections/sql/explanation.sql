-- name: circumstances
-- Who holds the instance, alive or not, and which living workers could.
select
    coalesce(r.lock_owner <> '00000000-0000-0000-0000-000000000000'::uuid, false)
        and not coalesce(h.lease_expiration > clock_timestamp(), false) as holder_lapsed,
    h.lease_expiration as holder_lease,
    (
        select count(*)
        from holdfast.hosts o
        where o.app = i.app and o.lease_expiration > clock_timestamp() and o.programs <> '{}'
    ) as living_workers,
    (
        select count(*)
        from holdfast.hosts o
        where o.app = i.app and o.lease_expiration > clock_timestamp() and i.program_hash = any(o.programs)
    ) as workers_with_program
from (select %(app)s::text as app, %(program_hash)s::text as program_hash) i
left join holdfast.instance_rows r on r.instance_id = %(instance_id)s::uuid
left join holdfast.hosts h on h.host_id = r.lock_owner;

-- name: waits
-- For a subflow: who is awaited under that id by now. For an activity on a queue: its request, and whether that is still
-- on its way.
select
    b.name, b.kind, b.message_type, b.correlation_key, b.due, b.line, b.opened_at,
    coalesce(b.due <= clock_timestamp(), false) as is_due,
    b.kind = 'timer' and exists (
        select from holdfast.instance_rows r
        join holdfast.hosts h on h.app = r.app and h.lease_expiration > clock_timestamp()
        where r.instance_id = b.instance_id and r.partition = any(h.partitions) and r.partition = any(h.held_back)
    ) as is_held_back,
    c.instance_id as child_id, c.workflow as child_workflow, c.execution_status as child_status,
    c.outcome as child_outcome, coalesce(c.is_suspended, false) as child_is_suspended,
    q.activity, q.queue, q.attempt, o.message_id is not null as is_unpublished, o.dead_reason, t.due as heartbeat_due
from holdfast.bookmarks b
left join lateral (
    select r.instance_id, r.workflow, r.execution_status, r.outcome, r.is_suspended
    from holdfast.instance_rows r
    where r.instance_id = case when b.kind = 'child' then b.correlation_key::uuid end
        or r.awaited_as = case when b.kind = 'child' then b.correlation_key::uuid end and not r.is_completed
    order by r.is_completed
    limit 1
) c on true
left join lateral (
    select
        e.data ->> 'activity' as activity, e.data ->> 'queue' as queue, (e.data ->> 'attempt')::int as attempt
    from holdfast.events e
    where e.instance_id = b.instance_id
        and e.type = 'ActivityRequested'
        and e.data ->> 'message_id' = b.correlation_key
    order by e.version desc
    limit 1
) q on b.kind = 'activity'
left join holdfast.outbox o on b.kind = 'activity' and o.message_id = b.correlation_key
left join holdfast.heartbeats t on b.kind = 'activity' and t.app = b.app and t.request = b.correlation_key
where b.instance_id = %(instance_id)s::uuid
order by b.name;

-- name: mailbox
-- What is buffered for an instance: addressed to it, waited for, or of its key and a type that its program receives.
with instance as materialized (
    select r.instance_id, r.app, r.correlation_key, r.subflow, p.receives
    from holdfast.instance_rows r
    left join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
    where r.instance_id = %(instance_id)s::uuid and not r.is_completed
), wanted as (
    select i.app, i.correlation_key, t.type
    from instance i
    cross join lateral unnest(i.receives) as t (type)
    where i.subflow is distinct from 'run'
    union
    select b.app, b.correlation_key, b.message_type
    from holdfast.bookmarks b
    where b.instance_id = %(instance_id)s::uuid and b.kind <> 'timer'
), found as (
    select m.*
    from wanted w
    cross join lateral (
        select x.*
        from holdfast.inbox x
        where x.app = w.app
            and x.correlation_key = w.correlation_key
            and x.type = w.type
            and x.verdict = 'buffered'
            and x.kind = 'message'
            and coalesce(x.instance_id = %(instance_id)s::uuid, true)
        order by x.sequence
        limit %(limit)s::bigint
    ) m
    union
    select m.*
    from instance i
    cross join lateral (
        select x.*
        from holdfast.inbox x
        where x.instance_id = i.instance_id and x.verdict = 'buffered'
        order by x.sequence
        limit %(limit)s::bigint
    ) m
)
select
    app, message_id, sequence, kind, type, correlation_key, received_at, verdict, reason, detail, instance_id, version,
    octet_length(body) as size
from found
order by sequence
limit %(limit)s::bigint;

-- name: near_misses
-- Only the newest of what is buffered or dead is looked through, so that a large inbox does not make it slow. Two keys
-- look alike that differ in nothing but case, zeros that lead a number and what is neither a letter nor a digit. What
-- somebody else waits for, or may come to, is no near miss.
with instance as materialized (
    select r.instance_id, r.app, r.correlation_key, p.receives
    from holdfast.instance_rows r
    left join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
    where r.instance_id = %(instance_id)s::uuid and not r.is_completed
), wanted as materialized (
    select
        b.message_type as type,
        b.correlation_key as key,
        regexp_replace(
            regexp_replace(lower(b.correlation_key), '[^[:alnum:]]', '', 'g'), '(^|[^0-9])0+(?=[0-9])', '\1', 'g'
        ) as bare
    from holdfast.bookmarks b
    where b.instance_id = %(instance_id)s::uuid and b.kind = 'message'
), keys as materialized (
    select key from wanted
    union
    select correlation_key from instance
), candidates as materialized (
    (
        select m.*
        from instance i
        cross join lateral (
            select *
            from holdfast.inbox x
            where x.app = i.app and x.verdict = 'buffered' and x.body is not null
            order by x.sequence desc
            limit %(window)s::bigint
        ) m
        where m.kind = 'message' and m.instance_id is null
    )
    union all
    (
        select m.*
        from instance i
        cross join lateral (
            select *
            from holdfast.inbox x
            where x.app = i.app and x.verdict = 'dead_lettered'
            order by x.sequence desc
            limit %(window)s::bigint
        ) m
        where m.kind = 'message'
    )
), compared as (
    select
        m.*,
        m.correlation_key in (select key from keys) as has_key,
        exists (select from wanted w where w.type = m.type and w.key = m.correlation_key) as is_wanted,
        exists (select from wanted w where w.type = m.type) as has_type,
        exists (
            select from wanted w
            where w.type = m.type
                and w.key <> m.correlation_key
                and w.bare = regexp_replace(
                    regexp_replace(lower(m.correlation_key), '[^[:alnum:]]', '', 'g'),
                    '(^|[^0-9])0+(?=[0-9])', '\1', 'g'
                )
        ) as looks_alike
    from candidates m
), misses as (
    select
        c.*,
        case
            when c.verdict = 'dead_lettered' and (c.has_key or c.looks_alike) then 'dead_letter'
            when c.verdict = 'buffered' and c.has_key and not c.is_wanted
                and not coalesce(c.type = any(i.receives), false) then 'another_type'
            when c.verdict = 'buffered' and c.has_type and not c.has_key then 'another_key'
        end as why
    from compared c
    cross join instance i
)
select
    app, message_id, sequence, kind, type, correlation_key, received_at, verdict, reason, detail, instance_id, version,
    octet_length(body) as size, why, looks_alike
from misses n
where why is not null
    and (
        why = 'dead_letter'
        or not exists (
            select from holdfast.bookmarks b
            where b.app = n.app
                and b.kind <> 'timer'
                and b.message_type = n.type
                and b.correlation_key = n.correlation_key
        )
        and not exists (
            select from holdfast.instance_rows r
            join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
            where r.app = n.app
                and r.correlation_key = n.correlation_key
                and not r.is_completed
                and r.subflow is distinct from 'run'
                and n.type = any(p.receives)
        )
    )
order by looks_alike desc, sequence desc
limit %(limit)s::bigint;

-- name: changed_timers
-- Since the instance waits as it does, and of the waits that are open: what comes before a branch or a timeout in the
-- name of a bookmark is the wait.
with open_waits as (
    select opened_at, split_part(split_part(name, '/', 1), ':', 1) as wait
    from holdfast.bookmarks
    where instance_id = %(instance_id)s::uuid
)
select
    e.data ->> 'bookmark' as bookmark, e.data ->> 'due' as due, e.data ->> 'by' as by, e.data ->> 'why' as why,
    e.recorded_at
from holdfast.events e
where e.instance_id = %(instance_id)s::uuid
    and e.type in ('TimerRescheduled', 'TimerCancelled')
    and exists (
        select from open_waits w
        where w.wait = split_part(split_part(e.data ->> 'bookmark', '/', 1), ':', 1) and w.opened_at <= e.recorded_at
    )
order by e.version desc
limit %(limit)s::bigint;
