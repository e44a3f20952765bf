-- name: save_programs
insert into holdfast.programs (app, program_hash, workflow, format, program, starts_with, receives, signature)
values (
    %(app)s,
    %(program_hash)s,
    %(workflow)s,
    %(format)s,
    %(program)s::json,
    %(starts_with)s,
    %(receives)s::text[],
    %(signature)s
)
-- A program that was kept before there was a key gets its signature once there is one.
on conflict (app, program_hash) do update set signature = excluded.signature
where programs.signature is null and excluded.signature is not null;

-- name: load_program
select program_hash, workflow, format, program::text, starts_with, receives, signature
from holdfast.programs
where app = %(app)s and program_hash = %(program_hash)s;
