-- name: why_not_advanced
-- The versions of those that the host holds after all.
select r.instance_id, r.version
from unnest(%(instance_ids)b::uuid[], %(hosts)b::uuid[], %(lock_tokens)b::bigint[]) as b (instance_id, host_id, lock_token)
join holdfast.instance_rows r
    on r.instance_id = b.instance_id
    and r.lock_owner = b.host_id
    and r.lock_token = b.lock_token
    and not r.is_completed
join holdfast.hosts h on h.host_id = b.host_id and h.lease_expiration > clock_timestamp();

-- name: keys_in_use
select distinct on (w.instance_id) w.instance_id, w.type, w.key
from unnest(%(instance_ids)b::uuid[], %(types)b::text[], %(keys)b::text[])
    with ordinality as w (instance_id, type, key, ordinal)
join holdfast.instance_rows r on r.instance_id = w.instance_id
join holdfast.bookmarks b
    on b.app = r.app
    and b.kind <> 'timer'
    and b.message_type = w.type
    and b.correlation_key = w.key
    and b.instance_id <> w.instance_id
order by w.instance_id, w.ordinal;

-- name: discard
-- Of instances that this transaction has closed, the log is to be all that stays.
select holdfast.discard(%(instance_ids)s::uuid[]);

-- name: begin
begin;

-- name: commit
commit;

-- name: rollback
rollback;

-- name: mark
-- One name does for all: the newest savepoint of a name hides the older ones, and they are there again once it is gone.
savepoint holdfast_mark;

-- name: back_to_mark
rollback to savepoint holdfast_mark;

-- name: drop_mark
release savepoint holdfast_mark;

-- name: open_unit_of_work
select
    pg_current_xact_id()::text,
    set_config('idle_in_transaction_session_timeout', %(milliseconds)s::text, true);

-- name: transaction_status
-- A server that fell before it wrote down what a transaction did gives the transaction's id to another one. So what has
-- committed under the id is the transaction in question only if the first event of its batch is there.
select case
    when s.status <> 'committed' then s.status
    when exists (
        select from holdfast.events e
        where e.instance_id = %(instance_id)s
            and e.version = %(version)s
            and e.xid = %(xid)s::text::xid8
            and coalesce(e.metadata ->> 'host', %(host_id)s::text) = %(host_id)s::text
    ) then 'committed'
    else 'aborted'
end
from (select pg_xact_status(%(xid)s::text::xid8) as status) s;
