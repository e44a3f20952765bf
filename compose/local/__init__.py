"""Private servers for `./dev` and the tests: an embedded Postgres and a RabbitMQ node of their own."""
