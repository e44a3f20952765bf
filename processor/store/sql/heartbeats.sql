-- name: beat
insert into holdfast.heartbeats (app, request, due)
select %(app)b, g.request, clock_timestamp() + make_interval(secs => g.seconds)
from unnest(%(requests)b::text[], %(seconds)b::float8[]) as g (request, seconds)
where exists (
    select from holdfast.bookmarks b
    where b.app = %(app)b and b.kind <> 'timer' and b.message_type = %(result_type)b and b.correlation_key = g.request
)
order by g.request
on conflict (app, request) do update set due = excluded.due;

-- name: silent
-- What was answered meanwhile is found too, as it is to be forgotten.
select
    h.request,
    exists (
        select from holdfast.bookmarks b
        where b.app = h.app and b.kind <> 'timer' and b.message_type = %(result_type)b
            and b.correlation_key = h.request
    )
from holdfast.heartbeats h
where h.app = %(app)b and h.due <= statement_timestamp()
order by h.due
limit %(limit)b::int;

-- name: forget_heartbeats
delete from holdfast.heartbeats
where app = %(app)b and request = any(%(requests)b::text[]) and due <= statement_timestamp();
