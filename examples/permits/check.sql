-- What the event log says about the permit cases, beside what the file says (table permit_file: one row a task).
-- One row a fact: what was found, and what the file makes us expect.

with started_or_received as (
    select
        e.instance_id,
        e.version,
        e.data ->> 'message_id' as message_id,
        e.data ->> 'message_type' as message_type,
        e.data -> 'body' ->> 'case' as case_id,
        e.data -> 'body' ->> 'task' as task
    from holdfast.events e
    join holdfast.instances i using (instance_id)
    where i.app = 'permits' and e.type in ('InstanceStarted', 'MessageReceived')
), tasks as (
    select * from started_or_received where message_type = 'TaskDone'
), traces as (
    select case_id, string_agg(task, ' > ' order by version) as trace from tasks group by instance_id, case_id
), file_traces as (
    select case_id, string_agg(task, ' > ' order by done_at, line) as trace from permit_file group by case_id
), completed as (
    select count(*) as count
    from holdfast.instances
    where app = 'permits' and is_completed and outcome = 'completed'
)
select 'instances' as fact, (select count(*) from holdfast.instances where app = 'permits') as found,
    (select count(*) from file_traces) as expected
union all
select 'instances completed', (select count from completed), (select count(*) from file_traces)
union all
select 'tasks applied', (select count(*) from tasks), (select count(*) from permit_file)
union all
select 'distinct task messages applied', (select count(distinct message_id) from tasks), (select count(*) from permit_file)
union all
select 'task messages with the verdict applied',
    (select count(*) from holdfast.inbox where app = 'permits' and type = 'TaskDone' and verdict = 'applied'),
    (select count(*) from permit_file)
union all
select 'task messages counted as applied', (
    select messages
    from holdfast.messages_by_verdict
    where app = 'permits' and type = 'TaskDone' and verdict = 'applied'
), (select count(*) from permit_file)
union all
select 'messages with another verdict',
    (select count(*) from holdfast.inbox where app = 'permits' and verdict <> 'applied'), 0
union all
select 'cases whose trace equals the file''s',
    (select count(*) from traces join file_traces using (case_id, trace)), (select count(*) from file_traces)
union all
select 'cases counted under a trace of the file', (
    select sum(t.instances)
    from permits_traces.variants t
    join (select trace, count(*) as cases from file_traces group by trace) f
        on f.trace = array_to_string(t.path, ' > ') and f.cases = t.instances
), (select count(*) from file_traces)
union all
select 'distinct traces',
    (select count(*) from permits_traces.variants), (select count(distinct trace) from file_traces)
union all
select 'cases with the most frequent trace',
    (select max(instances) from permits_traces.variants),
    (select count(*) from file_traces group by trace order by 1 desc limit 1);
