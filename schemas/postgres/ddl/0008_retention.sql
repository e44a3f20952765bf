-- What is kept, and for how long: keys that are used again, values that queries find by an index, and the door through
-- which goes what is over.

alter table holdfast.programs
    add column reuse_key boolean not null default false,
    add column brought_at timestamptz not null default now();

comment on column holdfast.programs.reuse_key is 'Whether a start message starts an instance although a closed one has its key; as the workflow says now.';
comment on column holdfast.programs.brought_at is 'When a host last brought it along as it started.';

-- A key may have any number of closed instances, and the newest decides.
drop index holdfast.instance_key;
create index instance_key on holdfast.instance_rows (app, correlation_key, is_completed, creation_time desc);

create index instance_promoted on holdfast.instance_states using gin (promoted jsonb_path_ops)
    where promoted is not null;

-- The door. It is open within the functions below alone: they run as who owns the tables, and set the mark for as long
-- as they run. The mark by itself opens nothing, and neither does being the owner.
create function holdfast.is_through_the_door(relation oid) returns boolean
    language sql stable
    as $$
select coalesce(current_setting('holdfast.door', true), '') = 'open'
    and exists (select from pg_catalog.pg_class c where c.oid = relation and c.relowner = current_user::regrole)
$$;

create or replace function holdfast.refuse_change() returns trigger
    language plpgsql
    as $$
begin
    if tg_op = 'DELETE' and holdfast.is_through_the_door(tg_relid) then
        return old;
    end if;
    raise exception 'the event log is append-only: % is refused', tg_op using errcode = 'HF001';
end
$$;

-- As before, but for the door.
create or replace function holdfast.refuse_removal() returns trigger
    language plpgsql
    as $$
begin
    if holdfast.is_through_the_door(tg_relid) then
        return old;
    end if;
    if old.is_initialized then
        raise exception 'instance % is persisted', old.instance_id using errcode = 'HF002';
    end if;
    if exists (select from holdfast.hosts h where h.host_id = old.lock_owner and h.lease_expiration > now()) then
        raise exception 'instance % is in the hands of host %', old.instance_id, old.lock_owner using errcode = 'HF003';
    end if;
    if old.creation_time > now() - (select s.removal_age from holdfast.settings s) then
        raise exception 'instance % is too young to be removed', old.instance_id
            using errcode = 'HF004', hint = 'holdfast.settings says from which age on it may be: removal_age.';
    end if;
    if exists (
        select from holdfast.bookmarks b
        where b.app = old.app
            and b.kind = 'child'
            and b.message_type = 'holdfast.SubflowResult'
            and b.correlation_key = old.awaited_as::text
            and not exists (
                select from holdfast.inbox m where m.app = b.app and m.message_id = old.awaited_as || ':result'
            )
    ) then
        raise exception 'another instance waits for the end of instance %', old.instance_id
            using errcode = 'HF005', hint = '`holdfast nonpersisted remove` tells it.';
    end if;
    return old;
end
$$;

-- What is closed has given up its messages already.
create or replace function holdfast.give_up_messages() returns trigger
    language plpgsql
    as $$
begin
    if holdfast.is_through_the_door(tg_relid) then
        return null;
    end if;
    update holdfast.inbox m
    set verdict = 'rejected',
        reason = 'removed',
        detail = format('%s removed instance %s', session_user, old.instance_id),
        body = null,
        instance_id = old.instance_id
    where m.app = old.app
        and m.message_id = old.start_message_id
        and m.verdict in ('buffered', 'dead_lettered');
    update holdfast.inbox m
    set verdict = 'rejected', reason = 'removed', body = null
    where m.instance_id = old.instance_id and m.verdict = 'buffered';
    delete from holdfast.attempts a where a.app = old.app and a.message_id = old.start_message_id;
    delete from holdfast.attempts a where a.instance_id = old.instance_id;
    return null;
end
$$;

