"""A worker whose machine's clock is wrong: `python -m tests.faults.skewed_worker SECONDS APP`."""

import sys
import time

SECONDS, APP = int(sys.argv[1]), sys.argv[2]
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + SECONDS
time.time_ns = lambda: _time_ns() + SECONDS * 10**9

# What it imports is to find the clock wrong already.
from holdfast.processor.cli import main  # noqa: E402  For the reason above.

sys.argv = ["holdfast", "worker", APP]
main()
