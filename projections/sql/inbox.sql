-- name: messages
select
    app, message_id, sequence, kind, type, correlation_key, received_at, verdict, reason, detail, instance_id, version,
    octet_length(body) as size
from holdfast.inbox
where (%(app)s::text is null or app = %(app)s::text)
    and (%(verdict)s::text is null or verdict = %(verdict)s::text)
    and (%(type)s::text is null or type = %(type)s::text)
    and (%(correlation_key)s::text is null or correlation_key = %(correlation_key)s::text)
    and (%(instance_id)s::uuid is null or instance_id = %(instance_id)s::uuid)
    and (%(since)s::timestamptz is null or received_at >= %(since)s::timestamptz)
    and (%(after)s::bigint is null or sequence < %(after)s::bigint)
order by sequence desc
limit %(limit)s::bigint;

-- name: count_messages
select app, kind, verdict, reason, count(*) as messages
from holdfast.inbox
where (%(app)s::text is null or app = %(app)s::text)
    and (%(verdict)s::text is null or verdict = %(verdict)s::text)
    and (%(type)s::text is null or type = %(type)s::text)
    and (%(correlation_key)s::text is null or correlation_key = %(correlation_key)s::text)
    and (%(instance_id)s::uuid is null or instance_id = %(instance_id)s::uuid)
    and (%(since)s::timestamptz is null or received_at >= %(since)s::timestamptz)
group by app, kind, verdict, reason
order by app, kind desc, verdict, reason nulls first;

-- name: message_tally
select app, type, verdict, messages
from holdfast.messages_by_verdict
where (%(app)s::text is null or app = %(app)s::text)
    and (%(type)s::text is null or type = %(type)s::text)
    and (%(verdict)s::text is null or verdict = %(verdict)s::text)
order by app, type, verdict;
