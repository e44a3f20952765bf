-- name: companions
-- What else committed in these transactions: one row for each other stream, with what is known of its instance.
select
    e.epoch, e.xid::text::bigint as xid, e.instance_id, r.workflow, r.parent_id, r.subflow,
    min(e.version) as first_version, max(e.version) as last_version, array_agg(e.type order by e.version) as events
from unnest(%(epochs)b::int[], %(xids)b::text[]) as t (epoch, xid)
join holdfast.events e on e.epoch = t.epoch and e.xid = t.xid::xid8
left join holdfast.instance_rows r on r.instance_id = e.instance_id
where e.instance_id <> %(instance_id)b::uuid
group by e.epoch, e.xid, e.instance_id, r.workflow, r.parent_id, r.subflow
order by e.epoch, e.xid, e.instance_id;

-- name: verdicts
-- What the inbox says of messages that the log says were received; one that is no longer kept there is missing.
select m.message_id, m.verdict, m.version
from unnest(%(message_ids)b::text[]) as g (message_id)
cross join lateral (
    select * from holdfast.inbox x where x.app = %(app)b and x.message_id = g.message_id limit 1
) m
where m.instance_id = %(instance_id)b::uuid;

-- name: place_of_instance
-- Of one that is discarded, as its first event tells.
select app, parent_id, subflow from holdfast.instance_rows where instance_id = %(instance_id)s::uuid
union all
select e.metadata ->> 'app', (e.data ->> 'parent')::uuid, e.data ->> 'subflow'
from holdfast.events e
where e.instance_id = %(instance_id)s::uuid
    and e.version = 1
    and not exists (select from holdfast.instance_rows r where r.instance_id = e.instance_id);
