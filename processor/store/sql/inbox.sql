-- name: route
-- Each part is one look into an index; the first that finds something decides.
select
    case
        when n.instance_id is not null and coalesce(k.is_open, true) then 'non_persisted'
        when k.digest = m.digest then 'duplicate'
        when k.digest is not null then 'reused'
        when b.instance_id is not null then 'bookmark'
        when not i.is_completed then 'living'
        when i.is_completed and not i.frees_key then 'finished'
        else 'none'
    end,
    case
        when n.instance_id is not null and coalesce(k.is_open, true) then n.instance_id
        when k.digest is not null then null
        when b.instance_id is not null then b.instance_id
        when not (i.is_completed and i.frees_key) then i.instance_id
    end
from unnest(
    %(message_ids)b::text[], %(types)b::text[], %(keys)b::text[], %(digests)b::bytea[]
) with ordinality as m (message_id, type, key, digest, ordinal)
left join lateral (
    select r.instance_id
    from holdfast.instance_rows r
    where r.app = %(app)b and r.start_message_id = m.message_id and not r.is_initialized and not r.is_completed
    limit 1
) n on true
left join lateral (
    select x.digest, x.verdict in ('buffered', 'dead_lettered') and x.digest = m.digest as is_open
    from holdfast.inbox x
    where x.app = %(app)b and x.message_id = m.message_id
    limit 1
) k on true
left join lateral (
    select o.instance_id
    from holdfast.bookmarks o
    where o.app = %(app)b and o.kind <> 'timer' and o.message_type = m.type and o.correlation_key = m.key
    limit 1
) b on true
left join lateral (
    select r.instance_id, r.is_completed, p.reuse_key and m.type is not distinct from p.starts_with as frees_key
    from holdfast.instance_rows r
    join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
    where r.app = %(app)b
        and r.correlation_key = m.key
        and r.subflow is distinct from 'run'
        and (m.type = any(p.receives) or (r.is_completed and m.type = p.starts_with))
    order by r.is_completed, r.creation_time desc
    limit 1
) i on true
order by m.ordinal;

-- name: take_in
-- What is known already stays as it is, except that a buffered message may still be given up. Messages of one key are
-- stored in the order in which they are given, and those that find no room there are given up.
with given as materialized (
    select *, row_number() over (partition by g.key order by g.ordinal) as place
    from unnest(
        %(message_ids)b::text[],
        %(kinds)b::text[],
        %(types)b::text[],
        %(keys)b::text[],
        %(bodies)b::bytea[],
        %(digests)b::bytea[],
        %(traceparents)b::text[],
        %(reply_tos)b::text[],
        %(verdicts)b::text[],
        %(reasons)b::text[],
        %(details)b::text[],
        %(instance_ids)b::uuid[],
        %(received_ats)b::timestamptz[],
        %(are_bounded)b::bool[],
        %(partitions)b::int[],
        %(arrived_at)b::timestamptz[]
    ) with ordinality as g (
        message_id, kind, type, key, body, digest, traceparent, reply_to, verdict, reason, detail, instance_id,
        received_at, is_bounded, partition, arrived_at, ordinal
    )
), waiting as materialized (
    select b.key, w.messages
    from (select distinct g.key from given g where g.is_bounded) b
    cross join lateral (
        select count(*) as messages
        from (
            select from holdfast.inbox x
            where x.app = %(app)b and x.correlation_key = b.key and x.verdict = 'buffered'
            limit %(room)b::bigint
        ) l
    ) w
), crowded as (
    select g.message_id
    from given g
    join waiting w on w.key = g.key
    where g.is_bounded
        and w.messages + g.place > %(room)b::bigint
        and not exists (select from holdfast.inbox k where k.app = %(app)b and k.message_id = g.message_id)
), stored as (
    insert into holdfast.inbox (
        app, message_id, kind, type, correlation_key, body, digest, traceparent, reply_to, verdict, reason, detail,
        instance_id, received_at, partition, arrived_at
    )
    select
        %(app)b, g.message_id, g.kind, g.type, g.key, g.body, g.digest, g.traceparent, g.reply_to,
        case when c.message_id is not null then 'dead_lettered' else g.verdict end,
        case when c.message_id is not null then 'mailbox_full' else g.reason end,
        g.detail, g.instance_id, coalesce(g.received_at, now()), g.partition, g.arrived_at
    from given g
    left join crowded c on c.message_id = g.message_id
    order by g.key, g.ordinal
    on conflict (app, message_id) do update
    set verdict = excluded.verdict,
        reason = excluded.reason,
        detail = excluded.detail,
        body = excluded.body
    where inbox.verdict = 'buffered' and excluded.verdict <> 'buffered' and inbox.digest = excluded.digest
    returning message_id, verdict
), forgotten as (
    delete from holdfast.attempts a
    using stored s
    where a.app = %(app)b and a.message_id = s.message_id and s.verdict <> 'buffered'
)
select message_id, verdict from stored;

