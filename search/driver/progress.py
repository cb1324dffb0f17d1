"""Progress of long work on standard error: a bar on a terminal, a line at every tenth elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from search.teacher.model import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a function of (what, steps done, steps in all) that shows them."""
    from rich.console import Console

    from search.driver.live import Steps

    with Steps(Console(stderr=True)) as steps:
        yield steps
