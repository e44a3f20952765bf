-- Subscriptions: what follows the log from a checkpoint of its own.

create table holdfast.projections (
    app text not null,
    name text not null,
    build text not null default 'live' check (build in ('live', 'next')),
    version integer not null check (version > 0),
    schema_name text,
    status text not null default 'running' check (status in ('running', 'stopped')),
    epoch integer not null default 0,
    xid xid8 not null default '0',
    position bigint not null default 0,
    recorded_at timestamptz,
    handled bigint not null default 0,
    error text,
    failed_instance_id uuid,
    failed_version bigint,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (app, name, build),
    unique (schema_name, build),
    check ((failed_instance_id is null) = (failed_version is null)),
    check (status = 'running' or error is not null)
) with (fillfactor = 50);

comment on table holdfast.projections is 'What follows the log: subscribed projections and event feeds, each with its checkpoint.';
comment on column holdfast.projections.build is 'live: what readers see; next: what is being built beside it, to take its place.';
comment on column holdfast.projections.version is 'Of the code that builds it, as the projection says.';
comment on column holdfast.projections.schema_name is 'Where readers find its tables; a build that is no more than next has them under another name.';
comment on column holdfast.projections.recorded_at is 'When the last event up to the checkpoint was recorded.';
comment on column holdfast.projections.handled is 'Events that its handlers took.';
comment on column holdfast.projections.error is 'Why it stands still, or what failed last and is being tried again.';
comment on column holdfast.projections.failed_instance_id is 'With failed_version: the event that it stopped at.';

create table holdfast.skipped_events (
    app text not null,
    name text not null,
    build text not null,
    instance_id uuid not null,
    version bigint not null,
    type text not null,
    error text not null,
    skipped_at timestamptz not null default now(),
    primary key (app, name, build, instance_id, version)
);

comment on table holdfast.skipped_events is 'Events that a projection could not take and passed over, each with the error.';

create view holdfast.projection_lag as
select
    p.app,
    p.name,
    p.build,
    p.version,
    p.schema_name,
    p.status,
    p.epoch || '-' || p.xid || '-' || p.position as cursor,
    p.handled,
    (
        select count(*)
        from (
            select from holdfast.events e
            where (e.epoch, e.xid, e.position) > (p.epoch, p.xid, p.position)
            order by e.epoch, e.xid, e.position
            limit 100000
        ) behind
    ) as events_behind,
    coalesce((
        select greatest(clock_timestamp() - e.recorded_at, interval '0')
        from holdfast.events e
        where (e.epoch, e.xid, e.position) > (p.epoch, p.xid, p.position)
        order by e.epoch, e.xid, e.position
        limit 1
    ), interval '0') as time_behind,
    (select count(*) from holdfast.skipped_events s where (s.app, s.name, s.build) = (p.app, p.name, p.build)) as skipped,
    p.error,
    p.failed_instance_id,
    p.failed_version,
    p.updated_at
from holdfast.projections p;

comment on view holdfast.projection_lag is 'Each subscription with how far it is behind the end of the log.';
comment on column holdfast.projection_lag.events_behind is 'Committed events of all apps that it has not come to, counted up to 100000.';
comment on column holdfast.projection_lag.time_behind is 'The age of the first of them.';

create view holdfast.messages_by_verdict as
select app, type, verdict, count(*) as messages
from holdfast.inbox
where kind = 'message'
group by app, type, verdict;

comment on view holdfast.messages_by_verdict is 'How many messages of a type have which verdict, for as long as the inbox keeps them.';

-- A projection's tables stand in a schema of their own; these do what takes the name of one.

create function holdfast.create_schema(schema_name text) returns void
    language plpgsql
    as $$ begin execute format('create schema %I', schema_name); end $$;

create function holdfast.drop_schema(schema_name text) returns void
    language plpgsql
    as $$
begin
    if exists (select from pg_namespace n where n.nspname = schema_name) then
        execute format('drop schema %I cascade', schema_name);
    end if;
end
$$;

create function holdfast.rename_schema(schema_name text, new_name text) returns void
    language plpgsql
    as $$ begin execute format('alter schema %I rename to %I', schema_name, new_name); end $$;

-- What its tables need so that all may look who may look at the rest.
create function holdfast.open_to_observers(schema_name text) returns void
    language plpgsql
    as $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant usage on schema %I to %I', schema_name, name);
            execute format('grant select on all tables in schema %I to %I', schema_name, name);
        end if;
    end loop;
end
$$;

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format(
                'grant select on holdfast.projections, holdfast.skipped_events, holdfast.projection_lag, '
                'holdfast.messages_by_verdict to %I', name
            );
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert, update, delete on holdfast.projections, holdfast.skipped_events to holdfast_worker;
    end if;
end
$$;
