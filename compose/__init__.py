"""How to run what Holdfast needs, here and elsewhere; no part of the wheel."""
