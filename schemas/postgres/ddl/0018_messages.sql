-- Counts of messages by type and verdict that are kept, as those of instances are: each statement that changes what became of
-- messages adds, in its own transaction, a row for each type and verdict that it changed the number of. Workers merge them.

create table holdfast.message_tally_rows (
    app text not null,
    type text not null,
    verdict text not null,
    change bigint not null
);

comment on table holdfast.message_tally_rows is 'By how many the messages of a type with a verdict became more or less; read the view holdfast.messages_by_verdict.';

-- What is deleted had its verdict for good and stays counted; only what was still buffered has never had another one.
create function holdfast.keep_message_tally() returns trigger
    language plpgsql
    as $$
begin
    case tg_op
        when 'INSERT' then
            insert into holdfast.message_tally_rows
            select app, type, verdict, count(*)
            from became
            where kind = 'message'
            group by app, type, verdict;
        when 'UPDATE' then
            insert into holdfast.message_tally_rows
            select app, type, verdict, sum(change)
            from (
                select app, type, verdict, 1 from became where kind = 'message'
                union all
                select app, type, verdict, -1 from was where kind = 'message'
            ) changed (app, type, verdict, change)
            group by app, type, verdict
            having sum(change) <> 0;
        when 'DELETE' then
            insert into holdfast.message_tally_rows
            select app, type, verdict, -count(*)
            from was
            where kind = 'message' and verdict = 'buffered'
            group by app, type, verdict;
        when 'TRUNCATE' then
            insert into holdfast.message_tally_rows
            select app, type, verdict, -sum(change)
            from holdfast.message_tally_rows
            where verdict = 'buffered'
            group by app, type, verdict
            having sum(change) <> 0;
    end case;
    return null;
end
$$;

-- The triggers come first: from then on nobody else takes messages in until this transaction ends, so that none is missed.
create trigger new_messages_are_counted
    after insert on holdfast.inbox
    referencing new table as became
    for each statement execute function holdfast.keep_message_tally();

create trigger changed_messages_are_counted
    after update on holdfast.inbox
    referencing old table as was new table as became
    for each statement execute function holdfast.keep_message_tally();

create trigger deleted_messages_are_counted
    after delete on holdfast.inbox
    referencing old table as was
    for each statement execute function holdfast.keep_message_tally();

create trigger truncated_messages_are_counted
    after truncate on holdfast.inbox
    for each statement execute function holdfast.keep_message_tally();

insert into holdfast.message_tally_rows
select app, type, verdict, count(*)
from holdfast.inbox
where kind = 'message'
group by app, type, verdict;

create or replace view holdfast.messages_by_verdict as
select app, type, verdict, sum(change)::bigint as messages
from holdfast.message_tally_rows
group by app, type, verdict
having sum(change) <> 0;

comment on view holdfast.messages_by_verdict is 'How many messages of a type have which verdict: kept, not counted, and exact at every moment. What retention removes stays counted; a duplicate is not.';
comment on column holdfast.messages_by_verdict.messages is 'How many there are or were: with a final verdict, all since the first; buffered, those that wait now.';

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant select on holdfast.message_tally_rows to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert, update, delete on holdfast.message_tally_rows to holdfast_worker;
    end if;
end
$$;
