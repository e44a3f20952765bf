#!/bin/sh
# Begins as a copy of the primary, and follows it from then on.
set -eu
if [ ! -d "$PGDATA" ]; then
    # A copy that was broken off is no copy.
    rm -rf "$PGDATA.part"
    pg_basebackup --dbname="$PRIMARY" --pgdata="$PGDATA.part" --wal-method=stream --write-recovery-conf
    mv "$PGDATA.part" "$PGDATA"
fi
exec postgres
