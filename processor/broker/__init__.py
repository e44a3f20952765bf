"""RabbitMQ: topology, connections, consuming with exact acks, publishing with confirms."""
