"""Where the processor keeps things: the persistence provider on Postgres and in memory."""
