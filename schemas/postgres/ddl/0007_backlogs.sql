-- Messages that waited in their partition: their timers wait for them, and they count from when they arrived there.

alter table holdfast.hosts add column held_back integer[] not null default '{}';

comment on column holdfast.hosts.held_back is 'The partitions whose due timers wait for the messages that the host found in them.';

alter table holdfast.inbox
    add column partition integer,
    add column arrived_at timestamptz;

comment on column holdfast.inbox.partition is 'Where a buffered message came from; null if it came another way.';
comment on column holdfast.inbox.arrived_at is 'When a buffered message arrived, as far as that is known; 1970 for one that was there before a worker was. Null: when it was received.';
