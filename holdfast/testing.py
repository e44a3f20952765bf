"""Test workflows: run them in memory, with time that passes when told, and prove that they survive crashes.

`docs/testing.md` is the guide. This is a front door like that of ``holdfast`` itself: every public name, and nothing
else.
"""

from holdfast.processor.testing import conformance as provider_conformance
from holdfast.processor.testing.broker import Delivery
from holdfast.processor.testing.door import Statement
from holdfast.processor.testing.execution import Execution, execute
from holdfast.processor.testing.host import SimulatedHost
from holdfast.processor.testing.instance import SimulatedInstance
from holdfast.processor.testing.prover import crash_prover
from holdfast.processor.testing.report import CrashReport, CrashRun
from holdfast.processor.testing.rows import Rows
from holdfast.processor.testing.simulation import Simulation
from holdfast.processor.testing.stand_ins import ActivityRun

__all__ = [
    "ActivityRun",
    "CrashReport",
    "CrashRun",
    "Delivery",
    "Execution",
    "Rows",
    "SimulatedHost",
    "SimulatedInstance",
    "Simulation",
    "Statement",
    "crash_prover",
    "execute",
    "provider_conformance",
]
