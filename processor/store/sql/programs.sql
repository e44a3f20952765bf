-- name: save_programs
insert into holdfast.programs (
    app, program_hash, workflow, format, program, starts_with, receives, signature, expected_lifetime
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
    %(expected_lifetime)s
)
-- A program that was kept before there was a key gets its signature once there is one; of how long it should take, the
-- last word counts.
on conflict (app, program_hash) do update
set signature = coalesce(programs.signature, excluded.signature), expected_lifetime = excluded.expected_lifetime
where programs.signature is null and excluded.signature is not null
    or programs.expected_lifetime is distinct from excluded.expected_lifetime;

-- name: load_program
select program_hash, workflow, format, program::text, starts_with, receives, signature, expected_lifetime
from holdfast.programs
where app = %(app)s and program_hash = %(program_hash)s;
