-- name: wakeups
-- At least one row for each instance, for the clock. Of each open bookmark the oldest message is enough:
-- a suspended instance hears only what is addressed to it by way of control.
with wanted as materialized (
    select w.ordinal, r.instance_id, r.app, r.is_suspended
    from unnest(%(instance_ids)b::uuid[]) with ordinality as w (instance_id, ordinal)
    left join holdfast.instance_rows r
        on r.instance_id = w.instance_id
        and r.lock_owner = %(host_id)b::uuid
        and not r.is_completed
        and exists (
            select from holdfast.hosts h where h.host_id = r.lock_owner and h.lease_expiration > clock_timestamp()
        )
)
select
    w.ordinal, clock_timestamp(), x.due, x.sequence, x.kind, x.message_id, x.type, x.correlation_key, x.body,
    x.traceparent, x.reply_to, x.received_at, x.instance_id
from wanted w
left join lateral (
    select
        null as due, m.sequence, m.kind, m.message_id, m.type, m.correlation_key, m.body, m.traceparent, m.reply_to,
        coalesce(m.arrived_at, m.received_at) as received_at, m.instance_id
    from holdfast.inbox m
    where m.instance_id = w.instance_id and m.verdict = 'buffered' and m.kind = 'control'
    union all
    select
        null, m.sequence, m.kind, m.message_id, m.type, m.correlation_key, m.body, m.traceparent, m.reply_to,
        coalesce(m.arrived_at, m.received_at), m.instance_id
    from holdfast.bookmarks b
    cross join lateral (
        select *
        from holdfast.inbox i
        where i.app = w.app
            and i.correlation_key = b.correlation_key
            and i.type = b.message_type
            and i.verdict = 'buffered'
            and i.kind = 'message'
            and coalesce(i.instance_id = b.instance_id, true)
        order by i.sequence
        limit 1
    ) m
    where b.instance_id = w.instance_id and b.kind <> 'timer' and not w.is_suspended
    union all
    select b.name, null, null, null, null, null, null, null, null, null, null
    from holdfast.bookmarks b
    where b.instance_id = w.instance_id and b.kind = 'timer' and not w.is_suspended and b.due <= statement_timestamp()
    order by 2
) x on true
order by w.ordinal;

-- name: find_mail
-- For instances whose bookmarks are in memory only, without what they have taken and not persisted.
select w.ordinal, m.sequence, m.kind, m.message_id, m.type, m.correlation_key, m.body, m.traceparent, m.reply_to,
    coalesce(m.arrived_at, m.received_at), m.instance_id
from unnest(
    %(ordinals)b::int[], %(types)b::text[], %(keys)b::text[], %(instance_ids)b::uuid[]
) as w (ordinal, type, key, instance_id)
cross join lateral (
    select *
    from holdfast.inbox i
    where i.app = %(app)b
        and i.correlation_key = w.key
        and i.type = w.type
        and i.verdict = 'buffered'
        and i.kind = 'message'
        and coalesce(i.instance_id = w.instance_id, true)
        and not exists (
            select from unnest(%(taken_by)b::int[], %(taken)b::text[]) as t (ordinal, message_id)
            where t.ordinal = w.ordinal and t.message_id = i.message_id
        )
    order by i.sequence
    limit 1
) m
order by w.ordinal, m.sequence;

-- name: foreign_partitions
-- Those that other living hosts consume and this one does not, and which of them have their timers held back. What this
-- host does not hold of them is theirs to wake, so that a key's instance stays with the host that gets the key's messages,
-- unless they leave it lying for half a minute: they may not know the program. Nobody's are anybody's.
select coalesce(array_agg(distinct p.number), '{}'),
    coalesce(array_agg(distinct p.number) filter (where p.number = any(o.held_back)), '{}')
from holdfast.hosts o
cross join lateral unnest(o.partitions) p (number)
where o.app = %(app)b
    and o.host_id <> %(host_id)b::uuid
    and o.lease_expiration > clock_timestamp()
    and not exists (
        select from holdfast.hosts h where h.host_id = %(host_id)b::uuid and p.number = any(h.partitions)
    );

-- The looks that follow go on where the last one ended: what cannot go on stays where it is, and would hide the rest.

