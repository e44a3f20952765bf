-- name: merge_tally
-- Rows of one condition become one. What somebody else is merging is left to him, and what is not committed is not seen.
with several as (
    select r.ctid as place
    from (
        select
            ctid,
            count(*) over (
                partition by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended
            ) as rows
        from holdfast.tally_rows
    ) r
    where r.rows > 1
),
gone as (
    delete from holdfast.tally_rows
    where ctid = any(array(
        select t.ctid
        from holdfast.tally_rows t
        where t.ctid = any(array(select place from several))
        for update skip locked
    ))
    returning *
)
insert into holdfast.tally_rows
select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, sum(change)
from gone
group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended
having sum(change) <> 0;

-- name: merge_message_tally
-- The same for the rows of one type and verdict.
with several as (
    select r.ctid as place
    from (
        select ctid, count(*) over (partition by app, type, verdict) as rows from holdfast.message_tally_rows
    ) r
    where r.rows > 1
),
gone as (
    delete from holdfast.message_tally_rows
    where ctid = any(array(
        select t.ctid
        from holdfast.message_tally_rows t
        where t.ctid = any(array(select place from several))
        for update skip locked
    ))
    returning *
)
insert into holdfast.message_tally_rows
select app, type, verdict, sum(change)
from gone
group by app, type, verdict
having sum(change) <> 0;
