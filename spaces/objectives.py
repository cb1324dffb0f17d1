"""What a search optimises: names, directions and units of metrics and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spaces.errors import UserError, did_you_mean

Direction = Literal["maximize", "minimize"]

METRICS: dict[str, Direction] = {
    "accuracy": "maximize",
    "macro_f1": "maximize",
    "f1": "maximize",
    "matthews": "maximize",
    "pearson": "maximize",
    "spearman": "maximize",
    "seqeval_f1": "maximize",
    "squad_f1": "maximize",
    "exact_match": "maximize",
    "perplexity": "minimize",
    "cosine": "maximize",
}
"""Task metrics, stored as fractions (perplexity as it is)."""

COSTS = ("size_mb", "latency_ms", "params", "flops", "memory_mb")
"""What a student costs; every cost is minimised. ``latency_ms.<name>`` is the latency on a named target."""

LATENCY_TOLERANCE = 0.02
"""Two latencies within this fraction of each other count as equal (DESIGN 7.6)."""


@dataclass(frozen=True)
class Objective:
    """One objective of a search: a column of ``trials.parquet``, its direction, and what counts as equal."""

    name: str
    direction: Direction
    tolerance: float = 0.0

    @property
    def is_cost(self) -> bool:
        """Whether this is a cost and not the task metric."""
        return self.name not in METRICS


def objective(name: str) -> Objective:
    """Return the objective called ``name``; raises UserError for a name that is neither a metric nor a cost."""
    if name in METRICS:
        return Objective(name, METRICS[name])
    if name.split(".")[0] not in COSTS:
        allowed = [*METRICS, *COSTS]
        close = did_you_mean(name, allowed)
        raise UserError(f"objectives: {name!r} is not known{close}; allowed: {', '.join(allowed)}")
    return Objective(name, "minimize", LATENCY_TOLERANCE if name.startswith("latency_ms") else 0.0)
