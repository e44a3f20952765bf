-- name: create_overview
create table conditions (
    instance_id uuid primary key,
    workflow text not null,
    is_suspended boolean not null,
    is_idle boolean not null,
    outcome text,
    status text generated always as (
        case when outcome is not null then outcome when is_suspended then 'suspended' when is_idle then 'idle' else 'executing' end
    ) stored
) with (fillfactor = 80);

create table overview (
    workflow text not null,
    status text not null,
    instances bigint not null,
    primary key (workflow, status)
) with (fillfactor = 50);

comment on table conditions is 'How each instance is.';
comment on table overview is 'How many instances of a workflow are in a status; zero for one that they have all left.';

-- name: change_overview
with merged as (
    select
        n.instance_id,
        coalesce(c.workflow, n.workflow, 'unknown') as workflow,
        coalesce(n.is_suspended, c.is_suspended, false) as is_suspended,
        coalesce(n.is_idle, c.is_idle, false) as is_idle,
        coalesce(n.outcome, c.outcome) as outcome,
        c.status as status_before
    from unnest(
        %(instance_ids)s::uuid[], %(workflows)s::text[], %(suspended)s::boolean[], %(idle)s::boolean[],
        %(outcomes)s::text[]
    ) as n (instance_id, workflow, is_suspended, is_idle, outcome)
    left join conditions c using (instance_id)
), changed as (
    insert into conditions (instance_id, workflow, is_suspended, is_idle, outcome)
    select instance_id, workflow, is_suspended, is_idle, outcome from merged
    on conflict (instance_id) do update
    set is_suspended = excluded.is_suspended, is_idle = excluded.is_idle, outcome = excluded.outcome
    returning workflow, status
)
insert into overview as o (workflow, status, instances)
select workflow, status, sum(change)
from (
    select workflow, status, 1 from changed
    union all
    select workflow, status_before, -1 from merged where status_before is not null
) c (workflow, status, change)
group by workflow, status
having sum(change) <> 0
on conflict (workflow, status) do update set instances = o.instances + excluded.instances;
