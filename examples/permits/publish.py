"""Publishes the permit log, in time order across its cases.

    python -m examples.permits.publish receipt.csv

Every message has the same id in every run, so publishing the file again changes nothing.
"""

import argparse
import asyncio
from pathlib import Path

from examples.permits.event_log import messages, read
from examples.publishing import publish


async def main(path: Path) -> None:
    count = await publish("permits", messages(read(path)))
    print(f"published {count} messages")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publish the permit log, in time order across its cases.")
    parser.add_argument("path", type=Path, help="the log, a CSV file with one task a row")
    asyncio.run(main(parser.parse_args().path))