-- name: find_takers
-- After the commit that buffered the messages: who waits for them by now? A message that nobody waits for revives
-- a non-persisted instance whose start message is there; what was buffered for an instance that closed meanwhile
-- is too late.
with found as materialized (
    select
        m.message_id, m.app, b.instance_id as waiting, i.instance_id as known,
        i.is_completed and not i.frees_key as is_too_late,
        not i.is_initialized and not i.is_completed and not i.is_suspended and exists (
            select from holdfast.inbox s
            where s.app = m.app
                and s.message_id = i.start_message_id
                and s.verdict in ('buffered', 'dead_lettered')
        ) as can_start
    from unnest(%(message_ids)b::text[]) as g (message_id)
    cross join lateral (
        select * from holdfast.inbox x where x.app = %(app)b and x.message_id = g.message_id limit 1
    ) m
    left join lateral (
        select o.instance_id
        from holdfast.bookmarks o
        where o.app = m.app
            and o.kind <> 'timer'
            and o.message_type = m.type
            and o.correlation_key = m.correlation_key
            and coalesce(o.instance_id = m.instance_id, true)
        limit 1
    ) b on m.kind = 'message'
    left join lateral (
        select
            r.instance_id, r.is_completed, r.is_initialized, r.is_suspended, r.start_message_id,
            p.reuse_key and m.type is not distinct from p.starts_with as frees_key
        from holdfast.instance_rows r
        join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
        where r.app = m.app
            and r.correlation_key = m.correlation_key
            and r.subflow is distinct from 'run'
            and (m.type = any(p.receives) or (r.is_completed and m.type = p.starts_with))
        order by r.is_completed, r.creation_time desc
        limit 1
    ) i on m.kind = 'message' and b.instance_id is null
    where m.verdict = 'buffered'
), rejected as (
    update holdfast.inbox m
    set verdict = 'rejected', reason = 'completed', body = null, instance_id = f.known
    from found f
    where m.app = f.app
        and m.message_id = f.message_id
        and coalesce(m.verdict, '') = 'buffered'
        and f.waiting is null
        and f.is_too_late
    returning m.message_id
)
select
    f.message_id,
    case
        when f.waiting is not null then 'bookmark'
        when r.message_id is not null then 'finished'
        when f.can_start then 'non_persisted'
        else 'none'
    end,
    case when r.message_id is not null or f.waiting is null and f.can_start then f.known else f.waiting end
from found f
left join rejected r on r.message_id = f.message_id;

-- name: compare
select message_id, digest from holdfast.inbox where app = %(app)b and message_id = any(%(message_ids)b::text[]);

