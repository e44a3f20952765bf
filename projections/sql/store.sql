-- name: advance
-- The fence comes first, on rows locked in the order of their keys: the host's lease lives, and the lock
-- and the version are still those that the host saw. Only what passes it is written, and only that comes
-- back, with the number of bookmarks that it opened: a key that another instance waits for is left out.
--
-- Who is unlocked in the middle of a burst is left to the nil owner, who never lives, so that a host
-- that looks for work finds it among the instances of lapsed hosts.
with batch as materialized (
    select *
    from unnest(
        %(instance_ids)b::uuid[],
        %(hosts)b::uuid[],
        %(lock_tokens)b::bigint[],
        %(expected)b::bigint[],
        %(versions)b::bigint[],
        %(statuses)b::text[],
        %(outcomes)b::text[],
        %(suspended)b::boolean[],
        %(reasons)b::text[],
        %(exception_names)b::text[],
        %(pending_timers)b::timestamptz[],
        %(releases)b::boolean[],
        %(states)b::bytea[],
        %(encodings)b::text[],
        %(promoted)b::text[]
    ) as b (
        instance_id, host_id, lock_token, expected, version, execution_status, outcome, is_suspended, reason,
        exception_name, pending_timer, release, state, state_encoding, promoted
    )
), fenced as materialized (
    select r.instance_id, h.machine
    from batch b
    join holdfast.instance_rows r on r.instance_id = b.instance_id
    join holdfast.hosts h on h.host_id = b.host_id and h.lease_expiration > clock_timestamp()
    where r.lock_owner = b.host_id
        and r.lock_token = b.lock_token
        and r.version = b.expected
        and not r.is_completed
        and (r.last_xid is null or r.last_xid <= pg_current_xact_id())
    order by r.instance_id
    for update of r
), advanced as (
    update holdfast.instance_rows r
    set execution_status = b.execution_status,
        outcome = b.outcome,
        is_initialized = true,
        is_suspended = b.is_suspended,
        is_completed = b.execution_status = 'closed',
        suspension_reason = b.reason,
        suspension_exception_name = b.exception_name,
        last_updated_time = clock_timestamp(),
        pending_timer = b.pending_timer,
        last_machine = f.machine,
        lock_owner = case
            when not b.release and b.execution_status <> 'closed' then r.lock_owner
            when b.execution_status = 'executing' and not b.is_suspended
                then '00000000-0000-0000-0000-000000000000'::uuid
        end,
        version = b.version,
        last_xid = pg_current_xact_id()
    from fenced f
    join batch b on b.instance_id = f.instance_id
    where r.instance_id = f.instance_id
    returning r.instance_id, r.app
), forgotten as (
    delete from holdfast.attempts t using advanced a where t.instance_id = a.instance_id
), stated as (
    insert into holdfast.instance_states (instance_id, state, state_encoding, promoted)
    select b.instance_id, b.state, b.state_encoding, b.promoted::jsonb
    from advanced a
    join batch b on b.instance_id = a.instance_id
    on conflict (instance_id) do update
    set state = excluded.state, state_encoding = excluded.state_encoding, promoted = excluded.promoted
), closed as (
    delete from holdfast.bookmarks k
    using unnest(%(closed_of)b::uuid[], %(closed)b::text[]) as c (instance_id, name)
    join advanced a on a.instance_id = c.instance_id
    where k.instance_id = c.instance_id and k.name = c.name
    returning k.instance_id
), opened as (
    insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, due, line)
    select o.instance_id, o.name, a.app, o.kind, o.message_type, o.correlation_key, o.due, o.line
    from unnest(
        %(opened_by)b::uuid[],
        %(opened)b::text[],
        %(kinds)b::text[],
        %(message_types)b::text[],
        %(correlation_keys)b::text[],
        %(dues)b::timestamptz[],
        %(lines)b::int[]
    ) as o (instance_id, name, kind, message_type, correlation_key, due, line)
    join advanced a on a.instance_id = o.instance_id
    -- Counting makes it wait for what is closed, since a key may pass from one bookmark to another.
    where (select count(*) from closed) >= 0
    order by o.message_type, o.correlation_key
    on conflict do nothing
    returning instance_id
)
select a.instance_id, coalesce(o.count, 0)
from advanced a
left join (select instance_id, count(*) from opened group by instance_id) o on o.instance_id = a.instance_id;

-- name: move_timers
update holdfast.bookmarks b
set due = m.due
from unnest(%(instance_ids)b::uuid[], %(names)b::text[], %(dues)b::timestamptz[]) as m (instance_id, name, due)
where b.instance_id = m.instance_id and b.name = m.name;
