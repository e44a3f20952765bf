-- What queries need: counts that are kept, an index for each thing that instances are found by, and a comment on every
-- view and column.

-- Counts. Each statement that changes how instances are adds, in its own transaction, a row for each condition that it
-- changed the number of. Nobody waits for anybody, and adding the rows up gives the number at any moment. Workers merge them.

create table holdfast.tally_rows (
    app text not null,
    workflow text not null,
    program_hash text not null,
    execution_status text not null,
    outcome text,
    is_initialized boolean not null,
    is_suspended boolean not null,
    change bigint not null
);

comment on table holdfast.tally_rows is 'By how many the instances in a condition became more or less; read the view holdfast.tally.';

create view holdfast.tally as
select
    app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, sum(change)::bigint as instances
from holdfast.tally_rows
group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended
having sum(change) <> 0;

create function holdfast.keep_tally() returns trigger
    language plpgsql
    as $$
begin
    case tg_op
        when 'INSERT' then
            insert into holdfast.tally_rows
            select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, count(*)
            from became
            group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended;
        when 'UPDATE' then
            insert into holdfast.tally_rows
            select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, sum(change)
            from (
                select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, 1
                from became
                union all
                select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, -1
                from was
            ) changed (app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, change)
            group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended
            having sum(change) <> 0;
        when 'DELETE' then
            insert into holdfast.tally_rows
            select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, -count(*)
            from was
            group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended;
        when 'TRUNCATE' then
            delete from holdfast.tally_rows;
    end case;
    return null;
end
$$;

-- The triggers come first: from then on nobody else writes instances until this transaction ends, so that none is missed.
create trigger registered_instances_are_counted
    after insert on holdfast.instance_rows
    referencing new table as became
    for each statement execute function holdfast.keep_tally();

create trigger changed_instances_are_counted
    after update on holdfast.instance_rows
    referencing old table as was new table as became
    for each statement execute function holdfast.keep_tally();

create trigger removed_instances_are_counted
    after delete on holdfast.instance_rows
    referencing old table as was
    for each statement execute function holdfast.keep_tally();

create trigger truncated_instances_are_counted
    after truncate on holdfast.instance_rows
    for each statement execute function holdfast.keep_tally();

insert into holdfast.tally_rows
select app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended, count(*)
from holdfast.instance_rows
group by app, workflow, program_hash, execution_status, outcome, is_initialized, is_suspended;

-- Indexes. They are about what never changes or changes as an instance ends, or are partial, so that most updates of an
-- instance leave them alone. The first has a region for each program of an app and outcome, or none, with the instances in
-- the order of their ids: a query finds in the tally which regions there are, and merges the beginnings of those that fit. A
-- hash of the program's hash is enough to tell programs apart, and is a sixteenth as long.

create index instance_regions on holdfast.instance_rows
    (hashtext(program_hash), app, coalesce(outcome, ''), instance_id);
create index instance_created on holdfast.instance_rows (creation_time);
create index instance_ended on holdfast.instance_rows (last_updated_time, instance_id) where is_completed;
create index instance_suspended on holdfast.instance_rows (instance_id) where is_suspended;
create index instance_within on holdfast.instance_rows (instance_id) where subflow = 'run' and not is_completed;
-- Not of the type itself: a look for one type and key must never be tempted to go through all of the type.
create index bookmark_type on holdfast.bookmarks (coalesce(message_type, ''), instance_id);
create index bookmark_name on holdfast.bookmarks (name, instance_id);

-- Comments.

comment on view holdfast.tally is 'How many instances of each workflow are in which condition: kept, not counted, and exact at every moment.';
comment on column holdfast.tally.app is 'The app that they belong to.';
comment on column holdfast.tally.workflow is 'The name of their workflow.';
comment on column holdfast.tally.program_hash is 'The program that they run on: a version of the workflow.';
comment on column holdfast.tally.execution_status is 'executing, idle or closed.';
comment on column holdfast.tally.outcome is 'completed, faulted, cancelled or terminated; null while they live.';
comment on column holdfast.tally.is_initialized is 'False until the first persistence point.';
comment on column holdfast.tally.is_suspended is 'Whether they stand still until they are resumed.';
comment on column holdfast.tally.instances is 'How many instances are so.';

