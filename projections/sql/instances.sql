-- part: shown
    i.instance_id, i.app, i.workflow, i.program_hash, i.correlation_key, i.partition, i.start_message_id,
    i.execution_status, i.outcome, i.is_initialized, i.is_suspended, i.suspension_reason, i.suspension_exception_name,
    i.creation_time, i.last_updated_time, i.pending_timer, i.active_bookmarks,
    i.current_machine, i.last_machine, i.lock_owner, i.lock_token, i.lock_expiration, i.version, i.parent_id, i.subflow,
    i.state_encoding, i.promoted

-- part: waits
-- A bookmark `b` is one that is asked for.
    (%(waits_for)s::text is null or b.message_type between %(waits_for)s::text and %(waits_for)s::text)
    and (%(waits_for_kind)s::text is null or b.kind = %(waits_for_kind)s::text)
    and (%(waits_for_key)s::text is null or b.correlation_key = %(waits_for_key)s::text)
    and (%(waits_at)s::text is null or b.name between %(waits_at)s::text and %(waits_at)s::text)

-- part: fits
-- An instance `r` fits all that is given. What is not given is gone before the planner looks: it plans each query for its
-- values. Keys are indexed by app, so where none is given all are. Whoever executes is held by a host or left to be found,
-- suspended, not yet persisted, or within another one; each of these has an index of its own.
    (%(app)s::text is null or r.app = %(app)s::text)
    and (%(workflow)s::text is null or r.workflow = %(workflow)s::text)
    and (%(program_hash)s::text is null or r.program_hash = %(program_hash)s::text)
    and (%(correlation_key)s::text is null or r.correlation_key = %(correlation_key)s::text)
    and (
        %(correlation_key)s::text is null
        or %(app)s::text is not null
        or r.app = any(array(select distinct t.app from holdfast.tally_rows t))
    )
    and (%(execution_status)s::text is null or r.execution_status = %(execution_status)s::text)
    and (
        %(execution_status)s::text is distinct from 'executing'
        or r.lock_owner is not null
        or r.is_suspended
        or not r.is_initialized
        or r.subflow = 'run' and not r.is_completed
    )
    and (%(outcome)s::text is null or r.outcome between %(outcome)s::text and %(outcome)s::text)
    and (%(is_suspended)s::boolean is null or r.is_suspended = %(is_suspended)s::boolean)
    and (%(is_initialized)s::boolean is null or r.is_initialized = %(is_initialized)s::boolean)
    and (%(is_completed)s::boolean is null or r.is_completed = %(is_completed)s::boolean)
    and (%(older_than)s::interval is null or r.creation_time <= statement_timestamp() - %(older_than)s::interval)
    and (%(younger_than)s::interval is null or r.creation_time > statement_timestamp() - %(younger_than)s::interval)
    and (%(created_since)s::timestamptz is null or r.creation_time >= %(created_since)s::timestamptz)
    and (%(created_before)s::timestamptz is null or r.creation_time < %(created_before)s::timestamptz)
    and (%(updated_since)s::timestamptz is null or r.last_updated_time >= %(updated_since)s::timestamptz)
    and (%(updated_before)s::timestamptz is null or r.last_updated_time < %(updated_before)s::timestamptz)

-- part: fits_beside
-- And so does what lies beside its row.
    (
        coalesce(%(waits_for)s::text, %(waits_for_kind)s::text, %(waits_for_key)s::text, %(waits_at)s::text) is null
        or exists (
            select from holdfast.bookmarks b
            where b.instance_id = r.instance_id
                and
    -- waits
        )
    )
    and (
        %(promoted)s::jsonb is null
        or exists (
            select from holdfast.instance_states s
            where s.instance_id = r.instance_id and s.promoted @> %(promoted)s::jsonb
        )
    )

-- part: page
-- In the order of ids, from behind a place.
    and (
        %(after_id)s::uuid is null
        or case
            when %(descending)s::boolean then r.instance_id < %(after_id)s::uuid
            else r.instance_id > %(after_id)s::uuid
        end
    )
order by
    case when %(descending)s::boolean then r.instance_id end desc,
    case when not %(descending)s::boolean then r.instance_id end
limit %(limit)s::bigint

-- part: found
select
    -- shown
from found f
join holdfast.instances i on i.instance_id = f.instance_id
order by
    case when %(by_time)s::boolean and %(descending)s::boolean then f.at end desc,
    case when %(by_time)s::boolean and not %(descending)s::boolean then f.at end,
    case when %(descending)s::boolean then f.instance_id end desc,
    case when not %(descending)s::boolean then f.instance_id end

-- name: instance
select
    -- shown
from holdfast.instances i
where i.instance_id = %(instance_id)s::uuid;

