-- name: begin_replay
insert into holdfast.replays (
    name, app, exchange, queue, criteria, epoch, xid, position, end_epoch, end_xid, end_position
)
values (
    %(name)s::text, %(app)s::text, %(exchange)s::text, %(queue)s::text, %(criteria)s::json,
    %(epoch)s::int, %(xid)s::text::xid8, %(position)s::bigint,
    %(end_epoch)s::int, %(end_xid)s::text::xid8, %(end_position)s::bigint
)
on conflict do nothing
returning name;

-- name: replays
select
    name, app, exchange, queue, criteria::text,
    epoch, xid::text::bigint, position, end_epoch, end_xid::text::bigint, end_position,
    published, runs, started_at, updated_at, finished_at
from holdfast.replays
where (%(app)s::text is null or app = %(app)s::text) and (%(name)s::text is null or name = %(name)s::text)
order by started_at desc, name;

-- name: take_replay
update holdfast.replays
set runs = runs + 1, updated_at = clock_timestamp()
where name = %(name)s::text and finished_at is null;

-- name: move_replay
-- By the process that began to run it last, and no other.
update holdfast.replays
set epoch = %(epoch)s::int,
    xid = %(xid)s::text::xid8,
    position = %(position)s::bigint,
    published = %(published)s::bigint,
    updated_at = clock_timestamp()
where name = %(name)s::text
    and started_at = %(started_at)s::timestamptz
    and runs = %(run)s::int;

-- name: finish_replay
update holdfast.replays
set finished_at = coalesce(finished_at, clock_timestamp()), updated_at = clock_timestamp()
where name = %(name)s::text and started_at = %(started_at)s::timestamptz;

-- name: remove_replay
delete from holdfast.replays where name = %(name)s::text returning name;
