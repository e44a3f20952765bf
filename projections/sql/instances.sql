-- part: shown
i.instance_id, i.app, i.workflow, i.program_hash, i.correlation_key, i.partition, i.start_message_id,
    i.execution_status, i.outcome, i.is_initialized, i.is_suspended, i.suspension_reason, i.suspension_exception_name,
    i.creation_time, i.last_updated_time, i.pending_timer, i.active_bookmarks,
    i.current_machine, i.last_machine, i.lock_owner, i.lock_token, i.lock_expiration, i.version, i.parent_id, i.subflow,
    i.state_encoding, i.promoted

-- part: is_so
-- An instance `r` is as it is to be. What is not given is gone before the planner chooses: it plans each query for its
-- values. Whoever executes is held by a host or left to be found, or suspended, or not yet persisted, or within another
-- one; each of these has an index of its own.
(%(execution_status)s::text is null or r.execution_status = %(execution_status)s::text)
    and (
        %(execution_status)s::text is distinct from 'executing'
        or r.lock_owner is not null
        or r.is_suspended
        or not r.is_initialized
        or r.subflow = 'run' and not r.is_completed
    )
    and (%(is_suspended)s::boolean is null or r.is_suspended = %(is_suspended)s::boolean)
    and (%(is_initialized)s::boolean is null or r.is_initialized = %(is_initialized)s::boolean)
    and (%(older_than)s::interval is null or r.creation_time <= statement_timestamp() - %(older_than)s::interval)
    and (%(younger_than)s::interval is null or r.creation_time > statement_timestamp() - %(younger_than)s::interval)
    and (%(created_since)s::timestamptz is null or r.creation_time >= %(created_since)s::timestamptz)
    and (%(created_before)s::timestamptz is null or r.creation_time < %(created_before)s::timestamptz)
    and (%(updated_since)s::timestamptz is null or r.last_updated_time >= %(updated_since)s::timestamptz)
    and (%(updated_before)s::timestamptz is null or r.last_updated_time < %(updated_before)s::timestamptz)

-- part: fits
-- It fits all that is given of itself. Keys are indexed by app, so where none is given, all are.
(%(app)s::text is null or r.app = %(app)s::text)
    and (%(workflow)s::text is null or r.workflow = %(workflow)s::text)
    and (%(program_hash)s::text is null or r.program_hash = %(program_hash)s::text)
    and (%(correlation_key)s::text is null or r.correlation_key = %(correlation_key)s::text)
    and (
        %(correlation_key)s::text is null
        or %(app)s::text is not null
        or r.app = any(array(select distinct t.app from holdfast.tally_rows t))
    )
    and (%(outcome)s::text is null or r.outcome = %(outcome)s::text)
    and (%(is_completed)s::boolean is null or r.is_completed = %(is_completed)s::boolean)
    and
    -- is_so

-- part: waits
-- `offset 0` keeps the planner from reading all bookmarks for it.
(
        coalesce(%(waits_for)s::text, %(waits_for_kind)s::text, %(waits_for_key)s::text, %(waits_at)s::text) is null
        or exists (
            select from holdfast.bookmarks b
            where b.instance_id = r.instance_id
                and (%(waits_for)s::text is null or b.message_type = %(waits_for)s::text)
                and (%(waits_for_kind)s::text is null or b.kind = %(waits_for_kind)s::text)
                and (%(waits_for_key)s::text is null or b.correlation_key = %(waits_for_key)s::text)
                and (%(waits_at)s::text is null or b.name = %(waits_at)s::text)
            offset 0
        )
    )

-- part: promotes
(
        %(promoted)s::jsonb is null
        or exists (
            select from holdfast.instance_states s
            where s.instance_id = r.instance_id and s.promoted @> %(promoted)s::jsonb
            offset 0
        )
    )

-- part: in_order
order by
    case when %(descending)s::boolean then r.instance_id end desc,
    case when not %(descending)s::boolean then r.instance_id end
limit %(limit)s::bigint

-- part: of_those
select
    -- shown
from unnest(array(

-- part: in_this_order
)) with ordinality as f (instance_id, place)
join holdfast.instances i on i.instance_id = f.instance_id
order by f.place

-- name: instance
select
    -- shown
from holdfast.instances i
where i.instance_id = %(instance_id)s::uuid;

