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
