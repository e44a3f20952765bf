-- The timeline beside the cluster: a restore to an earlier moment keeps the cluster's identifier, as a promotion does, but
-- transaction ids that were given out and lost are given out again.

-- Only a primary writes to a timeline; on a standby this is null. It takes no right that not everybody has.
create function holdfast.timeline() returns text
    language sql stable
    as $$ select case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end $$;

comment on function holdfast.timeline is 'The timeline that the server writes to, in hexadecimal: another one after each recovery that ended, by promotion or at a point in time.';

alter table holdfast.cluster add column timeline text;

-- Whatever came before, no cursor of it is told from those of the time after.
update holdfast.cluster set timeline = holdfast.timeline();

alter table holdfast.cluster alter column timeline set not null;

comment on table holdfast.cluster is 'One row: the epoch of the log, raised when the database moves to another cluster or timeline.';
comment on column holdfast.cluster.timeline is 'The timeline that the server wrote to when the database was last migrated.';
comment on column holdfast.events.epoch is 'Counts the clusters and timelines that this database has lived in.';
