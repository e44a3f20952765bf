-- The tables of the ceiling: the columns and indexes of Holdfast's own that an order touches.

create schema ceiling;

create table ceiling.events (
    position bigint generated always as identity,
    epoch integer not null default 1,
    xid xid8 not null default pg_current_xact_id(),
    instance_id uuid not null,
    version bigint not null check (version > 0),
    type text not null,
    data json not null,
    metadata json not null,
    recorded_at timestamptz not null default now(),
    primary key (instance_id, version)
);

create unique index events_in_commit_order on ceiling.events (epoch, xid, position);

create table ceiling.instance_rows (
    instance_id uuid primary key,
    app text not null,
    workflow text not null,
    program_hash text not null,
    correlation_key text not null,
    partition integer not null default 0,
    start_message_id text not null,
    execution_status text not null check (execution_status in ('executing', 'idle', 'closed')),
    outcome text check (outcome in ('completed', 'faulted', 'cancelled', 'terminated')),
    is_completed boolean not null default false,
    creation_time timestamptz not null default now(),
    last_updated_time timestamptz not null default now(),
    lock_owner uuid,
    lock_token bigint not null default 0,
    version bigint not null default 0,
    last_xid xid8,
    check (is_completed = (execution_status = 'closed')),
    check (is_completed = (outcome is not null))
) with (fillfactor = 80);

create unique index instance_start_message on ceiling.instance_rows (app, start_message_id);
create unique index instance_living_key on ceiling.instance_rows (app, workflow, correlation_key)
    where not is_completed;
create index instance_key on ceiling.instance_rows (app, correlation_key);
create index instance_locked on ceiling.instance_rows (lock_owner) where lock_owner is not null;

create table ceiling.instance_states (
    instance_id uuid primary key,
    state bytea not null,
    state_encoding text not null default 'none' check (state_encoding in ('none', 'gzip'))
) with (fillfactor = 70);

create table ceiling.inbox (
    app text not null,
    message_id text not null,
    sequence bigint generated always as identity,
    type text not null,
    correlation_key text not null,
    body bytea,
    digest bytea not null,
    received_at timestamptz not null default now(),
    verdict text not null
        check (verdict in ('applied', 'buffered', 'rejected', 'expired', 'dead_lettered')),
    instance_id uuid,
    version bigint,
    primary key (app, message_id)
);

create index inbox_buffered on ceiling.inbox (app, correlation_key, type, sequence) where verdict = 'buffered';
create index inbox_dead_letters on ceiling.inbox (app, sequence) where verdict = 'dead_lettered';

create table ceiling.outbox (
    message_id text primary key,
    sequence bigint generated always as identity,
    app text not null,
    instance_id uuid not null,
    exchange text not null,
    routing_key text not null,
    type text not null,
    correlation_key text not null,
    body bytea not null,
    created_at timestamptz not null default now()
);

create index outbox_in_order on ceiling.outbox (app, sequence);
create index outbox_of_instance on ceiling.outbox (instance_id, sequence);
