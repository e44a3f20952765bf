-- name: create_durations
create table clocks (
    instance_id uuid primary key,
    workflow text not null,
    began timestamptz not null,
    last timestamptz not null
) with (fillfactor = 80);

create table waits (
    instance_id uuid not null,
    bookmark text not null,
    since timestamptz not null,
    primary key (instance_id, bookmark)
);

create table buckets (
    workflow text not null,
    line integer not null,
    kind text not null,
    name text not null,
    bucket integer not null,
    count bigint not null,
    seconds double precision not null,
    primary key (workflow, line, kind, name, bucket)
) with (fillfactor = 50);

create view durations as
select
    workflow,
    line,
    kind,
    name,
    sum(count)::bigint as count,
    make_interval(secs => sum(seconds) / sum(count)) as mean,
    make_interval(secs => power(1.1, min(bucket) filter (where up_to >= 0.5 * total) - 0.5)) as p50,
    make_interval(secs => power(1.1, min(bucket) filter (where up_to >= 0.9 * total) - 0.5)) as p90,
    make_interval(secs => power(1.1, min(bucket) filter (where up_to >= 0.99 * total) - 0.5)) as p99,
    make_interval(secs => power(1.1, max(bucket))) as longest
from (
    select
        b.*,
        sum(count) over (partition by workflow, line, kind, name order by bucket) as up_to,
        sum(count) over (partition by workflow, line, kind, name) as total
    from buckets b
) ranked
group by workflow, line, kind, name;

comment on table clocks is 'When instances that have not ended began, and when they were last heard of.';
comment on table waits is 'Since when they wait where.';
comment on table buckets is 'How many durations of a step were about so long; each bucket is a tenth wider than the one before it.';
comment on view durations is 'How long each step takes: an activity, a wait for a message, a timer or a subflow, and whole instances (line 0).';

-- name: clocks
select
    c.instance_id, c.workflow, c.began, c.last,
    array(select w.bookmark from waits w where w.instance_id = c.instance_id order by w.bookmark),
    array(select w.since from waits w where w.instance_id = c.instance_id order by w.bookmark)
from clocks c
where c.instance_id = any(%(instance_ids)s::uuid[]);

-- name: save_clocks
insert into clocks (instance_id, workflow, began, last)
select * from unnest(%(instance_ids)s::uuid[], %(workflows)s::text[], %(began)s::timestamptz[], %(last)s::timestamptz[])
on conflict (instance_id) do update set last = excluded.last;

-- name: forget_waits
delete from waits where instance_id = any(%(instance_ids)s::uuid[]);

-- name: save_waits
insert into waits (instance_id, bookmark, since)
select * from unnest(%(instance_ids)s::uuid[], %(bookmarks)s::text[], %(since)s::timestamptz[]);

-- name: forget_clocks
delete from clocks where instance_id = any(%(instance_ids)s::uuid[]);

-- name: count_durations
insert into buckets as b (workflow, line, kind, name, bucket, count, seconds)
select *
from unnest(
    %(workflows)s::text[], %(lines)s::int[], %(kinds)s::text[], %(names)s::text[], %(buckets)s::int[],
    %(counts)s::bigint[], %(seconds)s::float8[]
)
on conflict (workflow, line, kind, name, bucket) do update
set count = b.count + excluded.count, seconds = b.seconds + excluded.seconds;
