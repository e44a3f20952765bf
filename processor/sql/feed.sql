-- name: workflows_of
select instance_id, data ->> 'workflow'
from holdfast.events
where instance_id = any(%(instance_ids)s::uuid[]) and version = 1 and type in ('InstanceStarted', 'InstanceForked');

-- name: let_go_of_the_snapshot
-- What a query saw is kept until the next statement. This one sees nothing, so that a transaction which waits after it
-- holds nobody back.
set local application_name = 'holdfast feed';
