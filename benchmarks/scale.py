"""What a search costs besides its trials: ours against bare Ray Tune, with a trial that does nothing.

    python benchmarks/scale.py --out benchmarks/results/scale.jsonl [--trials 10000] [--concurrent 1 8 64] [--bare]

Parts, each a line of the results and none run twice: ``conductor`` (the driver's own work without Ray), ``ours`` and
``bare`` (through Ray Tune with reused actors, one line per number of concurrent trials), ``read`` (``paredown status``
and ``paredown report`` of the largest run). Times are wall clock and, since other work may share the machine, CPU time
of the driver. The random sampler draws 20 parameters; for bare Ray Tune ``tune.uniform`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PARAMETERS = 20


class Clock:
    """Wall and CPU seconds at every tenth of the trials."""

    def __init__(self, trials: int) -> None:
        self.trials, self.seen = trials, 0
        self.marks = [(time.perf_counter(), time.process_time())]

    def __call__(self) -> None:
        """Count an ended trial."""
        self.seen += 1
        if self.seen * 10 % self.trials < 10:
            self.marks.append((time.perf_counter(), time.process_time()))

    def facts(self) -> dict[str, Any]:
        """Return milliseconds per trial: of all, and of the second half over the first."""
        found: dict[str, Any] = {}
        for name, column in (("wall", 0), ("cpu", 1)):
            times = [mark[column] for mark in self.marks]
            middle = len(times) // 2
            first, second = times[middle] - times[0], times[-1] - times[middle]
            found[f"{name}_ms"] = round(1000 * (times[-1] - times[0]) / self.trials, 2)
            found[f"{name}_second_half"] = round(second / first, 3) if first else None
        return found


def space() -> Any:
    """Return a space of twenty searched parameters over a small BERT."""
    from spaces.curves import Curves
    from spaces.domains import Choices, Range
    from spaces.signature import make_signature
    from spaces.space import Space
    from spaces.tensors import TensorSpec

    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (600, 64),
        "classifier.weight": (2, 64),
    }
    for block in range(3):
        at = f"bert.encoder.layer.{block}"
        shapes |= {f"{at}.attention.self.{name}.weight": (64, 64) for name in ("query", "key", "value")}
        shapes |= {f"{at}.attention.output.dense.weight": (64, 64)}
        shapes |= {f"{at}.intermediate.dense.weight": (256, 64), f"{at}.output.dense.weight": (64, 256)}
    config = {"architectures": ["BertForSequenceClassification"], "hidden_size": 64, "num_attention_heads": 4}
    signature = make_signature(config | {"vocab_size": 600}, [TensorSpec(n, "F32", s) for n, s in shapes.items()])
    taught = {
        "learning_rate": Range(2e-5, 5e-4, log=True),
        "temperature": Range(1, 8),
        "objective": Choices(("logits", "logits+hidden", "relations")),
    }
    return Space(signature, Curves.flat(signature), ("dense", "lowrank", "sparse"), distillation=taught)


def conductor_in(folder: Path, trials: int) -> Any:
    """Return the conductor of a search in ``folder``."""
    import optuna

    from search.driver.conductor import Conductor
    from search.folder.journal import Journal
    from search.folder.store import RunStore
    from search.proposing.sampling import make_sampler
    from search.stopper import FrontStopper
    from spaces.objectives import objective

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objectives = [objective(name) for name in ("accuracy", "size_mb", "latency_ms")]
    store = RunStore(folder, objectives)
    return Conductor(
        store,
        Journal(folder / "study.log", objectives),
        space(),
        objectives,
        make_sampler("random", 0, trials),
        FrontStopper(objectives, enabled=False),
        trials,
        0,
        8,
    )


def columns(number: int) -> dict[str, float]:
    """Return what a trial that does nothing claims to have measured: a front of some tens of points."""
    size = 1 + number * 7919 % 1000 / 100
    return {"accuracy": 0.9 - 0.1 / size + number * 104729 % 97 / 1000, "size_mb": size, "latency_ms": 2 * size}


def instant(config: dict[str, Any], work: Any) -> None:
    """A trial that ends at once."""
    from ray import tune

    tune.report({"complete": True, "columns": json.dumps(columns(int(config["trial"][1:])))})


def conductor_alone(folder: Path, trials: int, concurrent: int) -> dict[str, Any]:
    """Drive the conductor as Ray would, in this process."""
    conductor, clock = conductor_in(folder, trials), Clock(trials)
    asked = 0
    while (order := conductor.next()) is not None:
        asked = max(asked, len(conductor.running[order.trial].sampled.params))
        conductor.finish(order.trial, "COMPLETE", columns(order.number))
        clock()
    return clock.facts() | {"parameters": asked}


def ours(folder: Path, trials: int, concurrent: int) -> dict[str, Any]:
    """Run the search's layers over Ray Tune."""
    from search.driver import tune
    from search.driver.tune import Pool, run_trials
    from search.workers.worker import WorkSpec

    tune.train_trial = instant
    conductor, clock = conductor_in(folder, trials), Clock(trials)
    finish = conductor.finish

    def counted(*arguments: Any) -> None:
        finish(*arguments)
        clock()

    conductor.finish = counted
    with ray_of(concurrent):
        run_trials(conductor, WorkSpec("", str(folder)), Pool(share(concurrent), 0, concurrent))
    return clock.facts()


