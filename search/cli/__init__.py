"""The command ``paredown``. Commands import what they need when they run, so that ``--help`` is quick."""

from search.cli.main import main

__all__ = ["main"]
