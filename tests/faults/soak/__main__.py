"""Run a soak on private servers and print what it came to.

    ./dev soak [--minutes 10] [--every 20] [--rate 20] [--workers 4] [--seed N] [--logs FOLDER]

The exit status is 0 if every order is accounted for. The logs of the workers are kept if it is not.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

import structlog

from compose.local.services import running_services
from tests.faults.soak.run import Outcome, Plan, soak


def main() -> int:
    """Give the exit status."""
    parser = argparse.ArgumentParser(prog="./dev soak", description="Orders come, things die, and all must add up.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long orders are published")
    parser.add_argument("--every", type=float, default=20.0, help="seconds from one death to the next")
    parser.add_argument("--rate", type=float, default=20.0, help="orders a second")
    parser.add_argument("--workers", type=int, default=4, help="worker processes")
    parser.add_argument("--seed", type=int, help="of what dies when and of the orders; printed, to be given again")
    parser.add_argument("--logs", type=Path, help="folder for the logs of the workers")
    given = parser.parse_args()
    plan = Plan(
        seed=SystemRandom().randrange(10**6) if given.seed is None else given.seed,
        seconds=given.minutes * 60,
        every=given.every,
        rate=given.rate,
        workers=given.workers,
    )
    # What the AMQP library meets is said again by the connection that used it.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    folder = given.logs or Path(tempfile.mkdtemp(prefix="holdfast-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"seed {plan.seed}: {plan.workers} workers, {plan.rate:g} orders/s for {plan.seconds:g} s")
    # The servers are to be restarted, so they are private ones, whatever the environment names.
    with running_services({}) as services:
        outcome = asyncio.run(soak(services, plan, folder, tell))
    tell(report(outcome))
    if outcome.problems or given.logs:
        tell(f"The logs of the workers are in {folder}.")
    else:
        shutil.rmtree(folder)
    return 1 if outcome.problems else 0


def tell(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def report(outcome: Outcome) -> str:
    """Return what a soak came to as text."""
    lines = [
        "",
        f"seed                                {outcome.plan.seed}",
        f"orders                              {outcome.orders}",
        f"messages confirmed by RabbitMQ      {outcome.confirmed}",
        f"published again after a loss        {outcome.repeated}",
        f"times an instance changed hosts     {outcome.take_overs}",
        f"longest time without progress       {outcome.longest:.1f} s",
        "",
        f"{'what died':20}{'times':>6}  longest time without progress after it",
    ]
    lines += [
        f"{kind.replace('_', ' '):20}{times:6}  {outcome.since.get(kind, 0):.1f} s"
        for kind, times in sorted(outcome.deaths.items())
    ]
    lines += ["", f"{'times':>8}  what the workers warned of"]
    lines += [f"{times:8}  {text}" for text, times in outcome.said.most_common()]
    lines += ["", *(f"PROBLEM {problem}" for problem in outcome.problems)]
    if not outcome.problems:
        lines.append("every order is accounted for")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
