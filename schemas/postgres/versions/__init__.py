"""The migrations in their order; each runs the file of DDL that it is named after."""
