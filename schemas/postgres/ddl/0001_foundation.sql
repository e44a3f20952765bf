-- The foundation: the log, the instance store, messages, hosts and programs.

create schema if not exists holdfast;

comment on schema holdfast is 'Holdfast: event log, instance store, inbox and outbox of durable workflows.';

-- The cluster that this database lives in, so that a restore elsewhere is noticed.

create table holdfast.cluster (
    singleton boolean primary key default true check (singleton),
    epoch integer not null default 1 check (epoch > 0),
    system_identifier text not null
);

comment on table holdfast.cluster is 'One row: the epoch of the log, raised when the database moves to another cluster.';

insert into holdfast.cluster (system_identifier)
select system_identifier::text from pg_control_system();

create function holdfast.current_epoch() returns integer
    language sql stable parallel safe
    as 'select epoch from holdfast.cluster';

-- The log.

create table holdfast.events (
    position bigint generated always as identity,
    epoch integer not null default holdfast.current_epoch(),
    xid xid8 not null default pg_current_xact_id(),
    instance_id uuid not null,
    version bigint not null check (version > 0),
    type text not null,
    data json not null,
    metadata json not null,
    recorded_at timestamptz not null default statement_timestamp(),
    primary key (instance_id, version)
);

create unique index events_in_commit_order on holdfast.events (epoch, xid, position);

comment on table holdfast.events is 'The append-only log: what happened, one row an event, never changed.';
comment on column holdfast.events.position is 'Place in the whole log; order by (epoch, xid, position), never by position alone.';
comment on column holdfast.events.epoch is 'Counts the clusters that this database has lived in.';
comment on column holdfast.events.xid is 'The transaction that wrote the event: one persistence point is one xid.';
comment on column holdfast.events.version is 'Place in the stream of its instance, from 1.';

create function holdfast.refuse_change() returns trigger
    language plpgsql
    as $$
begin
    raise exception 'the event log is append-only: % is refused', tg_op using errcode = 'HF001';
end
$$;

create trigger events_are_append_only
    before update or delete on holdfast.events
    for each row execute function holdfast.refuse_change();

create trigger events_are_never_truncated
    before truncate on holdfast.events
    for each statement execute function holdfast.refuse_change();

-- They fire whatever session_replication_role says.
alter table holdfast.events enable always trigger events_are_append_only;
alter table holdfast.events enable always trigger events_are_never_truncated;

-- Programs.

create table holdfast.programs (
    app text not null,
    program_hash text not null,
    workflow text not null,
    format integer not null,
    program json not null,
    starts_with text,
    receives text[] not null default '{}',
    signature bytea,
    created_at timestamptz not null default now(),
    primary key (app, program_hash)
);

comment on table holdfast.programs is 'Compiled workflows; an instance runs on the one it started with.';
comment on column holdfast.programs.receives is 'Message types that the program waits for somewhere.';

-- Hosts.

create table holdfast.hosts (
    host_id uuid primary key,
    app text not null,
    machine text not null,
    process_id integer not null,
    started_at timestamptz not null default now(),
    lease_expiration timestamptz not null,
    programs text[] not null default '{}',
    message_types text[] not null default '{}'
);

create index hosts_by_app on holdfast.hosts (app);

comment on table holdfast.hosts is 'Worker processes; one lives as long as its lease, by the clock of the database.';

-- The instance store: the narrow row that every commit compares and sets, and the state beside it.

create table holdfast.instance_rows (
    instance_id uuid primary key,
    app text not null,
    workflow text not null,
    program_hash text not null,
    correlation_key text not null,
    partition integer not null default 0,
    start_message_id text not null,
    execution_status text not null default 'executing'
        check (execution_status in ('executing', 'idle', 'closed')),
    outcome text check (outcome in ('completed', 'faulted', 'cancelled', 'terminated')),
    is_initialized boolean not null default false,
    is_suspended boolean not null default false,
    is_completed boolean not null default false,
    suspension_reason text,
    suspension_exception_name text,
    creation_time timestamptz not null default now(),
    last_updated_time timestamptz not null default now(),
    pending_timer timestamptz,
    last_machine text,
    lock_owner uuid,
    lock_token bigint not null default 0,
    version bigint not null default 0,
    last_xid xid8,
    check (is_completed = (execution_status = 'closed')),
    check (is_completed = (outcome is not null)),
    check (is_suspended or suspension_reason is null)
) with (fillfactor = 80);

create unique index instance_start_message on holdfast.instance_rows (app, start_message_id);
create unique index instance_living_key on holdfast.instance_rows (app, workflow, correlation_key)
    where not is_completed;
create index instance_key on holdfast.instance_rows (app, correlation_key);
create index instance_locked on holdfast.instance_rows (lock_owner) where lock_owner is not null;
create index instance_non_persisted on holdfast.instance_rows (app, creation_time) where not is_initialized;

comment on table holdfast.instance_rows is 'What a commit compares and sets of an instance; read the view holdfast.instances.';
comment on column holdfast.instance_rows.lock_owner is 'Holds it for as long as the lease lives; the nil UUID marks one that was let go in the middle of a burst.';

create table holdfast.instance_states (
    instance_id uuid primary key,
    state bytea not null,
    state_encoding text not null default 'none' check (state_encoding in ('none', 'gzip')),
    promoted jsonb
) with (fillfactor = 70);

