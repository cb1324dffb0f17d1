"""The report: one HTML file with everything in it, which needs no network and no server."""

from __future__ import annotations

import base64
import gzip
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import words
from spaces.recipe import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

    from analysis.run import Run


SCRIPTS = ("page.js", "figures.js", "plan.js", "tables.js", "report.js")
"""The page's own scripts, in this order, in one scope."""


def write_report(run: Run, out: str | os.PathLike[str]) -> Path:
    """Write the report of ``run`` to ``out`` in one step and return its path; raises UserError where it cannot."""
    file = Path(out)
    write_text(file, render(run))
    return file


def render(run: Run) -> str:
    """Return the report's HTML. Names from the run are escaped everywhere: runs may come from strangers."""
    from jinja2 import Environment, StrictUndefined

    from analysis.report.content import page
    from analysis.report.embed import script_json

    parts = files("analysis.report")
    content = page(run)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(parts.joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        page=content,
        percent=words.percent,
        css=_unescaped(parts.joinpath("report.css").read_text(encoding="utf-8")),
        script=_unescaped("\n".join(parts.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)),
        plotly=_unescaped(_packed_plotly()) if any(content.figures.values()) else "",
        data=_unescaped(script_json({**content.data, "figures": content.figures})),
    )


def _unescaped(text: str) -> Markup:
    """Mark what goes into the page as it is: our own files, plotly's, and JSON without a ``<``."""
    from markupsafe import Markup

    return Markup(text)  # nosec B704


@cache
def _packed_plotly() -> str:
    """Return plotly's script, gzipped, in base64: 2.0 MB where it is 4.8; the page unpacks it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
