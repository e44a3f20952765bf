-- What readers may do with a projection's tables stays when newer ones take their place.

-- Has what stands in one schema belong to the owners, and be open to the roles, of the same things in another, as far as
-- whoever calls it may do that. What stands in one of them only is left as it is.
create function holdfast.copy_rights(from_schema text, to_schema text) returns void
    language plpgsql
    as $$
declare
    source oid := (select oid from pg_namespace where nspname = from_schema);
    target oid := (select oid from pg_namespace where nspname = to_schema);
    thing record;
    entry record;
begin
    for thing in
        select
            1 as turn, 'schema' as kind, quote_ident(n.nspname) as name, '' as part,
            o.nspowner as owner, n.nspowner as maker,
            coalesce(o.nspacl, acldefault('n', o.nspowner)) as wanted, coalesce(n.nspacl, acldefault('n', n.nspowner)) as given
        from pg_namespace o, pg_namespace n
        where o.oid = source and n.oid = target
        union all
        select
            case n.relkind when 'S' then 3 else 2 end, case n.relkind when 'S' then 'sequence' else 'table' end,
            n.oid::regclass::text, '', o.relowner, n.relowner,
            coalesce(o.relacl, acldefault(case n.relkind when 'S' then 's' else 'r' end::"char", o.relowner)),
            coalesce(n.relacl, acldefault(case n.relkind when 'S' then 's' else 'r' end::"char", n.relowner))
        from pg_class o
        join pg_class n on n.relname = o.relname and (n.relkind = 'S') = (o.relkind = 'S')
        where o.relnamespace = source and n.relnamespace = target and n.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
        union all
        select
            4, 'table', n.oid::regclass::text, format(' (%I)', b.attname), o.relowner, n.relowner,
            coalesce(a.attacl, acldefault('c', o.relowner)), coalesce(b.attacl, acldefault('c', n.relowner))
        from pg_class o
        join pg_class n on n.relname = o.relname
        join pg_attribute a on a.attrelid = o.oid
        join pg_attribute b on b.attrelid = n.oid and b.attname = a.attname
        where o.relnamespace = source and n.relnamespace = target
            and (a.attacl is not null or b.attacl is not null) and not a.attisdropped and not b.attisdropped
        union all
        select
            5, 'routine', n.oid::regprocedure::text, '', o.proowner, n.proowner,
            coalesce(o.proacl, acldefault('f', o.proowner)), coalesce(n.proacl, acldefault('f', n.proowner))
        from pg_proc o
        join pg_proc n on n.proname = o.proname and oidvectortypes(n.proargtypes) = oidvectortypes(o.proargtypes)
        where o.pronamespace = source and n.pronamespace = target and n.prokind <> 'a'
        order by turn, name, part
    loop
        if thing.owner <> thing.maker and thing.part = '' then
            begin
                execute format('alter %s %s owner to %I', thing.kind, thing.name, pg_get_userbyid(thing.owner));
                thing.maker := thing.owner;
            exception when insufficient_privilege or feature_not_supported then
                null; -- It stays with who made it, or goes with its table.
            end;
        end if;
        for entry in select distinct a.grantee from aclexplode(thing.given) a where a.grantee <> thing.maker loop
            execute format(
                'revoke all%s on %s %s from %s', thing.part, thing.kind, thing.name, holdfast.role_name(entry.grantee)
            );
        end loop;
        for entry in select * from aclexplode(thing.wanted) a where a.grantee <> thing.maker loop
            execute format(
                'grant %s%s on %s %s to %s%s', entry.privilege_type, thing.part, thing.kind, thing.name,
                holdfast.role_name(entry.grantee), case when entry.is_grantable then ' with grant option' else '' end
            );
        end loop;
    end loop;
    for entry in
        select
            pg_get_userbyid(d.defaclrole) as maker, a.*,
            case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'routines' else 'types' end as kind
        from pg_default_acl d, aclexplode(d.defaclacl) a
        where d.defaclnamespace = source
    loop
        begin
            execute format(
                'alter default privileges for role %I in schema %I grant %s on %s to %s%s', entry.maker, to_schema,
                entry.privilege_type, entry.kind, holdfast.role_name(entry.grantee),
                case when entry.is_grantable then ' with grant option' else '' end
            );
        exception when insufficient_privilege then
            null;
        end;
    end loop;
end
$$;

comment on function holdfast.copy_rights is 'Gives what stands in one schema the owners and rights that the same things have in another.';

create function holdfast.role_name(role oid) returns text
    language sql stable
    return case role when 0 then 'public' else quote_ident(pg_get_userbyid(role)) end;

comment on function holdfast.role_name is 'How a role is named in a grant.';

revoke execute on function holdfast.copy_rights(text, text) from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant execute on function holdfast.copy_rights(text, text) to holdfast_worker;
    end if;
end
$$;