comment on table holdfast.instance_states is 'The folded state of each persisted instance: a cache of the log.';

create table holdfast.bookmarks (
    instance_id uuid not null,
    name text not null,
    app text not null,
    kind text not null check (kind in ('message', 'timer')),
    message_type text,
    correlation_key text,
    due timestamptz,
    line integer not null,
    opened_at timestamptz not null default now(),
    primary key (instance_id, name),
    check ((kind = 'message') = (message_type is not null)),
    check ((kind = 'message') = (correlation_key is not null)),
    check ((kind = 'timer') = (due is not null))
);

create unique index bookmark_key on holdfast.bookmarks (app, message_type, correlation_key)
    where kind = 'message';
create index bookmark_due on holdfast.bookmarks (app, due) where kind = 'timer';

comment on table holdfast.bookmarks is 'Where instances wait: one row for each open message or timer.';

create view holdfast.instances as
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
    s.promoted
from holdfast.instance_rows i
left join holdfast.instance_states s on s.instance_id = i.instance_id
left join holdfast.hosts h on h.host_id = i.lock_owner and h.lease_expiration > clock_timestamp();

comment on view holdfast.instances is 'The instance store: one row an instance, written together with its events.';
comment on column holdfast.instances.is_initialized is 'False until the first persistence point: the instance is non-persisted.';
comment on column holdfast.instances.current_machine is 'Where the instance is loaded now; null if no living host holds it.';
comment on column holdfast.instances.lock_owner is 'The host that holds the lock; null once its lease has lapsed.';
comment on column holdfast.instances.state is 'The folded state as JSON; null where it is stored compressed.';

-- Messages.

create table holdfast.inbox (
    app text not null,
    message_id text not null,
    sequence bigint generated always as identity,
    kind text not null default 'message' check (kind in ('message', 'control')),
    type text not null,
    correlation_key text not null,
    body bytea,
    digest bytea not null,
    traceparent text,
    received_at timestamptz not null default now(),
    verdict text not null
        check (verdict in ('applied', 'buffered', 'rejected', 'expired', 'dead_lettered')),
    reason text,
    detail text,
    instance_id uuid,
    version bigint,
    primary key (app, message_id)
);

create index inbox_buffered on holdfast.inbox (app, correlation_key, type, sequence) where verdict = 'buffered';
create index inbox_addressed on holdfast.inbox (instance_id, sequence) where verdict = 'buffered' and instance_id is not null;
-- For looks through all that is buffered. What is buffered has a body, so this asks for nothing more, but it keeps the
-- index from being taken for looks at one key, where it would look cheap and be read from end to end.
create index inbox_waiting on holdfast.inbox (app, sequence) where verdict = 'buffered' and body is not null;
create index inbox_commands on holdfast.inbox (app, sequence) where verdict = 'buffered' and kind = 'control';
create index inbox_dead_letters on holdfast.inbox (app, sequence) where verdict = 'dead_lettered';

comment on table holdfast.inbox is 'Messages taken in: the durable mailbox of the instances, and what became of each message.';
comment on column holdfast.inbox.digest is 'Tells whether two messages with one id are the same message.';
comment on column holdfast.inbox.body is 'Kept while the message is buffered or dead-lettered; an applied one is in the log.';

create table holdfast.attempts (
    app text not null,
    message_id text not null,
    attempts integer not null check (attempts > 0),
    last_attempt_at timestamptz not null default now(),
    primary key (app, message_id)
);

comment on table holdfast.attempts is 'How often a redelivered or abandoned message was tried; gone with its verdict.';

create table holdfast.outbox (
    message_id text primary key,
    sequence bigint generated always as identity,
    app text not null,
    instance_id uuid not null,
    host_id uuid not null,
    exchange text not null,
    routing_key text not null,
    type text not null,
    correlation_key text not null,
    body bytea not null,
    traceparent text,
    created_at timestamptz not null default now(),
    dead_reason text
);

create index outbox_in_order on holdfast.outbox (app, sequence) where dead_reason is null;
create index outbox_of_instance on holdfast.outbox (instance_id, sequence);

comment on table holdfast.outbox is 'Messages that are committed but not yet confirmed by the broker; a confirmed one is deleted.';
comment on column holdfast.outbox.host_id is 'The host that committed it, which publishes it for as long as it lives.';
comment on column holdfast.outbox.dead_reason is 'Set when the broker could not route the message; it can be resent.';

-- Roles: members of holdfast_worker run workers, members of holdfast_observer may only look. Roles belong to the whole
-- cluster, so another database may have made them, even at this moment; who may not make any goes on without.

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        begin
            if not exists (select from pg_roles where rolname = name) then
                execute format('create role %I nologin', name);
            end if;
        exception
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then raise notice 'role % is missing and cannot be created', name;
        end;
        if exists (select from pg_roles where rolname = name) then
            execute format('grant usage on schema holdfast to %I', name);
            execute format('grant select on all tables in schema holdfast to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert on holdfast.events, holdfast.programs to holdfast_worker;
        grant update (signature) on holdfast.programs to holdfast_worker;
        grant insert, update, delete
            on holdfast.hosts, holdfast.instance_rows, holdfast.instance_states, holdfast.bookmarks,
               holdfast.inbox, holdfast.attempts, holdfast.outbox
            to holdfast_worker;
    end if;
end
$$;
