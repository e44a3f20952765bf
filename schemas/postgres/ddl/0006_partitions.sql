-- Who consumes which partition, as the hosts themselves say.

alter table holdfast.hosts
    add column partitions integer[] not null default '{}',
    add column consuming_since timestamptz[] not null default '{}',
    add column shared_at timestamptz;

comment on column holdfast.hosts.partitions is 'The partitions that it consumes, in order.';
comment on column holdfast.hosts.consuming_since is 'Since when it consumes each of its partitions, in the same order.';
comment on column holdfast.hosts.shared_at is 'When it last said which partitions it consumes.';
