-- name: create_variants
create table paths (instance_id uuid primary key, workflow text not null, path text[] not null);

create table variants (
    workflow text not null,
    outcome text not null,
    digest text not null,
    path text[] not null,
    instances bigint not null,
    example uuid not null,
    primary key (workflow, outcome, digest)
);

comment on table paths is 'The steps that instances which have not ended took so far.';
comment on table variants is 'The sequences of steps that ended instances took, each with how many took it.';
comment on column variants.example is 'One of them.';

-- name: extend_paths
insert into paths as p (instance_id, workflow, path)
select
    n.instance_id, coalesce(n.workflow, 'unknown'), (string_to_array(n.steps, chr(31)))[1:%(longest)s::int]
from unnest(%(instance_ids)s::uuid[], %(workflows)s::text[], %(steps)s::text[]) as n (instance_id, workflow, steps)
on conflict (instance_id) do update set path = (p.path || excluded.path)[1:%(longest)s::int];

-- name: count_paths
with ended as (
    delete from paths p
    using unnest(%(instance_ids)s::uuid[], %(outcomes)s::text[]) as e (instance_id, outcome)
    where p.instance_id = e.instance_id
    returning p.instance_id, p.workflow, p.path, e.outcome
)
insert into variants as v (workflow, outcome, digest, path, instances, example)
select workflow, outcome, md5(array_to_string(path, chr(31))), path, count(*), (array_agg(instance_id))[1]
from ended
group by workflow, outcome, path
on conflict (workflow, outcome, digest) do update set instances = v.instances + excluded.instances;
