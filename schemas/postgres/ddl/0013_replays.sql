-- Replays: history that is published again, each with the place in the log up to which all of it is out.

create table holdfast.replays (
    name text primary key check (name <> ''),
    app text not null,
    exchange text not null,
    queue text,
    criteria json not null,
    epoch integer not null,
    xid xid8 not null,
    position bigint not null,
    end_epoch integer not null,
    end_xid xid8 not null,
    end_position bigint not null,
    published bigint not null default 0,
    runs integer not null default 0,
    started_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    check ((exchange = '') = (queue is not null))
) with (fillfactor = 50);

comment on table holdfast.replays is 'History that is published again, each replay with how far it is.';
comment on column holdfast.replays.exchange is 'Where it goes; empty for the default exchange, which puts it into a queue.';
comment on column holdfast.replays.criteria is 'Which events it means, between its beginning and its end.';
comment on column holdfast.replays.position is 'With epoch and xid: the event up to which all that are meant are confirmed by the broker.';
comment on column holdfast.replays.end_position is 'With end_epoch and end_xid: the last event that it comes to.';
comment on column holdfast.replays.runs is 'How often a process has begun to run it; only the one that did last gets on with it.';
comment on column holdfast.replays.published is 'Events that the broker has confirmed, each counted once.';

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant select on holdfast.replays to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert, update, delete on holdfast.replays to holdfast_worker;
    end if;
end
$$;
