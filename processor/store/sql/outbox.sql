-- name: unpublished
-- What a host has committed it publishes, for as long as it lives; a message waits for the older ones of
-- its instance, whoever publishes them.
select o.message_id, o.exchange, o.routing_key, o.type, o.correlation_key, o.body, o.traceparent
from holdfast.outbox o
where o.app = %(app)b
    and o.dead_reason is null
    and not exists (
        select from holdfast.hosts h
        where h.host_id = o.host_id and h.host_id <> %(host_id)b::uuid and h.lease_expiration > clock_timestamp()
    )
    and not exists (
        select from holdfast.outbox older
        join holdfast.hosts h
            on h.host_id = older.host_id and h.host_id <> %(host_id)b::uuid and h.lease_expiration > clock_timestamp()
        where older.instance_id = o.instance_id and older.sequence < o.sequence and older.dead_reason is null
    )
order by o.sequence
limit %(limit)b::int;

-- name: published
delete from holdfast.outbox where message_id = any(%(message_ids)b::text[]);

-- name: unroutable
update holdfast.outbox set dead_reason = %(reason)s where message_id = %(message_id)s;