-- name: due_instances
select b.instance_id, b.due
from holdfast.bookmarks b
join holdfast.instance_rows r on r.instance_id = b.instance_id and not r.is_suspended
where b.app = %(app)b
    and b.kind = 'timer'
    and b.due <= statement_timestamp()
    and r.partition <> all(%(held_back)b::int[])
    and (b.due, b.instance_id) > (%(after)b::timestamptz, %(after_id)b::uuid)
    and (
        r.lock_owner = %(host_id)b::uuid
        or r.partition <> all(%(foreign)b::int[])
        or b.due < statement_timestamp() - interval '30 seconds'
    )
    and not exists (
        select from holdfast.hosts o
        where o.host_id = r.lock_owner and o.host_id <> %(host_id)b::uuid and o.lease_expiration > clock_timestamp()
    )
order by b.due, b.instance_id
limit %(limit)b::int;

-- name: commanded_instances
-- With those that closed before the command came, and may be gone by now.
select m.instance_id, m.sequence, coalesce(r.is_completed, true)
from holdfast.inbox m
left join holdfast.instance_rows r on r.instance_id = m.instance_id
where m.app = %(app)b
    and m.verdict = 'buffered'
    and m.kind = 'control'
    and m.sequence > %(after)b::bigint
    and r.subflow is distinct from 'run'
    and (
        r.instance_id is null
        or r.lock_owner = %(host_id)b::uuid
        or r.partition <> all(%(foreign)b::int[])
        or m.received_at < statement_timestamp() - interval '30 seconds'
    )
    and not exists (
        select from holdfast.hosts o
        where o.host_id = r.lock_owner and o.host_id <> %(host_id)b::uuid and o.lease_expiration > clock_timestamp()
    )
order by m.sequence
limit %(limit)b::int;

-- name: lapsed_instances
-- In the middle of a burst when their host ended; what was left to the nil owner to be found; and children that nobody has
-- begun yet, whose start message waits in the inbox.
select r.instance_id, r.last_updated_time
from (
    select h.host_id
    from holdfast.hosts h
    where h.app = %(app)b and h.lease_expiration <= clock_timestamp()
    union all
    select '00000000-0000-0000-0000-000000000000'
) ended
join holdfast.instance_rows r on r.lock_owner = ended.host_id
where r.app = %(app)b
    and (
        r.partition <> all(%(foreign)b::int[]) or r.last_updated_time < statement_timestamp() - interval '30 seconds'
    )
    and (r.execution_status = 'executing' or r.lock_owner = '00000000-0000-0000-0000-000000000000')
    and not r.is_completed
    and not r.is_suspended
    and (r.last_updated_time, r.instance_id) > (%(after)b::timestamptz, %(after_id)b::uuid)
    and (
        r.is_initialized
        or (r.subflow is not null or r.lock_owner = '00000000-0000-0000-0000-000000000000')
        and exists (
            select from holdfast.inbox m
            where m.app = r.app and m.message_id = r.start_message_id and m.verdict = 'buffered'
        )
    )
order by r.last_updated_time, r.instance_id
limit %(limit)b::int;

-- name: instances_with_mail
-- Of those that this host holds. Each look is one into an index; `offset 0` keeps the planner from joining
-- whole tables instead.
select m.instance_id, m.sequence
from (
    select b.instance_id, i.sequence
    from holdfast.instance_rows r
    cross join lateral (
        select o.instance_id, o.message_type, o.correlation_key
        from holdfast.bookmarks o
        where o.instance_id = r.instance_id and o.kind <> 'timer'
        offset 0
    ) b
    cross join lateral (
        select x.sequence
        from holdfast.inbox x
        where x.app = r.app
            and x.correlation_key = b.correlation_key
            and x.type = b.message_type
            and x.verdict = 'buffered'
            and x.kind = 'message'
            and coalesce(x.instance_id = b.instance_id, true)
        order by x.sequence
        limit 1
    ) i
    where r.lock_owner = %(host_id)b::uuid and not r.is_suspended and not r.is_completed
) m
where m.sequence > %(after)b::bigint
order by m.sequence
limit %(limit)b::int;

