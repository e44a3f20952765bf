-- name: save_programs
insert into holdfast.programs (
    app, program_hash, workflow, format, program, starts_with, receives, signature, expected_lifetime, reuse_key
)
values (
    %(app)s,
    %(program_hash)s,
    %(workflow)s,
    %(format)s,
    %(program)s::json,
    %(starts_with)s,
    %(receives)s::text[],
    %(signature)s,
    %(expected_lifetime)s,
    %(reuse_key)s
)
-- A program that was kept before there was a key gets its signature once there is one; of how long it should take, the
-- last word counts. That a host has brought it along keeps it from being removed as one that nobody has.
on conflict (app, program_hash) do update
set signature = coalesce(programs.signature, excluded.signature),
    expected_lifetime = excluded.expected_lifetime,
    brought_at = clock_timestamp();

-- name: reuse_keys
-- Whether keys are used again, a workflow says for all the programs that it ever had.
update holdfast.programs
set reuse_key = %(reuse_key)s
where app = %(app)s
    and workflow = %(workflow)s
    and starts_with is not null
    and reuse_key is distinct from %(reuse_key)s;

-- name: load_program
select program_hash, workflow, format, program::text, starts_with, receives, signature, expected_lifetime, reuse_key
from holdfast.programs
where app = %(app)s and program_hash = %(program_hash)s;

-- name: living_programs
-- Not by way of the instances, which may be many, but by a look for one of each program.
select p.workflow, p.program_hash
from holdfast.programs p
where p.app = %(app)s
    and p.starts_with is not null
    and exists (
        select from holdfast.instance_rows r
        where r.app = p.app and r.workflow = p.workflow and r.program_hash = p.program_hash and not r.is_completed
    )
order by p.workflow, p.program_hash;
