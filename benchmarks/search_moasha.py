"""Syne Tune's MOASHA as a process: it is installed in an environment of its own and imports nothing of paredown.

    python -m venv moasha && moasha/bin/pip install syne-tune==0.16.0
    python benchmarks/search_samplers.py replay NAME --moasha moasha/bin/python

A line of standard input is a trial's number, its rung (1, 3, 9: MOASHA counts time in powers of its reduction factor)
and what is minimised there, as JSON; the answer is one line, CONTINUE or STOP. MOASHA draws its configurations at
random from the space that it is given, so that the trials themselves are drawn where the space is, in the benchmark.
"""

from __future__ import annotations

import json
import random
import sys
from datetime import datetime
from typing import Any

import numpy as np


def main() -> None:
    """Answer until standard input ends; the argument is the seed."""
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    class Ranks(NonDominatedPriority):  # type: ignore[misc]
        """Syne Tune 0.16 returns the order of the trials where MOASHA takes their ranks: the order is inverted here."""

        def priority_unsafe(self, objectives: Any) -> Any:
            """Return the rank of each row of objectives [n, 2], 0 the best."""
            return np.argsort(super().priority_unsafe(objectives))

    seed = int(sys.argv[1])
    random.seed(seed)
    np.random.seed(seed)
    scheduler = MOASHA(
        config_space={},
        metrics=["error", "size_mb"],
        time_attr="rung",
        max_t=9,
        grace_period=1,
        reduction_factor=3,
        multiobjective_priority=Ranks(),
        random_seed=seed,
    )
    trials: dict[int, Trial] = {}
    for line in sys.stdin:
        told = json.loads(line)
        number = told.pop("trial")
        if number not in trials:
            trials[number] = Trial(trial_id=number, config={}, creation_time=datetime.now())
            scheduler.on_trial_add(trials[number])
        if told["rung"] == 9:
            scheduler.on_trial_complete(trials[number], told)
            answer = "STOP"
        else:
            answer = scheduler.on_trial_result(trials[number], told)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
