#!/bin/sh
# Run once by the image, when it has made the data: lets the standby in, as the same user.
set -eu
echo 'host replication all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