-- name: instances_by_id
-- In the order of ids, by whichever index says who fits. An unusual outcome leads the order, so that only an index that
-- leads with it gives that order: how rare it is, the planner knows; that it may be long ago, it does not.
with found as materialized (
    select r.instance_id, null::timestamptz as at
    from holdfast.instance_rows r
    where
    -- fits
        and
    -- fits_beside
        and (%(outcome)s::text is null or %(outcome)s::text = 'completed' or r.outcome <> 'completed')
        and (
            %(after_id)s::uuid is null
            or case
                when %(descending)s::boolean then r.instance_id < %(after_id)s::uuid
                else r.instance_id > %(after_id)s::uuid
            end
        )
    order by
        case when %(outcome)s::text <> 'completed' and %(descending)s::boolean then r.outcome end desc,
        case when %(outcome)s::text <> 'completed' and not %(descending)s::boolean then r.outcome end,
        case when %(descending)s::boolean then r.instance_id end desc,
        case when not %(descending)s::boolean then r.instance_id end
    limit %(limit)s::bigint
)
-- found
;

-- name: instances_by_program
-- A page of each program that fits, merged: the index has them apart, each in the order of ids. Comparing rows, and
-- ordering by all of the index, leaves the planner no other way, which would be long where a workflow has rested for long.
with programs as materialized (
    select distinct t.workflow, t.program_hash
    from holdfast.tally_rows t
    where (%(app)s::text is null or t.app = %(app)s::text)
        and (%(workflow)s::text is null or t.workflow = %(workflow)s::text)
        and (%(program_hash)s::text is null or t.program_hash = %(program_hash)s::text)
), found as materialized (
    select r.instance_id, null::timestamptz as at
    from programs p
    cross join lateral (
        select r.instance_id
        from holdfast.instance_rows r
        where (r.workflow, hashtext(r.program_hash), r.instance_id) >= (
                p.workflow,
                hashtext(p.program_hash),
                case
                    when %(descending)s::boolean then '00000000-0000-0000-0000-000000000000'::uuid
                    else coalesce(%(after_id)s::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
                end
            )
            and (r.workflow, hashtext(r.program_hash), r.instance_id) <= (
                p.workflow,
                hashtext(p.program_hash),
                case
                    when %(descending)s::boolean then coalesce(%(after_id)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                    else 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                end
            )
            and r.instance_id is distinct from %(after_id)s::uuid
            -- Two hashes of one workflow may have the same hash.
            and case when r.program_hash = p.program_hash then true else false end
            and
    -- fits
            and
    -- fits_beside
        order by
            case when %(descending)s::boolean then r.workflow end desc,
            case when %(descending)s::boolean then hashtext(r.program_hash) end desc,
            case when %(descending)s::boolean then r.instance_id end desc,
            case when not %(descending)s::boolean then r.workflow end,
            case when not %(descending)s::boolean then hashtext(r.program_hash) end,
            case when not %(descending)s::boolean then r.instance_id end
        limit %(limit)s::bigint
    ) r
    order by
        case when %(descending)s::boolean then r.instance_id end desc,
        case when not %(descending)s::boolean then r.instance_id end
    limit %(limit)s::bigint
)
-- found
;

-- name: instances_by_creation
with found as materialized (
    select r.instance_id, r.creation_time as at
    from holdfast.instance_rows r
    where
    -- fits
        and
    -- fits_beside
        and (
            %(after_id)s::uuid is null
            or case
                when %(descending)s::boolean
                    then (r.creation_time, r.instance_id) < (%(after_time)s::timestamptz, %(after_id)s::uuid)
                else (r.creation_time, r.instance_id) > (%(after_time)s::timestamptz, %(after_id)s::uuid)
            end
        )
    order by
        case when %(descending)s::boolean then r.creation_time end desc,
        case when not %(descending)s::boolean then r.creation_time end,
        case when %(descending)s::boolean then r.instance_id end desc,
        case when not %(descending)s::boolean then r.instance_id end
    limit %(limit)s::bigint
)
-- found
;

-- name: instances_by_update
-- Of those that have ended, whose last update is their last.
with found as materialized (
    select r.instance_id, r.last_updated_time as at
    from holdfast.instance_rows r
    where r.is_completed
        and
    -- fits
        and
    -- fits_beside
        and (
            %(after_id)s::uuid is null
            or case
                when %(descending)s::boolean
                    then (r.last_updated_time, r.instance_id) < (%(after_time)s::timestamptz, %(after_id)s::uuid)
                else (r.last_updated_time, r.instance_id) > (%(after_time)s::timestamptz, %(after_id)s::uuid)
            end
        )
    order by
        case when %(descending)s::boolean then r.last_updated_time end desc,
        case when not %(descending)s::boolean then r.last_updated_time end,
        case when %(descending)s::boolean then r.instance_id end desc,
        case when not %(descending)s::boolean then r.instance_id end
    limit %(limit)s::bigint
)
-- found
;

-- name: instances_by_bookmark
-- What is waited for, or where, leads the order, for the reason above. A timer is what waits for no type of message.
with found as materialized (
    select distinct
        case when %(waits_at)s::text is null then r.message_type end as message_type,
        case when %(waits_at)s::text is not null then r.name end as name,
        r.instance_id,
        null::timestamptz as at
    from (
        select b.instance_id, b.message_type, b.name
        from holdfast.bookmarks b
        where (%(waits_for_kind)s::text is distinct from 'timer' or b.message_type is null)
            and (
                %(waits_for_key)s::text is null
                or b.app = any(coalesce(
                    array[%(app)s::text], array(select distinct t.app from holdfast.tally_rows t)
                ))
            )
            and
    -- waits
    ) b
    join holdfast.instance_rows r on true
    limit 0
)
-- found
;