-- name: instances_in_order
-- Of ids, by whichever index says who fits; or of times. A page of times begins at the narrowest of its bounds, since an
-- index may be entered at any one of several.
-- of_those
select r.instance_id
from holdfast.instance_rows r
where
    -- fits
    and
    -- waits
    and
    -- promotes
    and (%(by)s::text <> 'update' or r.is_completed)
    and case %(by)s::text
        when 'creation' then (r.creation_time, r.instance_id) between (
            greatest(
                %(from_time)s::timestamptz,
                %(created_since)s::timestamptz,
                statement_timestamp() - %(younger_than)s::interval
            ),
            %(from_id)s::uuid
        ) and (
            least(
                %(to_time)s::timestamptz,
                %(created_before)s::timestamptz,
                statement_timestamp() - %(older_than)s::interval
            ),
            %(to_id)s::uuid
        )
        when 'update' then (r.last_updated_time, r.instance_id) between (
            greatest(%(from_time)s::timestamptz, %(updated_since)s::timestamptz), %(from_id)s::uuid
        ) and (
            least(%(to_time)s::timestamptz, %(updated_before)s::timestamptz), %(to_id)s::uuid
        )
        else r.instance_id between %(from_id)s::uuid and %(to_id)s::uuid
    end
order by
    case when %(by)s::text = 'creation' and %(descending)s::boolean then r.creation_time end desc,
    case when %(by)s::text = 'creation' and not %(descending)s::boolean then r.creation_time end,
    case when %(by)s::text = 'update' and %(descending)s::boolean then r.last_updated_time end desc,
    case when %(by)s::text = 'update' and not %(descending)s::boolean then r.last_updated_time end,
    case when %(descending)s::boolean then r.instance_id end desc,
    case when not %(descending)s::boolean then r.instance_id end
limit %(limit)s::bigint
-- in_this_order
;

-- name: instances_by_region
-- The beginning of each region of the index that fits, merged: each has its instances in the order of ids. Comparing rows,
-- and ordering by all that the index has, leaves no other way. The planner would know how many fit, but not that all of
-- them may be long ago.
with regions as materialized (
    select distinct t.app, t.workflow, t.program_hash, coalesce(t.outcome, '') as outcome
    from holdfast.tally_rows t
    where (%(app)s::text is null or t.app = %(app)s::text)
        and (%(workflow)s::text is null or t.workflow = %(workflow)s::text)
        and (%(program_hash)s::text is null or t.program_hash = %(program_hash)s::text)
        and (%(outcome)s::text is null or t.outcome = %(outcome)s::text)
        and (%(is_completed)s::boolean is null or (t.outcome is not null) = %(is_completed)s::boolean)
)
-- of_those
select r.instance_id
from regions g
cross join lateral (
    select r.instance_id
    from holdfast.instance_rows r
    where (hashtext(r.program_hash), r.app, coalesce(r.outcome, ''), r.instance_id)
            between (hashtext(g.program_hash), g.app, g.outcome, %(from_id)s::uuid)
            and (hashtext(g.program_hash), g.app, g.outcome, %(to_id)s::uuid)
        -- Programs may have this hash of their hashes in common, and workflows a program.
        and case when r.program_hash = g.program_hash and r.workflow = g.workflow then true else false end
        and
    -- is_so
        and
    -- waits
        and
    -- promotes
    order by
        case when %(descending)s::boolean then hashtext(r.program_hash) end desc,
        case when %(descending)s::boolean then r.app end desc,
        case when %(descending)s::boolean then coalesce(r.outcome, '') end desc,
        case when %(descending)s::boolean then r.instance_id end desc,
        case when not %(descending)s::boolean then hashtext(r.program_hash) end,
        case when not %(descending)s::boolean then r.app end,
        case when not %(descending)s::boolean then coalesce(r.outcome, '') end,
        case when not %(descending)s::boolean then r.instance_id end
    limit %(limit)s::bigint
) r
-- in_order
-- in_this_order
;

