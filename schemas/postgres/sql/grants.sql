-- name: grant_rights
-- The roles and what each may do, as of the newest schema. Roles belong to the whole cluster and come with no dump of a
-- database, so one may have been made after the schema; and another database may make them at this moment. What is granted
-- already stays as it is. Who may not make a role goes on without it.
do $$
declare
    name text;
    door record;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer', 'holdfast_retention'] loop
        begin
            if not exists (select from pg_roles where rolname = name) then
                execute format('create role %I nologin', name);
            end if;
        exception
            when duplicate_object or unique_violation or insufficient_privilege then null;
        end;
    end loop;

    -- Everybody may run a function unless he is refused it.
    revoke execute
        on function holdfast.create_schema(text), holdfast.drop_schema(text), holdfast.rename_schema(text, text),
        holdfast.copy_rights(text, text), holdfast.open_to_observers(text)
        from public;
    for door in
        select p.oid::regprocedure as signature, p.proname as name
        from pg_proc p
        where p.pronamespace = 'holdfast'::regnamespace and p.prosecdef
    loop
        execute format('revoke execute on function %s from public', door.signature);
        if exists (select from pg_roles where rolname = 'holdfast_retention') and door.name <> 'discard' then
            execute format('grant execute on function %s to holdfast_retention', door.signature);
        end if;
    end loop;

    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant usage on schema holdfast to %I', name);
            execute format('grant select on all tables in schema holdfast to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_retention') then
        grant usage on schema holdfast to holdfast_retention;
    end if;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert on holdfast.events, holdfast.programs to holdfast_worker;
        grant update (signature, expected_lifetime, reuse_key, brought_at) on holdfast.programs to holdfast_worker;
        grant insert, update, delete
            on holdfast.hosts, holdfast.instance_rows, holdfast.instance_states, holdfast.bookmarks,
            holdfast.inbox, holdfast.attempts, holdfast.outbox, holdfast.heartbeats, holdfast.projections,
            holdfast.skipped_events, holdfast.tally_rows, holdfast.message_tally_rows, holdfast.scratches,
            holdfast.replays
            to holdfast_worker;
        grant delete on holdfast.instances to holdfast_worker;
        grant execute
            on function holdfast.discard(uuid[]), holdfast.create_schema(text), holdfast.drop_schema(text),
            holdfast.rename_schema(text, text), holdfast.copy_rights(text, text), holdfast.open_to_observers(text)
            to holdfast_worker;
    end if;

    -- The tables of projections belong to who runs them, who may be somebody else.
    for name in
        select n.nspname
        from pg_namespace n
        where n.nspname in (
                select schema_name from holdfast.projections union select schema_name from holdfast.scratches
            )
            and exists (
                select from pg_roles r
                where r.rolname in ('holdfast_worker', 'holdfast_observer')
                    and not has_schema_privilege(r.oid, n.oid, 'usage')
            )
    loop
        begin
            perform holdfast.open_to_observers(name);
        exception
            when insufficient_privilege then null;
        end;
    end loop;
end
$$;

-- name: rights
-- What each of the roles may do, one row a right; a role that is missing has none.
with roles as (
    select oid, rolname from pg_roles where rolname in ('holdfast_worker', 'holdfast_observer', 'holdfast_retention')
), schemas as (
    select oid, nspname, nspacl
    from pg_namespace
    where nspname = 'holdfast'
        or nspname in (select schema_name from holdfast.projections union select schema_name from holdfast.scratches)
), given as (
    select nspname::text as object, nspacl as acl from schemas
    union all
    select c.oid::regclass::text, c.relacl from pg_class c join schemas s on s.oid = c.relnamespace
    union all
    select c.oid::regclass || '.' || a.attname, a.attacl
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    join schemas s on s.oid = c.relnamespace
    where a.attacl is not null
    union all
    select p.oid::regprocedure::text, p.proacl from pg_proc p join schemas s on s.oid = p.pronamespace
)
select r.rolname::text, g.object, e.privilege_type
from given g
cross join lateral aclexplode(g.acl) e
join roles r on r.oid = e.grantee;

-- name: missing_roles
select name
from unnest(array['holdfast_worker', 'holdfast_observer', 'holdfast_retention']) as n (name)
where not exists (select from pg_roles where rolname = name)
order by name;
