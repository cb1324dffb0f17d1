"""What a search shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from search.driver.conductor import Conductor

EVERY_S = 1.0
"""The live table is drawn at most this often."""
ROWS = 12


class Steps:
    """Progress of what comes before the trials: a bar on a terminal, a line at every tenth elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Steps:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of ``what`` are done."""
        if self.console.is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done, total=total)
            return
        tenth = 10 * done // max(total, 1) if total > 1 else 0
        if tenth != self._tenths.get(what):
            self._tenths[what] = tenth
            self.console.print(f"{what}: {done}/{total}" if total > 1 else what, highlight=False)


class Screen:
    """Follows a conductor."""

    def __init__(self, conductor: Conductor, console: Console | None = None) -> None:
        self.conductor, self.console = conductor, console or Console(stderr=False)
        self._began = self._drawn = time.monotonic()
        self._said = len(conductor.store.rows)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def __call__(self) -> None:
        """Show where the search stands."""
        if not self.console.is_terminal:
            rows = self.conductor.store.rows
            for row in rows[self._said :]:
                self.console.print(line_of(row, [o.name for o in self.conductor.objectives]), highlight=False)
            self._said = len(rows)
            sys.stdout.flush()
            return
        if time.monotonic() - self._drawn >= EVERY_S:
            self._drawn = time.monotonic()
            self._live.update(self.picture(), refresh=True)

    def picture(self) -> Group:
        """Return the front as a table under one line of counts."""
        rows = self.conductor.store.rows
        counts = {s: sum(r["state"] == s for r in rows) for s in ("COMPLETE", "STOPPED", "FAIL")}
        minutes = (time.monotonic() - self._began) / 60
        head = (
            f"{len(rows)}/{self.conductor.trials} trials: {counts['COMPLETE']} complete, {counts['STOPPED']} stopped, "
            f"{counts['FAIL']} failed, {len(self.conductor.running)} running; {minutes:.1f} min"
        )
        return Group(Text(head), front_table(self.conductor))


def front_table(conductor: Conductor) -> Table:
    """Return the front's best-known rows, smallest first."""
    names = [o.name for o in conductor.objectives]
    table = Table(title="front", title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("trial")
    for name in names:
        table.add_column(name, justify="right")
    front = conductor.store.front()
    for row in front.head(ROWS).to_dict("records"):
        table.add_row(str(row["trial"]), *(number(float(row[name])) for name in names))
    if len(front) > ROWS:
        table.add_row(f"and {len(front) - ROWS} more")
    return table


def line_of(row: dict[str, Any], names: list[str]) -> str:
    """Return one ended trial as a line."""
    values = "  ".join(f"{name} {number(float(row[name]))}" for name in names if row.get(name) is not None)
    reason = f"  ({row['reason']})" if row.get("reason") else ""
    return f"{row['trial']}  {row['state']:<8}  {values}{reason}"


def number(value: float) -> str:
    """Return a number with four significant digits and no exponent for what people read."""
    return f"{value:.4g}" if value < 10_000 else f"{value:,.0f}"
