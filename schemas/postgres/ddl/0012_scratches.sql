-- Scratches: projections rebuilt as of a place in the log, beside everything that anybody reads.

create table holdfast.scratches (
    schema_name text primary key,
    schema_oid oid not null,
    app text not null,
    name text not null,
    version integer not null check (version > 0),
    as_of text not null,
    until_epoch integer not null,
    until_xid xid8 not null,
    until_position bigint not null,
    epoch integer not null default 0,
    xid xid8 not null default '0',
    position bigint not null default 0,
    handled bigint not null default 0,
    skipped bigint not null default 0,
    is_complete boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

comment on table holdfast.scratches is 'Projections as of a place in the log, each in a schema of its own, with how far it is built.';
comment on column holdfast.scratches.schema_oid is 'Which schema it is: one that was made by hand under the same name later on is not touched.';
comment on column holdfast.scratches.as_of is 'What was asked for: a cursor or a moment.';
comment on column holdfast.scratches.until_position is 'With until_epoch and until_xid: the last place in the log that it takes in.';
comment on column holdfast.scratches.skipped is 'Events that its handlers could not take and that were passed over.';

create function holdfast.drop_scratch(scratch text) returns boolean
    language plpgsql
    as $$
declare
    found_oid oid;
begin
    delete from holdfast.scratches s where s.schema_name = scratch returning s.schema_oid into found_oid;
    if found_oid is null then
        return false;
    end if;
    if exists (select from pg_namespace n where n.nspname = scratch and n.oid = found_oid) then
        execute format('drop schema %I cascade', scratch);
    end if;
    return true;
end
$$;

comment on function holdfast.drop_scratch is 'Drops a scratch with its tables; false if there is none of that name. No other schema is ever dropped.';

-- The rows in which a table of one schema differs from that of the same name in another, by primary key; a table without
-- one has rows that were added or removed, in so many copies. A table that only one of them has is all added or removed.
create function holdfast.compare_tables(before_schema text, after_schema text, table_name text)
    returns table (key jsonb, before jsonb, after jsonb, copies bigint)
    language plpgsql stable
    as $$
declare
    sides regclass[] := array[
        to_regclass(format('%I.%I', before_schema, table_name)), to_regclass(format('%I.%I', after_schema, table_name))
    ];
    keys text[];
    names text;
    pairs text;
    empty text := 'select null::jsonb as r, null::bigint as n where false';
    counted text := 'select to_jsonb(t.*) as r, count(*) as n from %s t group by 1';
begin
    select array_agg(distinct k.names) into keys
    from (
        select string_agg(quote_ident(a.attname), ', ' order by array_position(i.indkey::int2[], a.attnum)) as names
        from unnest(sides) as s (side)
        join pg_index i on i.indrelid = s.side and i.indisprimary
        join pg_attribute a on a.attrelid = s.side and a.attnum = any (i.indkey::int2[])
        group by s.side
        union all
        select '' from unnest(sides) as s (side)
        where s.side is null or not exists (select from pg_index i where i.indrelid = s.side and i.indisprimary)
    ) k;
    if cardinality(keys) = 1 and keys[1] <> '' then
        names := keys[1];
        select string_agg(format('%L, %I', a.attname, a.attname), ', ' order by array_position(i.indkey::int2[], a.attnum))
        into pairs
        from pg_index i
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[])
        where i.indrelid = sides[1] and i.indisprimary;
        return query execute format(
            'select jsonb_build_object(%1$s), to_jsonb(a.*), to_jsonb(b.*), 1::bigint from %2$s a full join %3$s b using (%4$s) '
            'where to_jsonb(a.*) is distinct from to_jsonb(b.*) order by %4$s',
            pairs, sides[1], sides[2], names
        );
    else
        return query execute format(
            'select null::jsonb, case when coalesce(a.n, 0) > coalesce(b.n, 0) then r end, '
            'case when coalesce(b.n, 0) > coalesce(a.n, 0) then r end, abs(coalesce(a.n, 0) - coalesce(b.n, 0)) '
            'from (%s) a full join (%s) b using (r) where a.n is distinct from b.n order by r',
            case when sides[1] is null then empty else format(counted, sides[1]) end,
            case when sides[2] is null then empty else format(counted, sides[2]) end
        );
    end if;
end
$$;

comment on function holdfast.compare_tables is 'Rows in which two tables of the same name differ: before is null for one that was added, after for one that was removed.';

do $$
declare
    name text;
begin
    foreach name in array array['holdfast_worker', 'holdfast_observer'] loop
        if exists (select from pg_roles where rolname = name) then
            execute format('grant select on holdfast.scratches to %I', name);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'holdfast_worker') then
        grant insert, update, delete on holdfast.scratches to holdfast_worker;
    end if;
end
$$;
