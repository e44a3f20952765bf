-- name: to_be_commanded
-- Locked, so that of two who ask at the same time the second one sees the command of the first.
select
    app, correlation_key, is_completed, is_suspended, suspension_reason,
    case when subflow = 'run' then parent_id end,
    exists (
        select from holdfast.hosts h where h.host_id = r.lock_owner and h.lease_expiration > clock_timestamp()
    ),
    (select m.verdict from holdfast.inbox m where m.app = r.app and m.message_id = %(message_id)s::text)
from holdfast.instance_rows r
where instance_id = %(instance_id)s::uuid
for update of r;

-- name: pending_commands
select message_id, type, correlation_key, body
from holdfast.inbox
where instance_id = %(instance_id)s and kind = 'control' and verdict = 'buffered';

-- name: open_bookmarks
select name, kind from holdfast.bookmarks where instance_id = %(instance_id)s::uuid;

-- name: has_history
select from holdfast.events where instance_id = %(instance_id)s limit 1;
