-- The tables of the ceiling: Holdfast's own with all their columns, checks and indexes, as the newest migration has them.

create schema ceiling;

create table ceiling.events (like holdfast.events including all);
create table ceiling.instance_rows (like holdfast.instance_rows including all);
create table ceiling.instance_states (like holdfast.instance_states including all);
create table ceiling.inbox (like holdfast.inbox including all);
create table ceiling.outbox (like holdfast.outbox including all);

-- What `like` leaves out.
alter table ceiling.instance_rows set (fillfactor = 80);
alter table ceiling.instance_states set (fillfactor = 70);
