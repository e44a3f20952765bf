-- name: instances
-- Newest first: ids are made in the order of time.
select
    instance_id, app, workflow, program_hash, correlation_key, partition, start_message_id,
    execution_status, outcome, is_initialized, is_suspended, suspension_reason, suspension_exception_name,
    creation_time, last_updated_time, pending_timer, active_bookmarks,
    current_machine, last_machine, lock_owner, lock_token, lock_expiration, version, parent_id, subflow,
    state_encoding, promoted
from holdfast.instances
where (%(instance_id)s::uuid is null or instance_id = %(instance_id)s::uuid)
    and (%(app)s::text is null or app = %(app)s::text)
    and (%(workflow)s::text is null or workflow = %(workflow)s::text)
    and (%(correlation_key)s::text is null or correlation_key = %(correlation_key)s::text)
    and (%(execution_status)s::text is null or execution_status = %(execution_status)s::text)
    and (%(outcome)s::text is null or outcome = %(outcome)s::text)
    and (%(is_suspended)s::boolean is null or is_suspended = %(is_suspended)s::boolean)
    and (%(is_initialized)s::boolean is null or is_initialized = %(is_initialized)s::boolean)
    and (%(is_completed)s::boolean is null or is_completed = %(is_completed)s::boolean)
    and (%(older_than)s::interval is null or creation_time <= clock_timestamp() - %(older_than)s::interval)
    and (%(promoted)s::jsonb is null or promoted @> %(promoted)s::jsonb)
    and (%(after)s::uuid is null or instance_id < %(after)s::uuid)
order by instance_id desc
limit %(limit)s::bigint;

-- name: tree
-- An instance and all that came out of it, nearest first.
with recursive family (instance_id, depth) as (
    select %(instance_id)s::uuid, 0
    union all
    select r.instance_id, f.depth + 1
    from family f
    join holdfast.instance_rows r on r.parent_id = f.instance_id
)
select
    f.depth,
    i.instance_id, app, workflow, program_hash, correlation_key, partition, start_message_id,
    execution_status, outcome, is_initialized, is_suspended, suspension_reason, suspension_exception_name,
    creation_time, last_updated_time, pending_timer, active_bookmarks,
    current_machine, last_machine, lock_owner, lock_token, lock_expiration, version, parent_id, subflow,
    state_encoding, promoted
from (select * from family order by depth, instance_id limit %(limit)s::bigint) f
join holdfast.instances i on i.instance_id = f.instance_id
order by f.depth, f.instance_id;

-- name: tally
select app, workflow, execution_status, outcome, is_initialized, is_suspended, count(*) as instances
from holdfast.instance_rows
where (%(app)s::text is null or app = %(app)s::text)
group by app, workflow, execution_status, outcome, is_initialized, is_suspended
order by app, workflow, execution_status, outcome nulls first, is_initialized, is_suspended;

-- name: bookmarks
select name, kind, message_type, correlation_key, due, line, opened_at
from holdfast.bookmarks
where instance_id = %(instance_id)s::uuid
order by name;

-- name: non_persisted
select
    instance_id, app, workflow, correlation_key, start_message_id, start_message_verdict, class as class_, creation_time,
    age, expected_lifetime, is_overdue, current_machine, last_machine, suspension_reason, suspension_exception_name,
    parent_id, subflow
from holdfast.non_persisted
where (%(instance_id)s::uuid is null or instance_id = %(instance_id)s::uuid)
    and (%(app)s::text is null or app = %(app)s::text)
    and (%(class_)s::text is null or class = %(class_)s::text)
    and (%(older_than)s::interval is null or age >= %(older_than)s::interval)
    and (%(is_overdue)s::boolean is null or is_overdue = %(is_overdue)s::boolean)
    and (%(after)s::uuid is null or instance_id < %(after)s::uuid)
order by instance_id desc
limit %(limit)s::bigint;

-- name: dead_letters
-- Newest first, from both tables; the place of the last one seen is given as (at, box, message_id).
select *
from (
    select
        'inbox' as box, app, message_id, type, correlation_key, reason, detail, instance_id,
        received_at as at, octet_length(body) as size
    from holdfast.inbox
    where verdict = 'dead_lettered'
    union all
    select
        'outbox', app, message_id, type, correlation_key, dead_reason, null, instance_id,
        created_at, octet_length(body)
    from holdfast.outbox
    where dead_reason is not null
) letters
where (%(app)s::text is null or app = %(app)s::text)
    and (
        %(at)s::timestamptz is null
        or (at, box, message_id) < (%(at)s::timestamptz, %(box)s::text, %(message_id)s::text)
    )
order by at desc, box desc, message_id desc
limit %(limit)s::bigint;

-- name: dead_letter
select
    'inbox' as box, app, message_id, type, correlation_key, reason, detail, instance_id,
    received_at as at, octet_length(body) as size, body, traceparent
from holdfast.inbox
where app = %(app)s::text and message_id = %(message_id)s::text and verdict = 'dead_lettered'
union all
select
    'outbox', app, message_id, type, correlation_key, dead_reason, null, instance_id,
    created_at, octet_length(body), body, traceparent
from holdfast.outbox
where app = %(app)s::text and message_id = %(message_id)s::text and dead_reason is not null
limit 1;
