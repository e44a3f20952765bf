#!/bin/sh
# Makes the data the first time, then becomes the command, as the user postgres; in the order and with the variables of
# the image that it stands in for.
set -eu
[ "${1#-}" = "$1" ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    if [ "$(id -u)" = 0 ]; then
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres {} +
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        : "${POSTGRES_PASSWORD:?is not set: the superuser needs a password}"
        export POSTGRES_PASSWORD POSTGRES_USER="${POSTGRES_USER:-postgres}"
        export POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"
        sql() { psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --no-password --no-psqlrc "$@"; }

        (umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password)
        initdb --username="$POSTGRES_USER" --pwfile=/tmp/password
        rm /tmp/password
        echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
        # The server that runs the scripts has the arguments of the one that follows, and no address.
        shift
        pg_ctl --wait --options="$* -c listen_addresses=''" start
        [ "$POSTGRES_DB" = postgres ] || sql --dbname=postgres --command="create database \"$POSTGRES_DB\""
        for file in /docker-entrypoint-initdb.d/*; do
            case $file in
                *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
                *.sql) sql --dbname="$POSTGRES_DB" --file="$file" ;;
            esac
        done
        pg_ctl --wait --mode=fast stop
        set -- postgres "$@"
    fi
fi
exec "$@"
