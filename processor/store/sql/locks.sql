-- name: register
-- A message that was already given its verdict starts nothing; a buffered one may.
with wanted as (
    select w.*, h.machine
    from unnest(
        %(instance_ids)b::uuid[],
        %(workflows)b::text[],
        %(program_hashes)b::text[],
        %(correlation_keys)b::text[],
        %(start_message_ids)b::text[],
        %(partitions)b::int[]
    ) as w (instance_id, workflow, program_hash, correlation_key, start_message_id, partition)
    join holdfast.hosts h
        on h.host_id = %(host_id)b::uuid and h.app = %(app)b and h.lease_expiration > clock_timestamp()
    where not exists (
        select from holdfast.inbox m
        where m.app = %(app)b and m.message_id = w.start_message_id and m.verdict <> 'buffered'
    )
    order by w.start_message_id
)
insert into holdfast.instance_rows (
    instance_id, app, workflow, program_hash, correlation_key, partition, start_message_id, last_machine,
    lock_owner, lock_token
)
select
    w.instance_id, %(app)b, w.workflow, w.program_hash, w.correlation_key, w.partition, w.start_message_id, w.machine,
    %(host_id)b::uuid, 1
from wanted w
on conflict do nothing
returning instance_id, lock_token;

-- name: overtaken
-- Start messages of instances that are registered and wait for their first burst, although they have their verdict.
select m.message_id
from unnest(%(start_message_ids)b::text[]) as w (start_message_id)
join holdfast.inbox m on m.app = %(app)b and m.message_id = w.start_message_id and m.verdict <> 'buffered'
join holdfast.instance_rows r on r.app = m.app and r.start_message_id = m.message_id and not r.is_initialized
limit 1;

-- name: why_not_registered
-- What stands against each: the same registration made before, the message, the key, or the host's lease.
select
    w.instance_id,
    own.lock_token,
    exists (
        select from holdfast.instance_rows r where r.app = %(app)b and r.start_message_id = w.start_message_id
    ) or exists (
        select from holdfast.inbox m
        where m.app = %(app)b and m.message_id = w.start_message_id and m.verdict <> 'buffered'
    ) as is_known,
    exists (
        select from holdfast.instance_rows r
        where r.app = %(app)b
            and r.workflow = w.workflow
            and r.correlation_key = w.correlation_key
            and not r.is_completed
            and r.subflow is distinct from 'run'
    ) as key_lives,
    (select p.starts_with from holdfast.programs p where p.app = %(app)b and p.program_hash = w.program_hash)
from unnest(
    %(instance_ids)b::uuid[],
    %(workflows)b::text[],
    %(program_hashes)b::text[],
    %(correlation_keys)b::text[],
    %(start_message_ids)b::text[]
) as w (instance_id, workflow, program_hash, correlation_key, start_message_id)
left join holdfast.instance_rows own on own.instance_id = w.instance_id and own.lock_owner = %(host_id)b::uuid;

-- name: lock
-- Take what nobody living holds; what this host holds already keeps its token. Who ends on purpose frees what it
-- holds, so what still has an owner was held by one that fell. What runs within its parent is held by way of that.
with free as materialized (
    select
        r.instance_id,
        h.machine,
        r.lock_owner not in (%(host_id)b::uuid, '00000000-0000-0000-0000-000000000000'::uuid) as was_held
    from holdfast.instance_rows r
    join holdfast.hosts h
        on h.host_id = %(host_id)b::uuid and h.app = %(app)b and h.lease_expiration > clock_timestamp()
    where r.instance_id = any(%(instance_ids)b::uuid[])
        and r.app = %(app)b
        and not r.is_completed
        and r.subflow is distinct from 'run'
        and (
            r.lock_owner is null
            or r.lock_owner = %(host_id)b::uuid
            or not exists (
                select from holdfast.hosts o
                where o.host_id = r.lock_owner and o.lease_expiration > clock_timestamp()
            )
        )
    order by r.instance_id
    for update of r
)
update holdfast.instance_rows r
set lock_owner = %(host_id)b::uuid,
    lock_token = r.lock_token + (r.lock_owner is distinct from %(host_id)b::uuid)::int,
    last_machine = f.machine
from free f
where r.instance_id = f.instance_id
returning r.instance_id, coalesce(f.was_held, false);

