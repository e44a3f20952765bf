-- name: workflows_of
select instance_id, data ->> 'workflow'
from holdfast.events
where instance_id = any(%(instance_ids)s::uuid[]) and version = 1;