create function holdfast.discard(instance_ids uuid[]) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    perform set_config('holdfast.door', 'open', true);
    with closed as materialized (
        select r.instance_id
        from holdfast.instance_rows r
        where r.instance_id = any(discard.instance_ids) and r.is_completed and r.last_xid = pg_current_xact_id()
    ), stateless as (
        delete from holdfast.instance_states s using closed c where s.instance_id = c.instance_id
    )
    delete from holdfast.instance_rows r using closed c where r.instance_id = c.instance_id;
    perform set_config('holdfast.door', '', true);
end
$$;

comment on function holdfast.discard is 'Deletes rows and states of instances that this very transaction has closed; their history stays.';

-- Each of the functions that follow looks at the blocks of one table from `first` up to but without `last`, of one app
-- or, if that is null, of all, and removes what is over for longer than `age`; or, unless it is `for_real`, only
-- counts it. A call is one short transaction, and a run that breaks off is taken up by the next one.

create function holdfast.is_awaited(app text, awaited_as text) returns boolean
    language sql stable
    as $$
select exists (
    select from holdfast.bookmarks b
    where b.app = is_awaited.app
        and b.kind = 'child'
        and b.message_type = 'holdfast.SubflowResult'
        and b.correlation_key = is_awaited.awaited_as
)
$$;

create function holdfast.remove_instances(of_app text, age interval, first bigint, last bigint, for_real boolean)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    removed bigint;
begin
    perform set_config('holdfast.door', 'open', true);
    with closed as materialized (
        select r.instance_id
        from holdfast.instance_rows r
        where r.ctid >= format('(%s,0)', first)::tid
            and r.ctid < format('(%s,0)', last)::tid
            and (of_app is null or r.app = of_app)
            and r.is_completed
            and r.last_updated_time < now() - age
            and not holdfast.is_awaited(r.app, r.awaited_as::text)
            and not exists (select from holdfast.inbox m where m.instance_id = r.instance_id and m.verdict = 'buffered')
    ), stateless as (
        delete from holdfast.instance_states s using closed c where s.instance_id = c.instance_id and for_real
    ), gone as (
        delete from holdfast.instance_rows r using closed c where r.instance_id = c.instance_id and for_real
    )
    select count(*) into removed from closed;
    perform set_config('holdfast.door', '', true);
    return removed;
end
$$;

comment on function holdfast.remove_instances is 'Removes rows and states of instances that have been closed for longer than an age.';

