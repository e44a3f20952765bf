-- Activity workers that say that they live.

create table holdfast.heartbeats (
    app text not null,
    request text not null,
    due timestamptz not null,
    primary key (app, request)
);

create index heartbeat_due on holdfast.heartbeats (app, due);

comment on table holdfast.heartbeats is 'Requests that activity workers are busy with, from the first heartbeat on.';
comment on column holdfast.heartbeats.request is 'The message id of the request: the correlation key of the bookmark that waits for its result.';
comment on column holdfast.heartbeats.due is 'When the worker is given up, unless it says before that it lives.';

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant select on holdfast.heartbeats to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert, update, delete on holdfast.heartbeats to holdfast_worker;
    end if;
end
$$;
