-- Non-persisted instances as an administrator sees them, and what guards their removal.

create table holdfast.settings (
    singleton boolean primary key default true check (singleton),
    removal_age interval not null default '1 hour' check (removal_age >= interval '0')
);

comment on table holdfast.settings is 'One row: what holds in this database, whoever works on it.';
comment on column holdfast.settings.removal_age is 'A non-persisted instance younger than this is not removed.';

insert into holdfast.settings default values;

alter table holdfast.programs add column expected_lifetime interval;

comment on column holdfast.programs.expected_lifetime is 'How long an instance should take, as the workflow says; null if it does not.';

-- Counts of an instance's own bursts went on lying here once they were of no more use.

alter table holdfast.attempts add column instance_id uuid;

create index attempts_of_instance on holdfast.attempts (instance_id) where instance_id is not null;

comment on table holdfast.attempts is 'How often a message, or a burst without one, was tried; gone with the verdict, or with the next commit.';
comment on column holdfast.attempts.instance_id is 'The instance whose burst is counted; null for a message, under whose id it is counted.';

delete from holdfast.attempts where message_id ~ '^(instance|burst):[0-9a-f-]{36}:';

create view holdfast.non_persisted as
select
    i.instance_id,
    i.app,
    i.workflow,
    i.correlation_key,
    i.start_message_id,
    m.verdict as start_message_verdict,
    case
        when h.host_id is not null then 'live'
        when i.is_suspended then 'suspended'
        when m.verdict in ('buffered', 'dead_lettered') then 'orphan'
        else 'message_lost'
    end as class,
    i.creation_time,
    clock_timestamp() - i.creation_time as age,
    p.expected_lifetime,
    coalesce(clock_timestamp() - i.creation_time > p.expected_lifetime, false) as is_overdue,
    h.machine as current_machine,
    i.last_machine,
    i.suspension_reason,
    i.suspension_exception_name,
    i.parent_id,
    i.subflow
from holdfast.instance_rows i
left join holdfast.hosts h on h.host_id = i.lock_owner and h.lease_expiration > clock_timestamp()
left join holdfast.inbox m on m.app = i.app and m.message_id = i.start_message_id
left join holdfast.programs p on p.app = i.app and p.program_hash = i.program_hash
where not i.is_initialized;

comment on view holdfast.non_persisted is 'The instances without a persistence point yet.';
comment on column holdfast.non_persisted.start_message_verdict is 'Null if the start message is not in the inbox: then it may still wait in RabbitMQ.';
comment on column holdfast.non_persisted.class is 'live: a host holds it; suspended; orphan: no host holds it, its start message is there; message_lost: nor is that, most likely.';
comment on column holdfast.non_persisted.is_overdue is 'Older than its workflow expects; false where that says nothing.';

-- Who removes an instance, whichever way, meets this. A row that somebody else is just changing is waited for, so what
-- is judged here is what it has become. A lease is judged as of the beginning of the transaction: all that an old
-- snapshot knows of one that was renewed since is that it lived then.
create function holdfast.refuse_removal() returns trigger
    language plpgsql
    as $$
begin
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

create trigger instance_removal_is_guarded
    before delete on holdfast.instance_rows
    for each row execute function holdfast.refuse_removal();

create function holdfast.give_up_messages() returns trigger
    language plpgsql
    as $$
begin
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

create trigger removed_instance_gives_up_messages
    after delete on holdfast.instance_rows
    for each row execute function holdfast.give_up_messages();

create function holdfast.remove_instance() returns trigger
    language plpgsql
    as $$
begin
    delete from holdfast.instance_rows r where r.instance_id = old.instance_id;
    return case when found then old end;
end
$$;

create trigger instance_is_removed
    instead of delete on holdfast.instances
    for each row execute function holdfast.remove_instance();

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant select on holdfast.settings, holdfast.non_persisted to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant delete on holdfast.instances to holdfast_worker;
        grant update (expected_lifetime) on holdfast.programs to holdfast_worker;
    end if;
end
$$;