-- A stream goes as a whole, with the row of its instance if that is still there, or not at all, and not before all
-- who follow the log have read it. It is found by the persistence point that closed it, its last event.
create function holdfast.remove_streams(
    of_app text, age interval, first bigint, last bigint, for_real boolean, out streams bigint, out events bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
begin
    perform set_config('holdfast.door', 'open', true);
    with closed as materialized (
        select e.instance_id, e.version as last_version
        from holdfast.events e
        left join holdfast.instance_rows r on r.instance_id = e.instance_id
        join holdfast.events b on b.instance_id = e.instance_id and b.version = 1
        where e.ctid >= format('(%s,0)', first)::tid
            and e.ctid < format('(%s,0)', last)::tid
            and e.type = 'Persisted'
            and e.recorded_at < now() - age
            and (of_app is null or e.metadata ->> 'app' = of_app)
            and e.data ->> 'reason' in ('completed', 'faulted', 'cancelled', 'terminated')
            and (r.is_completed or r.instance_id is null)
            and not exists (
                select from holdfast.events n where n.instance_id = e.instance_id and n.version > e.version
            )
            and not holdfast.is_awaited(e.metadata ->> 'app', b.data ->> 'awaited_as')
            and not exists (
                select from holdfast.projections p
                where (p.epoch, p.xid, p.position) < (e.epoch, e.xid, e.position)
            )
            and not exists (select from holdfast.inbox m where m.instance_id = e.instance_id and m.verdict = 'buffered')
    ), forgotten as (
        delete from holdfast.events e using closed c where e.instance_id = c.instance_id and for_real
    ), stateless as (
        delete from holdfast.instance_states s using closed c where s.instance_id = c.instance_id and for_real
    ), gone as (
        delete from holdfast.instance_rows r using closed c where r.instance_id = c.instance_id and for_real
    )
    select count(*), coalesce(sum(last_version), 0) into streams, events from closed;
    perform set_config('holdfast.door', '', true);
end
$$;

comment on function holdfast.remove_streams is 'Removes whole streams, and what is left of their instances, that have been closed for longer than an age.';

create function holdfast.remove_messages(of_app text, age interval, first bigint, last bigint, for_real boolean)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    removed bigint;
begin
    with settled as materialized (
        select m.app, m.message_id
        from holdfast.inbox m
        where m.ctid >= format('(%s,0)', first)::tid
            and m.ctid < format('(%s,0)', last)::tid
            and (of_app is null or m.app = of_app)
            and m.verdict in ('applied', 'rejected', 'expired')
            and m.received_at < now() - age
            and not exists (
                select from holdfast.instance_rows r
                where r.app = m.app and r.start_message_id = m.message_id and not r.is_initialized
            )
    ), gone as (
        delete from holdfast.inbox m
        using settled s
        where m.app = s.app
            and m.message_id = s.message_id
            and m.verdict in ('applied', 'rejected', 'expired')
            and for_real
    )
    select count(*) into removed from settled;
    return removed;
end
$$;

comment on function holdfast.remove_messages is 'Removes messages with a final verdict from the inbox, received longer ago than an age: from then on they are not known again.';

create function holdfast.remove_dead_letters(of_app text, age interval, first bigint, last bigint, for_real boolean)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    removed bigint;
begin
    with dead as materialized (
        select m.app, m.message_id
        from holdfast.inbox m
        where m.ctid >= format('(%s,0)', first)::tid
            and m.ctid < format('(%s,0)', last)::tid
            and (of_app is null or m.app = of_app)
            and m.verdict = 'dead_lettered'
            and m.received_at < now() - age
            and not exists (
                select from holdfast.instance_rows r
                where r.app = m.app and r.start_message_id = m.message_id and not r.is_initialized
            )
    ), gone as (
        delete from holdfast.inbox m
        using dead d
        where m.app = d.app and m.message_id = d.message_id and m.verdict = 'dead_lettered' and for_real
    )
    select count(*) into removed from dead;
    return removed;
end
$$;

comment on function holdfast.remove_dead_letters is 'Removes dead letters of the inbox that were received longer ago than an age.';

create function holdfast.remove_unroutable(of_app text, age interval, first bigint, last bigint, for_real boolean)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    removed bigint;
begin
    with dead as materialized (
        select o.message_id
        from holdfast.outbox o
        where o.ctid >= format('(%s,0)', first)::tid
            and o.ctid < format('(%s,0)', last)::tid
            and (of_app is null or o.app = of_app)
            and o.dead_reason is not null
            and o.created_at < now() - age
    ), gone as (
        delete from holdfast.outbox o
        using dead d
        where o.message_id = d.message_id and o.dead_reason is not null and for_real
    )
    select count(*) into removed from dead;
    return removed;
end
$$;

comment on function holdfast.remove_unroutable is 'Removes dead letters of the outbox that were written longer ago than an age.';

create function holdfast.remove_attempts(of_app text, age interval, first bigint, last bigint, for_real boolean)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    removed bigint;
begin
    with old as materialized (
        select a.app, a.message_id, a.last_attempt_at
        from holdfast.attempts a
        where a.ctid >= format('(%s,0)', first)::tid
            and a.ctid < format('(%s,0)', last)::tid
            and (of_app is null or a.app = of_app)
            and a.last_attempt_at < now() - age
            and not exists (
                select from holdfast.inbox m
                where m.app = a.app and m.message_id = a.message_id and m.verdict in ('buffered', 'dead_lettered')
            )
            and not exists (
                select from holdfast.instance_rows r where r.instance_id = a.instance_id and not r.is_completed
            )
    ), gone as (
        delete from holdfast.attempts a
        using old o
        where a.app = o.app and a.message_id = o.message_id and a.last_attempt_at = o.last_attempt_at and for_real
    )
    select count(*) into removed from old;
    return removed;
end
$$;

comment on function holdfast.remove_attempts is 'Removes counts of attempts of which nothing has been heard for longer than an age.';

create function holdfast.remove_heartbeats(of_app text, age interval, first bigint, last bigint, for_real boolean)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    removed bigint;
begin
    with silent as materialized (
        select h.app, h.request
        from holdfast.heartbeats h
        where h.ctid >= format('(%s,0)', first)::tid
            and h.ctid < format('(%s,0)', last)::tid
            and (of_app is null or h.app = of_app)
            and h.due < now() - age
            and not exists (
                select from holdfast.bookmarks b
                where b.app = h.app and b.kind = 'activity' and b.correlation_key = h.request
            )
    ), gone as (
        delete from holdfast.heartbeats h
        using silent s
        where h.app = s.app and h.request = s.request and h.due < now() - age and for_real
    )
    select count(*) into removed from silent;
    return removed;
end
$$;

comment on function holdfast.remove_heartbeats is 'Removes heartbeats of requests for whose results nobody waits.';

-- A workflow's program is named by the rows of its instances. A routine's is named inside states alone: it stays while
-- there is one that may name it, and one that is compressed may.
create function holdfast.remove_programs(of_app text, age interval, first bigint, last bigint, for_real boolean)
    returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    as $$
declare
    removed bigint;
begin
    with orphaned as materialized (
        select p.app, p.program_hash
        from holdfast.programs p
        where p.ctid >= format('(%s,0)', first)::tid
            and p.ctid < format('(%s,0)', last)::tid
            and (of_app is null or p.app = of_app)
            and p.brought_at < now() - age
            and not exists (
                select from holdfast.hosts h
                where h.app = p.app and h.lease_expiration > now() and p.program_hash = any(h.programs)
            )
            and not exists (
                select from holdfast.instance_rows r where r.app = p.app and r.program_hash = p.program_hash
            )
            and not exists (
                select from holdfast.instance_rows r
                join holdfast.instance_states s on s.instance_id = r.instance_id
                where p.starts_with is null
                    and r.app = p.app
                    and not r.is_completed
                    and case
                        when s.state_encoding = 'none' then strpos(convert_from(s.state, 'UTF8'), p.program_hash) > 0
                        else true
                    end
            )
    ), gone as (
        delete from holdfast.programs p
        using orphaned o
        where p.app = o.app and p.program_hash = o.program_hash and p.brought_at < now() - age and for_real
    )
    select count(*) into removed from orphaned;
    return removed;
end
$$;

comment on function holdfast.remove_programs is 'Removes programs that no instance runs on and no living host has, and that none has brought along for longer than an age.';

-- Members of holdfast_retention pass the door; a worker passes it with what it has just closed.

do $$
declare
    door record;
begin
    begin
        if not exists (select from pg_roles where rolname = 'holdfast_retention') then
            create role holdfast_retention nologin;
        end if;
    exception
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then raise notice 'role holdfast_retention is missing and cannot be created';
    end;
    for door in
        select p.oid::regprocedure as signature, p.proname as name
        from pg_proc p
        where p.pronamespace = 'holdfast'::regnamespace and p.prosecdef
    loop
        execute format('revoke all on function %s from public', door.signature);
        if exists (select from pg_roles where rolname = 'holdfast_retention') and door.name <> 'discard' then
            execute format('grant execute on function %s to holdfast_retention', door.signature);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_retention') then
        grant usage on schema holdfast to holdfast_retention;
    end if;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant execute on function holdfast.discard(uuid[]) to holdfast_worker;
        grant update (reuse_key, brought_at) on holdfast.programs to holdfast_worker;
    end if;
end
$$;
