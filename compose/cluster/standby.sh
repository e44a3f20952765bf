#!/bin/sh
# Begins as a copy of the primary, and follows it from then on.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    pg_basebackup --dbname="$PRIMARY application_name=standby" --pgdata="$PGDATA" --wal-method=stream --write-recovery-conf
fi
exec postgres -c 'listen_addresses=*' -c hot_standby=on
