"""Reads hundreds of thousands of broken inputs: each must be read, or refused with one sentence in bounded time.

    python benchmarks/soak.py [--readers config,recipe,data,run,model] [--count 100000] [--out ...]
    python benchmarks/soak.py --readers run --one 4711       shows what input 4711 does

An input follows from its reader's name and its number. Batches are read in processes of their own, in which an input
may take ``LIMIT_S`` seconds of the processor and ``LIMIT_MB`` of memory; a process that dies (as by a segmentation
fault) counts as a fault of the input at which it died. Batches that are done are kept in ``--work``, so that the same
command goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from soak_readers import READERS, Reader

BATCH = 5000
LIMIT_S = 20
"""Seconds of the processor, which a loaded machine does not make longer."""

ASLEEP_S = 600
"""Seconds of the clock, for an input that would wait for ever."""

LIMIT_MB = 2000
TIMERS = ((signal.SIGPROF, signal.ITIMER_PROF, LIMIT_S), (signal.SIGALRM, signal.ITIMER_REAL, ASLEEP_S))
LONGEST = 2000
"""Characters of a sentence."""


def main() -> None:
    """Run the batches that are missing, or one input, or (as the child) one batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=Path("runs/soak"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soak.json"))
    parser.add_argument("--one", type=int)
    parser.add_argument("--batch", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.readers.split(",")
    if arguments.batch:
        run_batch(names[0], int(arguments.batch[0]), int(arguments.batch[1]), Path(arguments.batch[2]))
    elif arguments.one is not None:
        show(names[0], arguments.one)
    else:
        for name in names:
            soak(name, arguments.count, arguments.work)
        write(arguments.work, arguments.out)


def soak(name: str, count: int, work: Path) -> None:
    """Run the batches of a reader that are not in ``work`` yet."""
    work.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, BATCH):
        done = work / f"{name}-{start:07}.json"
        if not done.exists():
            result = _whole_batch(name, start, min(start + BATCH, count))
            done.write_text(json.dumps(result))
            print(
                name, start + BATCH, result["outcomes"], [fault["what"] for fault in result["faults"]][:3], flush=True
            )


def _whole_batch(name: str, start: int, stop: int) -> dict[str, Any]:
    """Run a batch in processes of its own, one more for each that died on the way."""
    total: dict[str, Any] = {"outcomes": Counter(), "faults": [], "seconds": 0.0, "peak_mb": 0.0, "slowest_s": 0.0}
    while start < stop:
        with tempfile.TemporaryDirectory(prefix="soak-") as place:
            call = [sys.executable, __file__, "--readers", name, "--batch", str(start), str(stop), place]
            done = subprocess.run(call, check=False, capture_output=True, text=True)
            file = Path(place) / "result.json"
            part = json.loads(file.read_text()) if file.exists() else {"outcomes": {}, "faults": [], "next": start}
        for key, value in part["outcomes"].items():
            total["outcomes"][key] += value
        total["faults"] += part["faults"]
        total["seconds"] += part.get("seconds", 0.0)
        for key in ("peak_mb", "slowest_s"):
            total[key] = max(total[key], part.get(key, 0.0))
        start = part["next"]
        if start < stop:
            total["outcomes"]["died"] += 1
            total["faults"].append({"input": start, "what": f"died with {done.returncode}: {done.stderr[-200:]}"})
            start += 1
    return {**total, "outcomes": dict(total["outcomes"])}


def run_batch(name: str, start: int, stop: int, place: Path) -> None:
    """Read inputs ``start`` to ``stop`` and keep what came out; what is written last names the input that killed us."""
    reader = _reader(name, place / "input")
    _warm(reader)
    limit = int(_memory_mb("VmSize") + LIMIT_MB) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    began, slowest = time.process_time(), 0.0
    for number in range(start, stop):
        state = {"outcomes": outcomes, "faults": faults, "seconds": time.process_time() - began, "slowest_s": slowest}
        _keep(place, {**state, "next": number})
        before = time.process_time()
        outcome, what = attempt(reader, name, number)
        slowest = max(slowest, time.process_time() - before)
        outcomes[outcome] += 1
        if outcome not in ("read", "refused"):
            faults.append({"input": number, "what": what})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    state = {"outcomes": outcomes, "faults": faults, "seconds": time.process_time() - began, "slowest_s": slowest}
    _keep(place, {**state, "peak_mb": peak, "next": stop})


def attempt(reader: Reader, name: str, number: int) -> tuple[str, str]:
    """Return ``read``, ``refused``, or what else happened and where."""
    from spaces.errors import UserError

    rng = random.Random(f"{name}-{number}")
    _clear(reader.place)
    reader.make(rng)
    for number_of, timer, limit in TIMERS:
        signal.signal(number_of, _too_long)
        signal.setitimer(timer, limit)
    try:
        reader.read(rng)
    except UserError as error:
        text = str(error)
        bad = "many lines" if "\n" in text else "too long" if len(text) > LONGEST else ""
        return (f"sentence with {bad}", text[:300]) if bad else ("refused", "")
    except Exception as error:
        frames = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        return "fault", f"{type(error).__name__}: {str(error)[:100]} at {' < '.join(frames[:-5:-1])}"
    finally:
        for _, timer, _ in TIMERS:
            signal.setitimer(timer, 0)
    return "read", ""


def show(name: str, number: int) -> None:
    """Make one input in a folder that stays, and let its error through."""
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    reader = _reader(name, place)
    rng = random.Random(f"{name}-{number}")
    reader.make(rng)
    print(place)
    reader.read(rng)


def write(work: Path, out: Path) -> None:
    """Put all batches together into ``out``."""
    table = {}
    for name in READERS:
        batches = [json.loads(file.read_text()) for file in sorted(work.glob(f"{name}-*.json"))]
        outcomes: Counter[str] = Counter()
        for batch in batches:
            outcomes.update(batch["outcomes"])
        if batches:
            table[name] = {
                "inputs": sum(outcomes.values()),
                "outcomes": dict(outcomes),
                "slowest_s": round(max(batch["slowest_s"] for batch in batches), 2),
                "peak_mb": round(max(batch["peak_mb"] for batch in batches)),
                "seconds": round(sum(batch["seconds"] for batch in batches)),
                "faults": [fault for batch in batches for fault in batch["faults"]][:20],
            }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(table, indent=1))


def _reader(name: str, place: Path) -> Reader:
    place.mkdir(parents=True, exist_ok=True)
    return READERS[name](place)


def _warm(reader: Reader) -> None:
    """Import what reading imports before memory is limited."""
    from spaces.errors import UserError

    for number in range(20):
        _clear(reader.place)
        try:
            reader.make(random.Random(number))
            reader.read(random.Random(number))
        except UserError:
            continue


def _clear(place: Path) -> None:
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def _keep(place: Path, value: dict[str, Any]) -> None:
    draft = place / "result.partial"
    draft.write_text(json.dumps(value))
    draft.replace(place / "result.json")


def _memory_mb(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def _too_long(signum: int, frame: Any) -> None:
    raise TimeoutError(f"more than {LIMIT_S} s at work or {ASLEEP_S} s in all")


if __name__ == "__main__":
    main()
