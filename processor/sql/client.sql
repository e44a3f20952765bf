-- name: apps_of_dead_letter
select app from holdfast.inbox where message_id = %(message_id)s and verdict = 'dead_lettered'
union
select app from holdfast.outbox where message_id = %(message_id)s and dead_reason is not null
order by app;

-- name: requeue_inbox
-- Received anew: a time to live that ran out while it was a dead letter must not end it at once. What came to the
-- control queue would wait for nobody, and history that was replayed is for no instance.
update holdfast.inbox
set verdict = 'buffered', reason = null, detail = null, received_at = clock_timestamp()
where app = %(app)s and message_id = %(message_id)s and verdict = 'dead_lettered' and kind = 'message'
    and body is not null and reason is distinct from 'replayed'
returning message_id;

-- name: requeue_outbox
update holdfast.outbox
set dead_reason = null
where app = %(app)s and message_id = %(message_id)s and dead_reason is not null
returning message_id;

-- name: drop_inbox
-- The row stays, so that the message is known when it comes again.
update holdfast.inbox
set verdict = 'rejected', reason = 'dropped', body = null
where app = %(app)s and message_id = %(message_id)s and verdict = 'dead_lettered'
returning message_id;

-- name: drop_outbox
delete from holdfast.outbox
where app = %(app)s and message_id = %(message_id)s and dead_reason is not null
returning message_id;
