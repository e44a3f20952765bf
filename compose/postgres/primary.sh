#!/bin/sh
# Run once by the image, when it has made the data: lets the standby in, and has commits wait for it from the next start on.
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'END'
\getenv password POSTGRES_STANDBY_PASSWORD
create role standby login replication password :'password';
END
echo 'host replication standby all scram-sha-256' >>"$PGDATA/pg_hba.conf"
echo "synchronous_standby_names = 'standby'" >>"$PGDATA/postgresql.conf"
