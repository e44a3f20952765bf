-- name: hosts
select
    h.host_id, h.app, h.machine, h.process_id, h.started_at, h.lease_expiration,
    h.lease_expiration > clock_timestamp() as is_alive, h.partitions, h.consuming_since, h.shared_at, l.locks
from holdfast.hosts h
cross join lateral (
    select count(*) as locks from holdfast.instance_rows r where r.lock_owner = h.host_id
) l
where (%(app)s::text is null or h.app = %(app)s::text)
    and (h.lease_expiration > clock_timestamp() - interval '1 hour' or l.locks > 0)
order by h.app, h.lease_expiration <= clock_timestamp(), h.started_at, h.host_id;