-- name: load
-- Read after the lock was taken, in a statement of its own: one that had to wait for the lock would still
-- see the state of before. Who was not locked comes too, with who holds it.
select
    r.instance_id,
    r.workflow,
    r.program_hash,
    r.correlation_key,
    r.partition,
    r.start_message_id,
    r.lock_token,
    r.is_initialized,
    r.is_suspended,
    r.is_completed,
    r.version,
    case when r.lock_owner = %(host_id)b::uuid then s.state end,
    s.state_encoding,
    r.lock_owner,
    h.machine,
    h.lease_expiration,
    coalesce(h.lease_expiration > clock_timestamp(), false) as is_held,
    r.parent_id,
    r.subflow,
    r.awaited_as,
    m.sequence,
    m.kind,
    m.message_id,
    m.type,
    m.correlation_key,
    m.body,
    m.traceparent,
    m.reply_to,
    coalesce(m.arrived_at, m.received_at),
    m.instance_id
from holdfast.instance_rows r
left join holdfast.instance_states s on s.instance_id = r.instance_id
left join holdfast.hosts h on h.host_id = r.lock_owner
left join holdfast.inbox m
    on m.app = r.app
    and m.message_id = r.start_message_id
    and m.verdict in ('buffered', 'dead_lettered')
    and not r.is_initialized
where r.instance_id = any(%(instance_ids)b::uuid[]) and r.app = %(app)b;

-- name: release
update holdfast.instance_rows r
set lock_owner = case
    when r.is_initialized and r.execution_status = 'executing' and not r.is_suspended
        then '00000000-0000-0000-0000-000000000000'::uuid
end
from (
    select instance_id
    from holdfast.instance_rows
    where instance_id = any(%(instance_ids)b::uuid[]) and lock_owner = %(host_id)b::uuid
    order by instance_id
    for update
) held
where r.instance_id = held.instance_id;

-- name: leave_to_be_found
-- To the nil owner, who never lives: what is his is found however much lies in the inbox.
update holdfast.instance_rows r
set lock_owner = '00000000-0000-0000-0000-000000000000'
where r.instance_id = %(instance_id)s
    and r.lock_owner is null
    and not r.is_completed
    and not r.is_suspended
    and case
        when r.is_initialized then exists (
            select from holdfast.bookmarks b
            join holdfast.inbox m
                on m.app = r.app
                and m.correlation_key = b.correlation_key
                and m.type = b.message_type
                and m.verdict = 'buffered'
                and m.kind = 'message'
                and coalesce(m.instance_id = b.instance_id, true)
            where b.instance_id = r.instance_id and b.kind <> 'timer'
        )
        else exists (
            select from holdfast.inbox m
            where m.app = r.app and m.message_id = r.start_message_id and m.verdict = 'buffered'
        )
    end;

-- name: suspend
with suspended as (
    update holdfast.instance_rows r
    set is_suspended = true,
        suspension_reason = %(reason)s,
        suspension_exception_name = %(exception_name)s,
        last_updated_time = clock_timestamp(),
        lock_owner = null
    from holdfast.hosts h
    where r.instance_id = %(instance_id)s
        and h.host_id = %(host_id)s
        and h.lease_expiration > clock_timestamp()
        and r.lock_owner = h.host_id
        and r.lock_token = %(lock_token)s
        and not r.is_initialized
    returning r.instance_id, r.app
), kept as (
    insert into holdfast.inbox (
        app, message_id, kind, type, correlation_key, body, digest, traceparent, reply_to, verdict, instance_id
    )
    select
        s.app, %(message_id)s, %(kind)s, %(type)s, %(key)s, %(body)s::bytea, %(digest)s::bytea, %(traceparent)s,
        %(reply_to)s, 'buffered', s.instance_id
    from suspended s
    where %(message_id)s::text is not null
    on conflict (app, message_id) do update
    set verdict = 'buffered', reason = null, detail = null, instance_id = excluded.instance_id
    where inbox.verdict in ('buffered', 'dead_lettered')
), forgotten as (
    delete from holdfast.attempts a
    using suspended s
    where a.app = s.app and a.message_id = %(message_id)s or a.instance_id = s.instance_id
)
select instance_id from suspended;

-- name: resume
with resumed as (
    update holdfast.instance_rows r
    set is_suspended = false,
        suspension_reason = null,
        suspension_exception_name = null,
        last_updated_time = clock_timestamp()
    from holdfast.hosts h
    where r.instance_id = %(instance_id)s
        and h.host_id = %(host_id)s
        and h.lease_expiration > clock_timestamp()
        and r.lock_owner = h.host_id
        and not r.is_initialized
    returning r.instance_id, r.app
), applied as (
    update holdfast.inbox m
    set verdict = 'applied', body = null, instance_id = r.instance_id
    from resumed r
    where m.app = r.app and m.message_id = %(control_id)s and m.verdict = 'buffered'
)
select instance_id from resumed;
