"""Words for how an instance stands, how it ended, what it waits for, and how it came out of another one."""

from typing import Literal

ExecutionStatus = Literal["executing", "idle", "closed"]
"""How an instance stands: a burst of it runs, it waits, or it has ended."""

BookmarkKind = Literal["message", "timer", "child", "activity"]
"""What an instance waits for at a bookmark."""

SubflowMode = Literal["run", "start", "spawn", "continued"]
"""How an instance came out of another one: within its transactions, awaited, not awaited, or in its place."""

Outcome = Literal["completed", "faulted", "cancelled", "terminated"]
"""How an instance ended."""
