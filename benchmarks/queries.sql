-- name: hosts
insert into holdfast.hosts (host_id, app, machine, process_id, lease_expiration, programs)
values ('00000000-0000-7000-8000-000000000001', 'shop', 'm-1', 1, now() + interval '1 day', '{p-1}');

-- name: instances
-- Of ninety days, the newest fifteenth of which lives; what else is rare stands where it takes longest to be found.
insert into holdfast.instance_rows (
    instance_id, app, workflow, program_hash, correlation_key, start_message_id, execution_status, outcome, is_initialized,
    is_suspended, is_completed, suspension_reason, creation_time, last_updated_time, last_machine, lock_owner, lock_token,
    version
)
select
    (
        lpad(to_hex((extract(epoch from created) * 1000)::bigint), 12, '0')
        || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15)
    )::uuid,
    case when n %% 100 = 7 and n < total / 2 then 'office' else 'shop' end,
    workflow,
    case when n < total * 0.8 then md5(workflow || ' before') || md5('before') else md5(workflow) || md5('now') end,
    case when ended and n %% 1000 = 3 then 'again' else 'k-' || n end,
    'm-' || n,
    case when ended then 'closed' when n > total - 300 and n %% 2 = 1 then 'executing' else 'idle' end,
    case
        when not ended then null
        when n %% 1000 = 11 and n < total / 2 then 'terminated'
        when n %% 200 = 12 then 'cancelled'
        when n %% 40 = 13 then 'faulted'
        else 'completed'
    end,
    n <= total - 100,
    not ended and n %% 50 = 14,
    ended,
    case when not ended and n %% 50 = 14 then 'requested' end,
    created,
    created + interval '10 minutes' * (n %% 7),
    'm-1',
    case when not ended and n > total - 300 then '00000000-0000-7000-8000-000000000001'::uuid end,
    1,
    case when n <= total - 100 then 5 else 0 end
from (
    select
        n,
        total,
        now() - interval '90 days' * (total - n + 1) / total as created,
        -- Some of long ago live too.
        n <= total - total / 15 and n %% 2000 <> 14 as ended,
        case
            when n < total / 3 and n %% 10 = 1 then 'yearly'
            when n %% 10000 = 5 then 'audit'
            when n %% 10 < 7 then 'order'
            else 'invoice'
        end as workflow
    from (select %(instances)s::bigint as total) t
    cross join lateral generate_series(1, t.total) n
) made;

-- name: states
insert into holdfast.instance_states (instance_id, state, promoted)
select
    instance_id,
    convert_to('{"frames":"' || repeat('x', 400) || '"}', 'UTF8'),
    jsonb_build_object(
        'stage', case when number %% 3 = 0 then 'packed' else 'paid' end,
        'customer', 'c-' || number %% 100000,
        'campaign', case when number < half then 'spring' else 'autumn' end
    )
from (
    select instance_id, split_part(start_message_id, '-', 2)::bigint as number, %(instances)s::bigint / 2 as half
    from holdfast.instance_rows
    where is_initialized
) made;

-- name: bookmarks
insert into holdfast.bookmarks (instance_id, name, app, kind, message_type, correlation_key, due, line)
select
    instance_id, name, app, kind,
    case kind when 'child' then 'holdfast.SubflowResult' when 'activity' then 'holdfast.ActivityResult' when 'message' then type end,
    case when kind <> 'timer' then start_message_id end,
    case when kind = 'timer' then now() + interval '3 days' end,
    17
from (
    select r.*, split_part(start_message_id, '-', 2)::bigint as number from holdfast.instance_rows r
    where execution_status = 'idle' and is_initialized
) r
cross join lateral (
    values
        ('0.3/paid', 'message', case when number %% 2000 = 14 then 'Approved' else 'PaymentReceived' end, true),
        ('0.3/late', 'timer', null, number %% 2 = 0),
        ('0.5/child', 'child', null, number %% 1000 = 15),
        ('0.6/packed', 'activity', null, number %% 100 = 16),
        ('0.9/approved', 'message', 'Signed', number %% 2000 = 14)
) b (name, kind, type, is_open)
where is_open;
