-- Forks, found by their origin. Of all other events, this index holds nothing.

create index events_of_forks on holdfast.events ((data ->> 'origin')) where type = 'InstanceForked';
