"""One start of a search whose trials and disk fail as told: the driver process of ``benchmarks/faults.py``.

    python benchmarks/faults_driver.py CONFIG FAULTS [ADDRESS]

``FAULTS`` is a folder with a file per fault, named ``<trial>.<kind>``, which whoever commits it takes away first; the
file ``driver.full`` holds after how many synced rows the driver's disk is full.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

KINDS = ("raise", "nan", "memory", "hungry", "full", "die")
"""What a trial may do: raise, lose its numbers, run out of memory once or always, find the disk full, be killed."""


def taken(faults: Path, trial: str) -> str | None:
    """Return the kind of fault that this trial is to commit, and take it away; ``hungry`` stays."""
    for kind in KINDS:
        file = faults / f"{trial}.{kind}"
        if kind == "hungry" and file.exists():
            return kind
        try:
            file.rename(faults / f"done.{trial}.{kind}")
        except FileNotFoundError:
            continue
        return kind
    return None


def commit(kind: str) -> None:
    """Do in this worker what the fault says."""
    if kind == "die":
        os.kill(os.getpid(), 9)
    if kind in ("memory", "hungry"):
        raise MemoryError("injected: can't allocate memory")
    if kind == "full":
        raise OSError(errno.ENOSPC, "injected: no space left on device")
    raise RuntimeError("injected")


def pretended(plan: Any, *rest: Any, seed: int, folder: Path, start: Path | None, report: Any, **options: Any) -> Any:
    """Stand for ``run_trial`` without training: the same files and reports, results told by the plan's hash."""
    import zlib

    from search.trial import STATE_FILE, Outcome, RungReport
    from spaces.errors import UserError

    number = int(plan.hash, 16)
    columns = {"accuracy": 0.5 + number % 997 / 2000, "accuracy_se": 0.01, "size_mb": 1 + number % 89 / 10}
    columns |= {"latency_ms": 0.5 * columns["size_mb"], "seed": seed, "size_mb_predicted": columns["size_mb"]}
    first = 0
    if start is not None:
        text = start.read_bytes()
        step, _, checksum = text.partition(b" ")
        if str(zlib.crc32(step)).encode() != checksum or not step:
            raise UserError(f"{start}: the checkpoint is damaged, its checksum is wrong")
        first = int(step)
    for rung in range(first, 4):
        time.sleep(0.3)
        if rung:
            (folder / STATE_FILE).write_text(f"{rung} {zlib.crc32(str(rung).encode())}")
        report(RungReport(rung, 10 * rung, 0.3 * rung, 0.5 if rung else None, dict(columns)))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return Outcome("COMPLETE", columns)


def pretend(worker: Any) -> None:
    """Let this worker import no torch."""
    from types import SimpleNamespace

    nothing = SimpleNamespace(teacher=None, rows=None, budget=None, meter=None)
    worker.workspace_of, worker.device_of, worker.run_trial = lambda work: nothing, lambda: "cpu", pretended


def faulty(faults: str, trained: bool) -> Any:
    """Return ``train_trial`` with the faults in ``faults``; not ``trained`` puts a pretence in place of training."""

    def train_trial(config: dict[str, Any], work: Any) -> None:
        from search.workers import worker

        kind = taken(Path(faults), config["trial"])
        if trained:
            train_with(kind, config, work)
            return
        pretend(worker)

        def run_trial(*arguments: Any, report: Any, **options: Any) -> Any:
            def reported(rung: Any) -> bool:
                if kind == "nan":
                    rung.columns["accuracy"] = float("nan")
                elif kind is not None and rung.rung == 1:
                    commit(kind)
                return bool(report(rung))

            found = pretended(*arguments, report=reported, **options)
            if kind == "nan":
                found.columns["accuracy"] = float("nan")
            return found

        worker.run_trial = run_trial
        worker.train_trial(config, work)

    def train_with(kind: str | None, config: dict[str, Any], work: Any) -> None:
        import torch

        from compressors.distill.loop import Loop
        from search.workers import worker

        run, step = worker.run_trial, Loop._one_step

        def run_trial(*arguments: Any, report: Any, **options: Any) -> Any:
            def reported(rung: Any) -> bool:
                if kind not in (None, "nan") and rung.rung == 1:
                    commit(str(kind))
                return bool(report(rung))

            return run(*arguments, report=reported, **options)

        def broken_step(loop: Any, compute: Any) -> None:
            if loop.step == 3:
                with torch.no_grad():
                    loop.parameters[0].fill_(float("nan"))
            step(loop, compute)

        worker.run_trial = run_trial
        if kind == "nan":
            Loop._one_step = broken_step  # type: ignore[method-assign]
        try:
            worker.train_trial(config, work)
        finally:
            worker.run_trial, Loop._one_step = run, step  # type: ignore[method-assign]

    return train_trial


def fill_disk(faults: Path) -> None:
    """Let the driver's disk be full once, after as many synced rows as ``driver.full`` says."""
    file = faults / "driver.full"
    if not file.exists():
        return
    left = [int(file.read_text())]
    real = os.fsync

    def fsync(number: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            file.rename(faults / "done.driver.full")
            raise OSError(errno.ENOSPC, "injected: no space left on device")
        real(number)

    from search.folder import store

    store.os = type("FullDisk", (), {**vars(os), "fsync": staticmethod(fsync)})  # type: ignore[misc]


def search_alone(config: str, address: str | None) -> None:
    """Search without the forecast before and the measuring after the trials.

    These cost more than trials this small, and of a trial that only pretended there is nothing to measure.
    """
    from search.config import load_config
    from search.driver import launch

    launch.conclude_run = lambda *_: None
    try:
        found = launch.run_search(load_config(config, []), address=address)
    except launch.UserError as error:
        print(f"error: {error}", flush=True)
        sys.exit(2)
    sys.exit(0 if found.state == "FINISHED" else 1)


def main() -> None:
    """Run or resume the search; the exit codes are those of ``paredown search``."""
    config, faults, address = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
    from search.cli.main import main as command
    from search.driver import tune

    pretends = bool(os.environ.get("FAULTS_PRETEND"))
    tune.train_trial = faulty(faults, trained=not pretends)
    fill_disk(Path(faults))
    if address or pretends:
        search_alone(config, address)
    command(["search", config])


if __name__ == "__main__":
    main()
