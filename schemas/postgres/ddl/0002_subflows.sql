-- Subflows: instances that come out of others, what they and queued activities answer, and where answers go.

alter table holdfast.instance_rows
    add column parent_id uuid,
    add column subflow text check (subflow in ('run', 'start', 'spawn', 'continued')),
    add column awaited_as uuid,
    add check ((parent_id is null) = (subflow is null)),
    add check (awaited_as is null or subflow in ('start', 'continued'));

create index instance_children on holdfast.instance_rows (parent_id) where parent_id is not null;
create unique index instance_awaited on holdfast.instance_rows (awaited_as)
    where awaited_as is not null and not is_completed;

-- What runs within its parent's transactions is the parent's own affair, whatever its key.
drop index holdfast.instance_living_key;
create unique index instance_living_key on holdfast.instance_rows (app, workflow, correlation_key)
    where not is_completed and subflow is distinct from 'run';

comment on column holdfast.instance_rows.parent_id is 'The instance that brought this one into being, if one did.';
comment on column holdfast.instance_rows.subflow is 'How it did: run within its own transactions, start and wait, spawn and not wait, or continued by this one.';
comment on column holdfast.instance_rows.awaited_as is 'The id under which another instance waits for its end: its own, or that of the one in whose place it goes on.';

-- A child's end and an activity's result are messages too, each with a type and a key of its own.
alter table holdfast.bookmarks
    drop constraint bookmarks_kind_check,
    drop constraint bookmarks_check,
    drop constraint bookmarks_check1,
    drop constraint bookmarks_check2,
    add constraint bookmarks_kind_check check (kind in ('message', 'timer', 'child', 'activity')),
    add constraint bookmarks_message_type_check check ((kind = 'timer') = (message_type is null)),
    add constraint bookmarks_correlation_key_check check ((kind = 'timer') = (correlation_key is null)),
    add constraint bookmarks_due_check check ((kind = 'timer') = (due is not null));

drop index holdfast.bookmark_key;
create unique index bookmark_key on holdfast.bookmarks (app, message_type, correlation_key)
    where kind <> 'timer';

comment on table holdfast.bookmarks is 'Where instances wait: one row for each open message, timer, subflow or queued activity.';

alter table holdfast.inbox add column reply_to text;

comment on column holdfast.inbox.reply_to is 'The queue in which the sender waits for an answer.';
comment on column holdfast.inbox.instance_id is 'While it is buffered: the only instance that may take it, if it is addressed. Later: the one that it led to.';

create or replace view holdfast.instances as
select
    i.instance_id,
    i.app,
    i.workflow,
    i.program_hash,
    i.correlation_key,
    i.partition,
    i.start_message_id,
    i.execution_status,
    i.outcome,
    i.is_initialized,
    i.is_suspended,
    i.is_completed,
    i.suspension_reason,
    i.suspension_exception_name,
    i.creation_time,
    i.last_updated_time,
    i.pending_timer,
    (
        select coalesce(array_agg(b.name order by b.name), '{}')
        from holdfast.bookmarks b
        where b.instance_id = i.instance_id
    ) as active_bookmarks,
    h.machine as current_machine,
    i.last_machine,
    h.host_id as lock_owner,
    case when h.host_id is not null then i.lock_token end as lock_token,
    h.lease_expiration as lock_expiration,
    i.version,
    case when s.state_encoding = 'none' then convert_from(s.state, 'UTF8')::json end as state,
    s.state_encoding,
    s.promoted,
    i.parent_id,
    i.subflow
from holdfast.instance_rows i
left join holdfast.instance_states s on s.instance_id = i.instance_id
left join holdfast.hosts h on h.host_id = i.lock_owner and h.lease_expiration > clock_timestamp();

comment on column holdfast.instances.parent_id is 'The instance that brought this one into being, if one did.';
comment on column holdfast.instances.subflow is 'How it did: run, start, spawn or continued.';
comment on column holdfast.instances.promoted is 'What the participants of the workflow give for queries.';
