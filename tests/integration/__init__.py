"""Tests against a real Postgres and a real RabbitMQ."""
