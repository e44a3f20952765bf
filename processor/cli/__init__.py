"""The command line: ``holdfast``."""

from holdfast.processor.cli.application import main

__all__ = ["main"]
