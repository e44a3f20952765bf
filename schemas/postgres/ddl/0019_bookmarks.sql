-- The table of bookmarks is read by users, and keeps its columns as views do.

comment on table holdfast.bookmarks is 'Where instances wait: one row for each open message, timer, subflow or queued activity. It keeps its columns, as views do.';
comment on column holdfast.bookmarks.instance_id is 'The instance that waits.';
comment on column holdfast.bookmarks.name is 'The name of the place, one of active_bookmarks of holdfast.instances.';
comment on column holdfast.bookmarks.app is 'The app that the instance belongs to.';
comment on column holdfast.bookmarks.kind is 'What it waits for: message, timer, child (a subflow that it started) or activity (the result of one on a queue).';
comment on column holdfast.bookmarks.message_type is 'The type of the message that ends the wait; of a subflow or an activity, of the message that tells its end; null for a timer.';
comment on column holdfast.bookmarks.correlation_key is 'The key of that message; of a subflow the id of its instance, of an activity that of the request; null for a timer.';
comment on column holdfast.bookmarks.due is 'When the timer is due; null for anything else.';
comment on column holdfast.bookmarks.line is 'The line of the source at which the instance waits.';
comment on column holdfast.bookmarks.opened_at is 'When the transaction that opened it began.';
