#!/bin/sh
# Becomes the command, if that is RabbitMQ's as the user rabbitmq; as the image does that it stands in for.
set -eu
case $1 in
    rabbitmq*)
        if [ "$(id -u)" = 0 ]; then
            [ "$1" != rabbitmq-server ] || find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq {} +
            exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
        fi
        ;;
esac
exec "$@"
