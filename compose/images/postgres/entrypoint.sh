#!/bin/sh
# Makes the data the first time, then becomes the command, as the user postgres.
set -eu
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown postgres: /var/lib/postgresql "$(dirname "$PGDATA")" "$PGDATA" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    : "${POSTGRES_PASSWORD:?is not set: the superuser needs a password}"
    umask 077
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
        --locale=C.UTF-8 >/dev/null
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options='-c listen_addresses=' start >/dev/null
    export PGHOST=/var/run/postgresql PGUSER="$user"
    [ "$database" = postgres ] || psql --quiet --dbname=postgres --command="create database \"$database\""
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) sh "$file" ;;
            *.sql) psql --quiet --variable=ON_ERROR_STOP=1 --dbname="$database" --file="$file" ;;
        esac
    done
    pg_ctl --wait --mode=fast stop >/dev/null
fi
[ "$1" != postgres ] || { shift; set -- postgres -c 'listen_addresses=*' "$@"; }
exec "$@"
