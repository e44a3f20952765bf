"""The part that decides, does effects, talks to RabbitMQ, and has a `main`."""
