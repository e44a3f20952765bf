"""Creates the table that the app's record activity writes to: python -m examples.orders.create_table."""

import os
from pathlib import Path

import psycopg

if __name__ == "__main__":
    with psycopg.connect(os.environ["HOLDFAST_DATABASE_URL"]) as connection:
        connection.execute(Path(__file__).with_name("schema.sql").read_bytes())