-- name: settle
-- A message is taken once: it has no verdict yet, or none that is final, and is the same message.
with applied as (
    insert into holdfast.inbox (
        app, message_id, kind, type, correlation_key, digest, traceparent, verdict, instance_id, version
    )
    select
        %(app)b, c.message_id, c.kind, c.type, c.key, c.digest, c.traceparent, 'applied', c.instance_id, c.version
    from unnest(
        %(consumed_by)b::uuid[],
        %(versions)b::bigint[],
        %(message_ids)b::text[],
        %(kinds)b::text[],
        %(types)b::text[],
        %(keys)b::text[],
        %(digests)b::bytea[],
        %(traceparents)b::text[]
    ) as c (instance_id, version, message_id, kind, type, key, digest, traceparent)
    order by c.message_id
    on conflict (app, message_id) do update
    set verdict = 'applied',
        reason = null,
        detail = null,
        body = null,
        instance_id = excluded.instance_id,
        version = excluded.version
    where inbox.verdict in ('buffered', 'dead_lettered') and inbox.digest = excluded.digest
    returning app, message_id
), forgotten as (
    delete from holdfast.attempts a using applied m where a.app = m.app and a.message_id = m.message_id
), sent as (
    insert into holdfast.outbox (
        message_id, app, instance_id, host_id, exchange, routing_key, type, correlation_key, body, traceparent
    )
    select
        o.message_id, %(app)b, o.instance_id, o.host_id, o.exchange, o.routing_key, o.type, o.key, o.body, o.traceparent
    from unnest(
        %(sent_by)b::uuid[],
        %(sent_from)b::uuid[],
        %(outgoing_ids)b::text[],
        %(exchanges)b::text[],
        %(routing_keys)b::text[],
        %(outgoing_types)b::text[],
        %(outgoing_keys)b::text[],
        %(bodies)b::bytea[],
        %(outgoing_traceparents)b::text[]
    ) with ordinality as o (
        instance_id, host_id, message_id, exchange, routing_key, type, key, body, traceparent, ordinal
    )
    order by o.ordinal
)
select message_id from applied;

-- name: reject_left_over
-- What still lies in the mailboxes of closed instances is too late, unless another instance takes it, above all the
-- one that a closed one goes on as, or it is to start the next one of its key.
-- Each look is one into an index, whatever the planner believes of how much is buffered: `offset 0` and
-- `coalesce` keep it from reading all that is.
with closed as materialized (
    select
        r.instance_id, r.app, r.correlation_key,
        case when p.reuse_key then array_remove(p.receives, p.starts_with) else p.receives || p.starts_with end as types
    from holdfast.instance_rows r
    left join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
    where r.instance_id = any(%(instance_ids)b::uuid[]) and r.is_completed
), left_over as (
    select m.app, m.message_id, c.instance_id
    from closed c
    cross join lateral unnest(c.types) as t (type)
    cross join lateral (
        select x.app, x.message_id, x.type
        from holdfast.inbox x
        where x.app = c.app
            and x.correlation_key = c.correlation_key
            and x.type = t.type
            and x.kind = 'message'
            and x.instance_id is null
            and x.verdict = 'buffered'
        offset 0
    ) m
    where not exists (
        select from holdfast.instance_rows r
        join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
        where r.app = c.app
            and r.correlation_key = c.correlation_key
            and not r.is_completed
            and r.subflow is distinct from 'run'
            and (m.type = any(p.receives) or m.type = p.starts_with)
    )
    union
    -- What is addressed to one that is closed and gone is too late as well.
    select m.app, m.message_id, c.instance_id
    from unnest(%(instance_ids)b::uuid[]) as c (instance_id)
    left join holdfast.instance_rows r on r.instance_id = c.instance_id
    cross join lateral (
        select x.app, x.message_id
        from holdfast.inbox x
        where x.instance_id = c.instance_id and x.verdict = 'buffered'
        offset 0
    ) m
    where coalesce(r.is_completed, true)
)
update holdfast.inbox m
set verdict = 'rejected', reason = 'completed', body = null, instance_id = l.instance_id
from left_over l
where m.app = l.app and m.message_id = l.message_id and coalesce(m.verdict, '') = 'buffered';

-- name: reject_late
update holdfast.inbox
set verdict = 'rejected', reason = 'late', body = null
where app = %(app)s and message_id = any(%(message_ids)s::text[]) and coalesce(verdict, '') = 'buffered';

-- name: attempt
insert into holdfast.attempts (app, message_id, attempts, instance_id)
select %(app)b, m.message_id, 1, %(instance_id)b::uuid
from unnest(%(message_ids)b::text[]) as m (message_id)
order by m.message_id
on conflict (app, message_id) do update
set attempts = attempts.attempts + 1, last_attempt_at = clock_timestamp()
returning message_id, attempts;

