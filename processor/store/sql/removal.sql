-- name: to_be_removed
-- Locked, so that no host takes it up until the end of the transaction.
select
    r.app, r.workflow, r.awaited_as,
    exists (
        select from holdfast.bookmarks b
        where b.app = r.app and b.message_type = %(result_type)s and b.correlation_key = r.awaited_as::text
    )
from holdfast.instance_rows r
where r.instance_id = %(instance_id)s and (%(app)s::text is null or r.app = %(app)s::text)
for update of r;

-- name: remove
delete from holdfast.instances where instance_id = %(instance_id)s;
