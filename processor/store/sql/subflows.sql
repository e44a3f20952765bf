-- name: bear
-- New instances that others brought into being, for any host to take up: left to the nil owner, who never lives, and
-- each with its start message in the inbox. Only what is new as a whole comes back.
with given as materialized (
    select *
    from unnest(
        %(instance_ids)b::uuid[],
        %(parent_ids)b::uuid[],
        %(subflows)b::text[],
        %(awaited_as)b::uuid[],
        %(workflows)b::text[],
        %(program_hashes)b::text[],
        %(correlation_keys)b::text[],
        %(partitions)b::int[],
        %(message_ids)b::text[],
        %(types)b::text[],
        %(keys)b::text[],
        %(bodies)b::bytea[],
        %(digests)b::bytea[],
        %(traceparents)b::text[],
        %(reply_tos)b::text[]
    ) as g (
        instance_id, parent_id, subflow, awaited_as, workflow, program_hash, correlation_key, partition, message_id,
        type, key, body, digest, traceparent, reply_to
    )
), born as (
    insert into holdfast.instance_rows (
        instance_id, app, workflow, program_hash, correlation_key, partition, start_message_id, lock_owner, parent_id,
        subflow, awaited_as
    )
    select
        instance_id, %(app)b, workflow, program_hash, correlation_key, partition, message_id,
        '00000000-0000-0000-0000-000000000000', parent_id, subflow, awaited_as
    from given
    order by workflow, correlation_key
    on conflict do nothing
    returning instance_id, app
), mailed as (
    insert into holdfast.inbox (
        app, message_id, type, correlation_key, body, digest, traceparent, reply_to, verdict, instance_id
    )
    select b.app, g.message_id, g.type, g.key, g.body, g.digest, g.traceparent, g.reply_to, 'buffered', b.instance_id
    from born b
    join given g on g.instance_id = b.instance_id
    order by g.message_id
    on conflict do nothing
    returning instance_id
)
select instance_id from mailed;

-- name: hand_on
-- What is addressed to instances that others go on for, to those others.
update holdfast.inbox m
set instance_id = s.successor_id
from unnest(%(instance_ids)b::uuid[], %(successor_ids)b::uuid[]) as s (instance_id, successor_id)
where m.instance_id = s.instance_id and m.verdict = 'buffered';

-- name: read_states
select r.instance_id, r.version, s.state, s.state_encoding
from holdfast.instance_rows r
join holdfast.instance_states s on s.instance_id = r.instance_id
where r.instance_id = any(%(instance_ids)b::uuid[]) and r.app = %(app)b;

-- name: advance_inner
-- Subflows that run within their parents, whose rows this transaction has locked and fenced already.
with given as materialized (
    select *
    from unnest(
        %(instance_ids)b::uuid[],
        %(held_by)b::uuid[],
        %(parent_ids)b::uuid[],
        %(workflows)b::text[],
        %(program_hashes)b::text[],
        %(correlation_keys)b::text[],
        %(start_message_ids)b::text[],
        %(expected)b::bigint[],
        %(versions)b::bigint[],
        %(statuses)b::text[],
        %(outcomes)b::text[],
        %(suspended)b::boolean[],
        %(reasons)b::text[],
        %(exception_names)b::text[],
        %(states)b::bytea[],
        %(encodings)b::text[],
        %(promoted)b::text[]
    ) as g (
        instance_id, held_by, parent_id, workflow, program_hash, correlation_key, start_message_id, expected, version,
        execution_status, outcome, is_suspended, reason, exception_name, state, state_encoding, promoted
    )
), advanced as (
    insert into holdfast.instance_rows (
        instance_id, app, workflow, program_hash, correlation_key, partition, start_message_id, execution_status,
        outcome, is_initialized, is_suspended, is_completed, suspension_reason, suspension_exception_name,
        last_updated_time, last_machine, version, last_xid, parent_id, subflow
    )
    select
        g.instance_id, h.app, g.workflow, g.program_hash, g.correlation_key, h.partition, g.start_message_id,
        g.execution_status, g.outcome, true, g.is_suspended, g.execution_status = 'closed', g.reason, g.exception_name,
        clock_timestamp(), h.last_machine, g.version, pg_current_xact_id(), g.parent_id, 'run'
    from given g
    join holdfast.instance_rows h on h.instance_id = g.held_by
    left join holdfast.instance_rows own on own.instance_id = g.instance_id
    where g.expected = coalesce(own.version, 0)
    order by g.instance_id
    on conflict (instance_id) do update
    set execution_status = excluded.execution_status,
        outcome = excluded.outcome,
        is_suspended = excluded.is_suspended,
        is_completed = excluded.is_completed,
        suspension_reason = excluded.suspension_reason,
        suspension_exception_name = excluded.suspension_exception_name,
        last_updated_time = excluded.last_updated_time,
        last_machine = excluded.last_machine,
        version = excluded.version,
        last_xid = excluded.last_xid
    where instance_rows.subflow = 'run' and not instance_rows.is_completed
    returning instance_id
), stated as (
    insert into holdfast.instance_states (instance_id, state, state_encoding, promoted)
    select g.instance_id, g.state, g.state_encoding, g.promoted::jsonb
    from advanced a
    join given g on g.instance_id = a.instance_id
    on conflict (instance_id) do update
    set state = excluded.state, state_encoding = excluded.state_encoding, promoted = excluded.promoted
)
select instance_id from advanced;
