"""The database schema: all DDL, its one linear history of migrations, and how SQL is loaded."""
