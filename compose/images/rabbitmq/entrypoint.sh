#!/bin/sh
# Becomes the command, as the user rabbitmq.
set -eu
if [ "$(id -u)" = 0 ]; then
    chown -R rabbitmq: /var/lib/rabbitmq /etc/rabbitmq
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
fi
if [ -n "${RABBITMQ_ERLANG_COOKIE-}" ]; then
    rm -f "$HOME/.erlang.cookie"
    (umask 077 && printf '%s' "$RABBITMQ_ERLANG_COOKIE" >"$HOME/.erlang.cookie")
fi
exec "$@"
