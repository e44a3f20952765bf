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
on conflict (app, program_hash) do nothing;

-- name: load_program
select program_hash, workflow, format, program::text, starts_with, receives, signature
from holdfast.programs
where app = %(app)s and program_hash = %(program_hash)s;