def bare(folder: Path, trials: int, concurrent: int) -> dict[str, Any]:
    """Run Ray Tune as it comes, with reused actors and its own random search."""
    from ray import tune
    from ray.tune import Callback, RunConfig, TuneConfig

    clock = Clock(trials)

    class Count(Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            clock()

    def trial(config: dict[str, Any]) -> None:
        tune.report(columns(int(1000 * config["x0"])))

    with ray_of(concurrent):
        tuner = tune.Tuner(
            tune.with_resources(trial, {"cpu": share(concurrent)}),
            param_space={f"x{n}": tune.uniform(0, 1) for n in range(PARAMETERS)},
            tune_config=TuneConfig(num_samples=trials, max_concurrent_trials=concurrent, reuse_actors=True),
            run_config=RunConfig(storage_path=str(folder.absolute()), verbose=0, callbacks=[Count()]),
        )
        tuner.fit()
    return clock.facts()


def share(concurrent: int) -> float:
    """Return the part of the two declared cores that one trial asks for."""
    return min(1.0, 2 / concurrent)


def ray_of(concurrent: int) -> Any:
    """Return a context with Ray on two declared cores."""
    from contextlib import contextmanager

    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray

    @contextmanager
    def session() -> Any:
        small = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 200_000_000}
        ray.init(address="local", num_cpus=2, **small)
        try:
            yield
        finally:
            ray.shutdown()

    return session()


def read(folder: Path, trials: int, concurrent: int) -> dict[str, Any]:
    """Time ``paredown status`` and ``paredown report`` of a run as commands."""
    finished(folder)
    found = {}
    for name, arguments in (("status", []), ("report", ["--out", str(folder / "report.html")])):
        began = time.perf_counter()
        command = [sys.executable, "-m", "paredown", name, str(folder), *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found[f"{name}_s"] = round(time.perf_counter() - began, 2)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        found[f"{name}_cpu_s"] = round(used.ru_utime + used.ru_stime - sum(found.get("_before", (0,))), 2)
        found["_before"] = (used.ru_utime, used.ru_stime)
        if done.returncode:
            raise RuntimeError(done.stderr[-400:])
    found.pop("_before")
    return found


def finished(folder: Path) -> None:
    """Give a folder that a conductor wrote what makes it a run."""
    from analysis.reading import FORMAT
    from search.folder.store import RunStore
    from spaces.objectives import objective

    names = ["accuracy", "size_mb", "latency_ms"]
    store = RunStore(folder, [objective(name) for name in names])
    store.restore()
    store.tables(force=True)
    store.text("signature.json", space().signature.to_json())
    info = {"format": FORMAT, "state": "FINISHED", "metric": "accuracy", "objectives": names, "teacher": {}}
    store.json("run.json", info)


PARTS: dict[str, Callable[[Path, int, int], dict[str, Any]]] = {
    "conductor": conductor_alone,
    "ours": ours,
    "bare": bare,
    "read": read,
}


def measure(part: str, folder: Path, trials: int, concurrent: int) -> dict[str, Any]:
    """Run one part in this process and return its line."""
    if part != "read":
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    load = os.getloadavg()[0]
    found = PARTS[part](folder, trials, concurrent)
    return {
        "part": part,
        "trials": trials,
        "concurrent": concurrent,
        **found,
        "driver_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "torch": "torch" in sys.modules,
        "host": {"machine": platform.machine(), "cores": os.cpu_count(), "load": [load, os.getloadavg()[0]]},
    }


def main() -> None:
    """Measure what the results do not have yet, every part in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/scale.jsonl")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/scale")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--one", nargs=3, metavar=("PART", "TRIALS", "CONCURRENT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        part, trials, concurrent = arguments.one[0], int(arguments.one[1]), int(arguments.one[2])
        folder = arguments.runs / ("conductor" if part == "read" else part)
        line = json.dumps(measure(part, folder, trials, concurrent))
        with arguments.out.open("a") as stream:
            stream.write(line + "\n")
        print(line, flush=True)
        return
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(line["part"], line["trials"], line["concurrent"]) for line in lines}
    for part in arguments.parts:
        for concurrent in arguments.concurrent if part in ("ours", "bare") else [1]:
            if (part, arguments.trials, concurrent) not in done:
                one = ["--one", part, str(arguments.trials), str(concurrent)]
                places = ["--out", str(arguments.out), "--runs", str(arguments.runs)]
                subprocess.run([sys.executable, __file__, *one, *places], check=True)


if __name__ == "__main__":
    main()
