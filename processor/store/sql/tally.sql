-- name: merge_tally
-- Rows of one condition become one. What somebody else is merging is left to him, and what is not committed is not seen.
with gone as (
    delete from holdfast.tally_rows
    where ctid = any(array(select ctid from holdfast.tally_rows for update skip locked))
    returning *
)
insert into holdfast.tally_rows
select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, sum(change)
from gone
group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended
having sum(change) <> 0;
