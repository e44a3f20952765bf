-- name: timers
select
    b.instance_id, b.app, r.workflow, r.correlation_key, r.is_suspended, b.name as bookmark, b.due,
    b.due <= clock_timestamp() as is_due, b.line, b.opened_at
from holdfast.bookmarks b
join holdfast.instance_rows r on r.instance_id = b.instance_id
where b.kind = 'timer'
    and (%(app)s::text is null or b.app = %(app)s::text)
    and (%(instance_id)s::uuid is null or b.instance_id = %(instance_id)s::uuid)
    and (%(before)s::timestamptz is null or b.due < %(before)s::timestamptz)
    and (
        %(after_due)s::timestamptz is null
        or (b.due, b.instance_id, b.name)
            > (%(after_due)s::timestamptz, %(after_instance)s::uuid, %(after_bookmark)s::text)
    )
order by b.due, b.instance_id, b.name
limit %(limit)s::bigint;