comment on column holdfast.instances.instance_id is 'A UUIDv7: ids made later are greater.';
comment on column holdfast.instances.app is 'The app that it belongs to.';
comment on column holdfast.instances.workflow is 'The name of its workflow.';
comment on column holdfast.instances.program_hash is 'The program that it runs on, in holdfast.programs.';
comment on column holdfast.instances.correlation_key is 'The business value by which messages find it.';
comment on column holdfast.instances.partition is 'The partition of RabbitMQ that its start message came from.';
comment on column holdfast.instances.start_message_id is 'The message that started it.';
comment on column holdfast.instances.execution_status is 'executing, idle (it waits) or closed.';
comment on column holdfast.instances.outcome is 'completed, faulted, cancelled or terminated; null while it lives.';
comment on column holdfast.instances.is_suspended is 'Whether it stands still until it is resumed.';
comment on column holdfast.instances.is_completed is 'Whether it has ended, whatever its outcome.';
comment on column holdfast.instances.suspension_reason is 'Why it is suspended.';
comment on column holdfast.instances.suspension_exception_name is 'The class of the exception that suspended it, with its module.';
comment on column holdfast.instances.creation_time is 'When it was registered.';
comment on column holdfast.instances.last_updated_time is 'When it last committed, was suspended or was resumed.';
comment on column holdfast.instances.pending_timer is 'When its next timer is due; null if it waits for none.';
comment on column holdfast.instances.active_bookmarks is 'The names of its bookmarks: the places where it waits.';
comment on column holdfast.instances.last_machine is 'Where it was loaded last.';
comment on column holdfast.instances.lock_token is 'Grows with each lock and fences stale owners; null if no living host holds it.';
comment on column holdfast.instances.lock_expiration is 'When the lease of the host that holds it lapses unless it is renewed.';
comment on column holdfast.instances.version is 'The number of its events.';
comment on column holdfast.instances.state_encoding is 'How the state is stored: none or gzip; null while there is none.';

comment on column holdfast.non_persisted.instance_id is 'A UUIDv7: ids made later are greater.';
comment on column holdfast.non_persisted.app is 'The app that it belongs to.';
comment on column holdfast.non_persisted.workflow is 'The name of its workflow.';
comment on column holdfast.non_persisted.correlation_key is 'The business value by which messages find it.';
comment on column holdfast.non_persisted.start_message_id is 'The message that started it.';
comment on column holdfast.non_persisted.creation_time is 'When it was registered.';
comment on column holdfast.non_persisted.age is 'How long ago that was.';
comment on column holdfast.non_persisted.expected_lifetime is 'How long its workflow expects an instance to take; null if it does not say.';
comment on column holdfast.non_persisted.current_machine is 'Where it is loaded now; null if no living host holds it.';
comment on column holdfast.non_persisted.last_machine is 'Where it was loaded last.';
comment on column holdfast.non_persisted.suspension_reason is 'Why it is suspended.';
comment on column holdfast.non_persisted.suspension_exception_name is 'The class of the exception that suspended it, with its module.';
comment on column holdfast.non_persisted.parent_id is 'The instance that brought this one into being, if one did.';
comment on column holdfast.non_persisted.subflow is 'How it did: run, start, spawn or continued.';

comment on column holdfast.projection_lag.app is 'The app whose events it takes.';
comment on column holdfast.projection_lag.name is 'The name of the projection or the event feed.';
comment on column holdfast.projection_lag.build is 'live: what readers see; next: what is being built to take its place.';
comment on column holdfast.projection_lag.version is 'Of the code that builds it, as the projection says.';
comment on column holdfast.projection_lag.schema_name is 'Where readers find its tables; null for an event feed.';
comment on column holdfast.projection_lag.status is 'running or stopped.';
comment on column holdfast.projection_lag.cursor is 'Its checkpoint: the place in the log up to which it has come.';
comment on column holdfast.projection_lag.handled is 'Events that its handlers took.';
comment on column holdfast.projection_lag.skipped is 'Events that it could not take and passed over; see holdfast.skipped_events.';
comment on column holdfast.projection_lag.error is 'Why it stands still, or what failed last and is being tried again.';
comment on column holdfast.projection_lag.failed_instance_id is 'With failed_version: the event that it stopped at.';
comment on column holdfast.projection_lag.failed_version is 'With failed_instance_id: the event that it stopped at.';
comment on column holdfast.projection_lag.updated_at is 'When its checkpoint moved last.';

comment on column holdfast.messages_by_verdict.app is 'The app that the messages are for.';
comment on column holdfast.messages_by_verdict.type is 'Their type.';
comment on column holdfast.messages_by_verdict.verdict is 'What became of them: applied, buffered, rejected, expired or dead_lettered.';
comment on column holdfast.messages_by_verdict.messages is 'How many there are.';

-- Who only looks has no use for what makes schemas, not even in vain.

revoke execute
    on function holdfast.create_schema(text), holdfast.drop_schema(text), holdfast.rename_schema(text, text),
    holdfast.open_to_observers(text)
    from public;

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant select on holdfast.tally_rows, holdfast.tally to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert, update, delete on holdfast.tally_rows to holdfast_worker;
        grant execute
            on function holdfast.create_schema(text), holdfast.drop_schema(text), holdfast.rename_schema(text, text),
            holdfast.open_to_observers(text)
            to holdfast_worker;
    end if;
end
$$;