-- name: look_through_inbox
-- One page of what is buffered, in order of age: what an open bookmark waits for, what starts a workflow
-- or once started an instance that was never persisted, what came too late for a closed instance, and results of
-- activities that nobody waits for any more: who is to get one waits for it before it can come.
-- The first row tells where the page ends and how long it was.
with page as materialized (
    select *
    from holdfast.inbox m
    where m.app = %(app)b
        and m.verdict = 'buffered'
        and m.body is not null
        and m.sequence > %(after)b::bigint
    order by m.sequence
    limit %(page)b::int
), found as (
    select
        m.message_id, m.partition, m.received_at,
        case when b.instance_id is not null then b.instance_id when n.instance_id is not null then n.instance_id end
            as taker,
        case
            when b.instance_id is not null then 'message'
            when n.instance_id is not null then 'start'
            when m.type = %(result_type)b then 'late'
            when i.is_completed and not i.frees_key then 'finished'
            when coalesce(i.is_completed, true) and m.instance_id is null and m.type = any(%(start_types)b::text[])
                then 'start'
        end as why,
        i.instance_id as known
    from page m
    left join lateral (
        select o.instance_id
        from holdfast.bookmarks o
        where o.app = m.app
            and o.kind <> 'timer'
            and o.message_type = m.type
            and o.correlation_key = m.correlation_key
            and coalesce(o.instance_id = m.instance_id, true)
        limit 1
    ) b on true
    left join lateral (
        select r.instance_id, r.is_initialized, r.is_completed
        from holdfast.instance_rows r
        where r.app = m.app and r.start_message_id = m.message_id
        limit 1
    ) n on not n.is_initialized and not n.is_completed
    left join lateral (
        select r.instance_id, r.is_completed, p.reuse_key and m.type is not distinct from p.starts_with as frees_key
        from holdfast.instance_rows r
        join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
        where r.app = m.app
            and r.correlation_key = m.correlation_key
            and r.subflow is distinct from 'run'
            and (m.type = any(p.receives) or m.type = p.starts_with)
        order by r.is_completed, r.creation_time desc
        limit 1
    ) i on true
    where m.kind = 'message'
), runnable as (
    select f.*
    from found f
    left join lateral (
        select t.lock_owner, t.is_suspended, t.partition
        from holdfast.instance_rows t
        where t.instance_id = f.taker
        limit 1
    ) r on true
    where f.why is not null
        and not coalesce(r.is_suspended, false)
        and (
            r.lock_owner = %(host_id)b::uuid
            or coalesce(coalesce(r.partition, f.partition) <> all(%(foreign)b::int[]), true)
            or f.received_at < statement_timestamp() - interval '30 seconds'
        )
        and not exists (
            select from holdfast.hosts o
            where o.host_id = r.lock_owner and o.host_id <> %(host_id)b::uuid and o.lease_expiration > clock_timestamp()
        )
)
select
    e.sequence, e.size, f.why, case when f.why = 'finished' then f.known else f.taker end, m.sequence, m.kind,
    m.message_id, m.type, m.correlation_key, m.body, m.traceparent, m.reply_to,
    coalesce(m.arrived_at, m.received_at), m.instance_id, m.partition
from (select max(sequence) as sequence, count(*) as size from page) e
left join runnable f on true
left join page m on m.message_id = f.message_id
order by m.sequence;

-- name: next_timer
-- Only the first hundred of those to come, or just past, are looked at: if they are all somebody else's,
-- the last of them is a good time to look again.
with soon as materialized (
    select b.instance_id, b.due
    from holdfast.bookmarks b
    where b.app = %(app)b and b.kind = 'timer' and b.due > statement_timestamp() - interval '10 seconds'
    order by b.due
    limit 100
), ours as (
    select min(s.due) as due
    from soon s
    join holdfast.instance_rows r on r.instance_id = s.instance_id and not r.is_suspended
    where (r.lock_owner = %(host_id)b::uuid or r.partition <> all(%(foreign)b::int[]))
        and r.partition <> all(%(held_back)b::int[])
        and not exists (
            select from holdfast.hosts o
            where o.host_id = r.lock_owner and o.host_id <> %(host_id)b::uuid and o.lease_expiration > clock_timestamp()
        )
)
select extract(epoch from coalesce(o.due, l.due) - clock_timestamp())::float8
from ours o
cross join (select case when count(*) = 100 then max(due) end as due from soon) l;
