"""The same as the command ``holdfast``: ``python -m holdfast.processor.cli``."""

import sys

from holdfast.processor.cli import main

sys.exit(main())