-- name: expire
-- One page of what is buffered, in order of age. What an instance in life may still receive, and what is
-- addressed to one, does not expire.
with page as materialized (
    select m.app, m.message_id, m.type, m.correlation_key, m.kind, m.instance_id, m.received_at, m.sequence
    from holdfast.inbox m
    where m.app = %(app)b
        and m.verdict = 'buffered'
        and m.body is not null
        and m.sequence > %(after)b::bigint
    order by m.sequence
    limit %(limit)b::int
), expired as (
    update holdfast.inbox m
    set verdict = 'expired', body = null
    from page o
    where m.app = o.app
        and m.message_id = o.message_id
        and coalesce(m.verdict, '') = 'buffered'
        and o.kind = 'message'
        and o.instance_id is null
        and o.received_at < clock_timestamp() - make_interval(secs => %(ttl_seconds)b::float8)
        and not exists (
            select from holdfast.instance_rows r
            join holdfast.programs p on p.app = r.app and p.program_hash = r.program_hash
            where r.app = o.app
                and r.correlation_key = o.correlation_key
                and not r.is_completed
                and r.subflow is distinct from 'run'
                and o.type = any(p.receives)
        )
        and not exists (
            select from holdfast.bookmarks b
            where b.app = o.app
                and b.kind <> 'timer'
                and b.message_type = o.type
                and b.correlation_key = o.correlation_key
        )
    returning m.app, m.message_id
), forgotten as (
    delete from holdfast.attempts a using expired e where a.app = e.app and a.message_id = e.message_id
)
select
    (select count(*) from expired),
    max(sequence),
    count(*) = %(limit)b::int and max(received_at) < clock_timestamp() - make_interval(secs => %(ttl_seconds)b::float8)
from page;

-- name: await_commits
-- Those who are about to be commanded may be closing, and others going on for them: what is committed by now is what
-- the next statement sees.
select r.instance_id
from holdfast.instance_rows r
where r.awaited_as = any(%(instance_ids)b::uuid[]) and not r.is_completed
order by r.instance_id
for share;

-- name: deposit
-- What batches put into mailboxes. A command goes to who is awaited as the instance by now. For one that is closed, and
-- maybe gone, it is too late; the lock makes the instance's own last commit come before or after, and after, that finds the command.
with given as materialized (
    select *
    from unnest(
        %(message_ids)b::text[],
        %(kinds)b::text[],
        %(types)b::text[],
        %(keys)b::text[],
        %(bodies)b::bytea[],
        %(digests)b::bytea[],
        %(traceparents)b::text[],
        %(reply_tos)b::text[],
        %(instance_ids)b::uuid[]
    ) as g (message_id, kind, type, key, body, digest, traceparent, reply_to, named)
), mailbox as materialized (
    select a.named, coalesce(r.instance_id, a.named) as instance_id
    from (select distinct named from given where named is not null) a
    left join holdfast.instance_rows r on r.awaited_as = a.named and not r.is_completed
), addressed as materialized (
    select r.instance_id, r.is_completed
    from holdfast.instance_rows r
    where r.instance_id in (select instance_id from mailbox)
    order by r.instance_id
    for share of r
)
insert into holdfast.inbox (
    app, message_id, kind, type, correlation_key, body, digest, traceparent, reply_to, verdict, reason, instance_id
)
select
    %(app)b, g.message_id, g.kind, g.type, g.key, case when not l.is_too_late then g.body end,
    g.digest, g.traceparent, g.reply_to, case when l.is_too_late then 'rejected' else 'buffered' end,
    case when l.is_too_late then 'completed' end, x.instance_id
from given g
left join mailbox x on x.named = g.named
left join addressed a on a.instance_id = x.instance_id
cross join lateral (select g.named is not null and coalesce(a.is_completed, true) as is_too_late) l
order by g.message_id
on conflict (app, message_id) do nothing;

-- name: notify
select pg_notify(%(channel)s, %(app)s);

-- name: listen
listen holdfast;

-- name: listen_to_hosts
listen holdfast_hosts;
