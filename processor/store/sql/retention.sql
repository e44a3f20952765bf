-- name: blocks
select pg_relation_size(%(table)s::text::regclass) / current_setting('block_size')::bigint;

-- name: remove_instances
select holdfast.remove_instances(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
);

-- name: remove_streams
select r.streams, r.events
from holdfast.remove_streams(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
) r;

-- name: remove_messages
select holdfast.remove_messages(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
);

-- name: remove_attempts
select holdfast.remove_attempts(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
);

-- name: remove_heartbeats
select holdfast.remove_heartbeats(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
);

-- name: remove_dead_letters
select holdfast.remove_dead_letters(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
);

-- name: remove_unroutable
select holdfast.remove_unroutable(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
);

-- name: remove_programs
select holdfast.remove_programs(
    %(app)s::text, %(age)s::interval, %(first)s::bigint, %(last)s::bigint, %(for_real)s::boolean
);