-- name: instances_by_bookmark
-- The type that is waited for, or the place, leads the order, for the same reason. A timer is what waits for no type. An
-- instance is found once, by the first of its bookmarks that fit.
-- of_those
select r.instance_id
from holdfast.bookmarks w
join holdfast.instance_rows r on r.instance_id = w.instance_id
where (
        %(waits_for)s::text is null
        or coalesce(w.message_type, '') between %(waits_for)s::text and %(waits_for)s::text
    )
    and (%(waits_for_kind)s::text is distinct from 'timer' or coalesce(w.message_type, '') between '' and '')
    and (%(waits_for_key)s::text is null or w.message_type = %(waits_for)s::text)
    and (%(waits_at)s::text is null or w.name between %(waits_at)s::text and %(waits_at)s::text)
    and (%(waits_for_key)s::text is null or w.correlation_key = %(waits_for_key)s::text)
    and (
        %(waits_for_key)s::text is null
        or w.kind <> 'timer' and w.app = any(array(
            select distinct t.app from holdfast.tally_rows t where %(app)s::text is null or t.app = %(app)s::text
        ))
    )
    and w.instance_id between %(from_id)s::uuid and %(to_id)s::uuid
    and (%(waits_for_kind)s::text is distinct from 'message' or w.kind = 'message')
    and not exists (
        select from holdfast.bookmarks b
        where b.instance_id = w.instance_id
            and b.name < w.name
            and (%(waits_for)s::text is null or b.message_type = %(waits_for)s::text)
            and (%(waits_for_kind)s::text is null or b.kind = %(waits_for_kind)s::text)
            and (%(waits_for_key)s::text is null or b.correlation_key = %(waits_for_key)s::text)
            and (%(waits_at)s::text is null or b.name = %(waits_at)s::text)
        offset 0
    )
    and
    -- fits
    and
    -- promotes
order by
    case when %(descending)s::boolean and %(waits_at)s::text is null then coalesce(w.message_type, '') end desc,
    case when not %(descending)s::boolean and %(waits_at)s::text is null then coalesce(w.message_type, '') end,
    case when %(descending)s::boolean and %(waits_at)s::text is not null then w.name end desc,
    case when not %(descending)s::boolean and %(waits_at)s::text is not null then w.name end,
    case when %(descending)s::boolean then w.instance_id end desc,
    case when not %(descending)s::boolean then w.instance_id end
limit %(limit)s::bigint
-- in_this_order
;

-- name: instances_by_promoted
-- The index of promoted values knows no order. So a value is looked for among the next few thousand instances first, where
-- a common one fills the page, and only if that is not full by the index, in which a rare one is found at once.
with next as materialized (
    select r.instance_id
    from (
        select r.instance_id, r.promoted
        from holdfast.instance_states r
        where r.instance_id between %(from_id)s::uuid and %(to_id)s::uuid
        order by
            case when %(descending)s::boolean then r.instance_id end desc,
            case when not %(descending)s::boolean then r.instance_id end
        limit %(few)s::bigint
    ) s
    join holdfast.instance_rows r on r.instance_id = s.instance_id
    where s.promoted @> %(promoted)s::jsonb
        and
    -- fits
        and
    -- waits
    -- in_order
), every as materialized (
    select r.instance_id
    from (
        select s.instance_id
        from holdfast.instance_states s
        where s.promoted @> %(promoted)s::jsonb
            and s.promoted is not null
            and (select count(*) from next) < %(limit)s::bigint
        offset 0
    ) s
    join holdfast.instance_rows r on r.instance_id = s.instance_id
    where r.instance_id between %(from_id)s::uuid and %(to_id)s::uuid
        and
    -- fits
        and
    -- waits
    -- in_order
)
-- of_those
select r.instance_id
from (
    select instance_id from next where (select count(*) from next) >= %(limit)s::bigint
    union all
    select instance_id from every
) r
-- in_order
-- in_this_order
;

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
    -- shown
from (select * from family order by depth, instance_id limit %(limit)s::bigint) f
join holdfast.instances i on i.instance_id = f.instance_id
order by f.depth, f.instance_id;

-- name: tally
select
    app, workflow, execution_status, outcome, is_initialized, is_suspended, sum(instances)::bigint as instances
from holdfast.tally
where (%(app)s::text is null or app = %(app)s::text)
    and (%(workflow)s::text is null or workflow = %(workflow)s::text)
    and (%(program_hash)s::text is null or program_hash = %(program_hash)s::text)
group by app, workflow, execution_status, outcome, is_initialized, is_suspended
having sum(instances) <> 0
order by app, workflow, execution_status, outcome nulls first, is_initialized, is_suspended;
