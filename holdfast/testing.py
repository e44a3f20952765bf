"""Test workflows: run them in memory, with time that passes when told, and prove that they survive crashes.

`docs/testing.md` is the guide. This is a front door like ``holdfast`` itself: every public name, and nothing else.
"""

from holdfast.processor.testing.clock import Clock
from holdfast.processor.testing.host import Delivered, SimulatedHost
from holdfast.processor.testing.world import World

__all__ = ["Clock", "Delivered", "SimulatedHost", "World"]
