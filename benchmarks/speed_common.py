"""What the speed benchmarks share: the host, spreads, result files, and the student whose time is read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path("benchmarks/results")
METHODS = ("lowrank", "kronecker", "sparse", "block", "lowrank+sparse")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return median and deciles."""
    low, middle, high = (round(float(q), digits) for q in np.quantile(np.asarray(values), [0.1, 0.5, 0.9]))
    return {"median": middle, "p10": low, "p90": high}


def record(file: Path, rows: Iterable[Mapping[str, Any]], **facts: Any) -> None:
    """Print rows as they come and write them: host fingerprint, what they were measured with, one row a line."""
    from compressors.distill.machine import host

    head = json.dumps({"host": host(), **facts})[1:-1]
    lines: list[str] = []
    file.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        lines.append(json.dumps(row))
        print(lines[-1], flush=True)
        text = ",\n  ".join(lines)
        file.write_text(f'{{{head}, "rows": [\n  {text}\n]}}\n', encoding="utf-8")


def clocks() -> tuple[float, float]:
    """Return the wall's clock and this thread's CPU time in seconds: other work on the machine moves the first."""
    return time.perf_counter(), time.thread_time()


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the wall and CPU seconds of ``call``."""
    wall, cpu = clocks()
    call()
    return time.perf_counter() - wall, time.thread_time() - cpu


def opened(config_file: str) -> tuple[Any, Any]:
    """Return a config and its workspace, in this process and quietly; the teacher is made if it is missing."""
    from search.config import load_config
    from search.quiet import quiet
    from search.workspace import open_workspace

    quiet()
    config = load_config(config_file)
    return config, open_workspace(config)


def plan_of(config: Any, workspace: Any, method: str, keep: float, **distillation: Any) -> Any:
    """Return the plan in which every encoder matrix is cut by ``method`` to ``keep``; logits alone unless told."""
    from search.students.oneshot import ENCODER_ONLY
    from spaces.plan import Distillation, Plan
    from spaces.space import Space

    space = Space(
        workspace.teacher.signature, workspace.curves, (method,), granularity="none", exclude=list(ENCODER_ONLY)
    )
    student = space.student({"budget": keep}, "marginal", "fisher-whitened")
    return Plan(student, Distillation(**{"objective": "logits", "learning_rate": 2e-4, **distillation}))
