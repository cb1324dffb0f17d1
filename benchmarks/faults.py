"""The fault campaign: real searches of a tiny model whose parts are killed, filled and corrupted at random moments.

    python benchmarks/faults.py --out benchmarks/results/faults.jsonl [--runs 25]

Every run has a seed that draws its faults; a run that is in the results already is skipped. Each line counts what was
injected and what came of it: finished trials lost or changed, trials that ran twice, trials that the study still
believes to run, run folders that could not be read.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import optuna
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")
TRIALS = 6
PRETENDED_TRIALS = 12
"""Trials that only pretend to train are quicker, so that more of them fit a run."""

LIMIT_S = 900.0
WORDS = [f"w{n}" for n in range(40)]
TRIAL_FAULTS = ("raise", "nan", "memory", "hungry", "die", "die", "memory", "full")
DRIVER_FAULTS = ("kill", "kill", "kill", "term", "interrupt", "full disk")
TRUTH = ("trials.jsonl", ".trials.jsonl.copy")
CORRUPTED = (
    *TRUTH,
    "study.log",
    "rungs.jsonl",
    "log.jsonl",
    "trials.parquet",
    "front.parquet",
    "run.json",
    *("config.yaml", "signature.json", "curves.npz", "teacher/*"),
    "plans/*.json",
    "checkpoints/*/state.safetensors",
)

CALLED = {"plans": "plan", "teacher": "teacher"}
"""Files that are called by their folder."""


def inputs(folder: Path) -> Path:
    """Write a tiny random backbone, its data and a config without a run folder; return the config's file."""
    file = folder / "config.yaml"
    if file.exists():
        return file
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    backbone = folder / "backbone"
    backbone.mkdir(parents=True)
    (backbone / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizer(str(backbone / "vocab.txt"), model_max_length=24).save_pretrained(backbone)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=45, max_position_embeddings=24, **sizes)).save_pretrained(backbone)
    drawn = random.Random(0)
    for split, count in (("train", 400), ("validation", 90), ("test", 60)):
        rows = [drawn.choices(WORDS, k=drawn.randint(3, 9)) for _ in range(count)]
        text = "".join(f"{' '.join(row)},{'abc'[WORDS.index(row[0]) % 3]}\n" for row in rows)
        (folder / f"{split}.csv").write_text("text,label\n" + text)
    config = {
        "teacher": {"model": str(backbone), "finetune": {"num_train_epochs": 15, "learning_rate": 0.003}},
        "task": {
            "kind": "text-classification",
            "data": {split: f"{split}.csv" for split in ("train", "validation", "test")},
            "max_length": 16,
        },
        "space": {"methods": ["dense", "lowrank"]},
        "fidelity": {"max_steps": 30, "rungs": [0.2, 0.5, 1.0]},
        "latency": {"sequence_length": 8, "device": "cpu"},
        "search": {"trials": TRIALS, "max_concurrent": 2},
        "early_stopping": {"grace": 2},
    }
    file.write_text(yaml.safe_dump(config))
    return file


class Campaign:
    """One run and its faults; ``cluster`` has nodes that may be taken, None starts Ray on this machine."""

    def __init__(self, seed: int, folder: Path, config: Path, cluster: Any = None) -> None:
        self.seed, self.folder, self.cluster = seed, folder, cluster
        self.drawn = random.Random(seed)
        self.pretend = bool(os.environ.get("FAULTS_PRETEND"))
        self.trials = PRETENDED_TRIALS if self.pretend else TRIALS
        self.run, self.faults = folder / "run", folder / "faults"
        self.faults.mkdir(parents=True)
        self.config = folder / "config.yaml"
        values = yaml.safe_load(config.read_text())
        values["task"]["data"] = {k: str(config.parent / v) for k, v in values["task"]["data"].items()}
        values["run"] = {"dir": str(self.run)}
        values["search"] |= {"seed": seed, "trials": self.trials}
        self.config.write_text(yaml.safe_dump(values))
        if cluster is not None:
            self._prepared(config.parent / "prepared")
        self.injected: Counter[str] = Counter()
        self.seen: dict[str, dict[str, Any]] = {}
        self.starts, self.refusals = 0, []

    def _prepared(self, template: Path) -> None:
        """Begin where a run begins that has its teacher: what an earlier run has prepared is copied."""
        from search.config import load_config

        shutil.copytree(template, self.run)
        (self.run / "config.yaml").write_text(load_config(self.config, []).to_yaml())

    def go(self) -> dict[str, Any]:
        """Run to the end through all faults and return the counts."""
        began = time.monotonic()
        self._plan_trial_faults()
        for fault in self.drawn.sample(DRIVER_FAULTS, 3 if self.pretend else self.drawn.choice((1, 1, 2))):
            if not self._start(fault):
                break
            self._observe()
            for _ in range(5):
                self._corrupt()
        while not self._finished() and time.monotonic() - began < LIMIT_S and self.starts < 12:
            self._start(None)
            self._observe()
        return self._judged(time.monotonic() - began)

    def _plan_trial_faults(self) -> None:
        for number, kind in zip(
            self.drawn.sample(range(self.trials), 4), self.drawn.sample(TRIAL_FAULTS, 4), strict=True
        ):
            (self.faults / f"t{number:05d}.{kind}").touch()

    def _start(self, fault: str | None) -> bool:
        """Start the driver and let ``fault`` happen to it; True when it ended before its work was done."""
        self.starts += 1
        if fault == "full disk":
            (self.faults / "driver.full").write_text(str(self.drawn.randint(1, 4)))
        launched = self._events("launched")
        command = [sys.executable, str(ROOT / "benchmarks/faults_driver.py"), str(self.config), str(self.faults)]
        address = [self.cluster.address] if self.cluster is not None else []
        with (self.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen([*command, *address], stdout=output, stderr=output, cwd=self.folder)
            self._disturb(process, fault, launched)
            try:
                code = process.wait(timeout=LIMIT_S / 2)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
                self.refusals.append("no end")
        if code == 2:
            self.refusals.append((self.folder / "output.txt").read_text(errors="replace").splitlines()[-1][:300])
        return not self._finished()

    def _disturb(self, process: subprocess.Popen[bytes], fault: str | None, launched: int) -> None:
        if fault is None:
            return
        wait = self._until_launched(process, launched) if self.drawn.random() < 0.8 else 8.0
        time.sleep(self.drawn.uniform(0.0, wait))
        if process.poll() is None and self.drawn.random() < 0.5:
            self._kill_a_worker(process)
        if process.poll() is None and self.cluster is not None and self.drawn.random() < 0.3:
            self.cluster.lose_a_node(self.drawn)
            self.injected["node"] += 1
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "interrupt": signal.SIGINT}.get(fault)
        if number is None:
            return
        time.sleep(self.drawn.uniform(0.0, 4.0))
        if process.poll() is None:
            process.send_signal(number)
            self.injected[f"driver {fault}"] += 1

    def _until_launched(self, process: subprocess.Popen[bytes], launched: int) -> float:
        until = time.monotonic() + 120
        while process.poll() is None and self._events("launched") <= launched and time.monotonic() < until:
            time.sleep(0.2)
        return 4.0

    def _kill_a_worker(self, process: subprocess.Popen[bytes]) -> None:
        """Kill one of the workers that train; after a launch they take some seconds to appear."""
        until = time.monotonic() + 30
        while not (workers := self._workers(process)) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(self.drawn.uniform(0.0, 2.0))
        if workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.drawn.choice(workers).kill()
            self.injected["worker"] += 1

    def _workers(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        parent = process.pid if self.cluster is None else os.getpid()
        found = []
        for child in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.name().startswith("ray::Implicit"):
                    found.append(child)
        return found

    def _corrupt(self) -> None:
        """Cut a file short, or write garbage into it; the truth is never damaged in both of its places."""
        files = sorted(self.run.glob(self.drawn.choice(CORRUPTED)))
        if not files or not (self.run / "run.json").exists():
            return
        file = self.drawn.choice(files)
        if file.name in TRUTH and self.injected.get("truth of this stop") == self.starts:
            return
        if file.name in TRUTH:
            self.injected["truth of this stop"] = self.starts
        size = file.stat().st_size
        place = self.drawn.randrange(size) if size else 0
        kind = self.drawn.choice(("truncated", "garbage"))
        with file.open("r+b") as stream:
            if kind == "truncated":
                stream.truncate(place)
            else:
                stream.seek(place)
                stream.write(self.drawn.randbytes(64))
        self.injected[f"{kind} {CALLED.get(file.parent.name, file.name)}"] += 1

    def _observe(self) -> None:
        """Note the rows that are there when nobody writes: they must all be there at the end."""
        for line in self._lines("trials.jsonl"):
            self.seen.setdefault(line["trial"], line)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        file = self.run / name
        found = []
        for line in file.read_bytes().splitlines() if file.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in found if isinstance(line, dict)]

    def _events(self, event: str) -> int:
        return sum(line.get("event") == event for line in self._lines("log.jsonl"))

    def _finished(self) -> bool:
        try:
            return bool(json.loads((self.run / "run.json").read_bytes())["state"] == "FINISHED")
        except (OSError, ValueError, KeyError):
            return False

    def _judged(self, seconds: float) -> dict[str, Any]:
        self.injected.pop("truth of this stop", None)
        for file in self.faults.glob("done.*"):
            kind = file.name.split(".")[-1]
            self.injected[f"trial {kind}" if not file.name.startswith("done.driver") else "driver full disk"] += 1
        self.injected["trial hungry"] += len([f for f in self.faults.glob("*.hungry") if self._hungry(f)])
        rows = self._lines("trials.jsonl")
        names = Counter(row["trial"] for row in rows)
        last = {row["trial"]: row for row in rows}
        study, unreadable = self._study(), self._unreadable()
        ended = [line.get("trial") for line in self._lines("log.jsonl") if line.get("event") == "ended"]
        return {
            "seed": self.seed,
            "cluster": self.cluster is not None,
            "trained": not self.pretend,
            "faults": sum(self.injected.values()),
            "injected": dict(sorted((+self.injected).items())),
            "starts": self.starts,
            "finished": self._finished(),
            "states": dict(Counter(row["state"] for row in rows)),
            "lost": sum(last.get(trial) != row for trial, row in self.seen.items()),
            "missing": self.trials - len(names),
            "duplicated": sum(n > 1 for n in names.values()) + sum(n > 1 for n in Counter(ended).values()),
            "zombies": sum(state == "RUNNING" for state in study.values()),
            "untold": len(names.keys() - study.keys()),
            "unreadable": unreadable,
            "refusals": self.refusals,
            "seconds": round(seconds, 1),
        }

    def _hungry(self, file: Path) -> bool:
        trial = file.name.split(".")[0]
        return any(line.get("event") == "put off" and line["trial"] == trial for line in self._lines("log.jsonl"))

    def _study(self) -> dict[str, str]:
        backend = optuna.storages.journal.JournalFileBackend(str(self.run / "study.log"))
        try:
            study = optuna.load_study(study_name="paredown", storage=optuna.storages.JournalStorage(backend))
        except KeyError:  # there is none: all trials count as untold
            return {}
        return {t.user_attrs["trial"]: t.state.name for t in study.trials if "trial" in t.user_attrs}

    def _unreadable(self) -> int:
        from analysis.run import Run

        try:
            run = Run(self.run)
            return int(len(run.trials) < self.trials or not len(run.front()))
        except Exception as error:
            self.refusals.append(f"unreadable: {error}"[:300])
            return 1


def patiently(start: Callable[[], T]) -> T:
    """Start a part of the cluster again and again: on a loaded machine it may take longer than Ray's patience."""
    for _ in range(10):
        try:
            return start()
        except Exception as error:
            print(f"a node did not start: {error}", flush=True)
    raise RuntimeError("no node starts on this machine")


class Nodes:
    """A Ray cluster of processes on this machine: a head without cores and two nodes of one core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 100_000_000}
        self.cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small}))
        self.small = {"num_cpus": 1, **small}
        self.nodes: list[Any] = []
        while len(self.nodes) < 2:
            self._add()
        self.address = self.cluster.address

    def lose_a_node(self, drawn: random.Random) -> None:
        """Kill a node without a word and add another one."""
        if not self.nodes:
            self._add()
        lost = self.nodes.pop(drawn.randrange(len(self.nodes)))
        self.cluster.remove_node(lost, allow_graceful=False)
        self._add()

    def _add(self) -> None:
        self.nodes.append(patiently(lambda: self.cluster.add_node(**self.small)))

    def close(self) -> None:
        """End all nodes."""
        self.cluster.shutdown()


KINDS = {
    "driver kill": "driver: SIGKILL",
    "driver term": "driver: SIGTERM",
    "driver interrupt": "driver: Ctrl-C",
    "driver full disk": "driver: disk full",
    "worker": "worker: SIGKILL from outside",
    "trial die": "worker: SIGKILL at a rung",
    "node": "node removed",
    "trial raise": "trial: exception",
    "trial nan": "trial: weights become NaN",
    "trial memory": "trial: out of memory once",
    "trial hungry": "trial: out of memory always",
    "trial full": "trial: disk full",
    "truncated": "file cut short",
    "garbage": "file overwritten in part",
}
BAD = ("lost", "missing", "duplicated", "zombies", "untold", "unreadable")


def table(rows: list[dict[str, Any]]) -> str:
    """Return what was injected and what came of it as Markdown."""
    counts: Counter[str] = Counter()
    for row in rows:
        for kind, count in row["injected"].items():
            counts[next(name for start, name in KINDS.items() if kind.startswith(start))] += count
    lines = ["| fault | injected |", "|---|---|", *(f"| {name} | {counts[name]} |" for name in KINDS.values())]
    bad = ", ".join(f"{name} {sum(row.get(name, 0) for row in rows)}" for name in BAD)
    states = sum((Counter(row["states"]) for row in rows), Counter[str]())
    starts = sum(row["starts"] for row in rows)
    ended = f"{sum(row['finished'] for row in rows)} of {len(rows)} runs finished in {starts} starts"
    return "\n".join([*lines, f"| all | {sum(counts.values())} |", "", f"{ended}; trials {dict(states)}; {bad}"])


def keep_prepared(run: Path, template: Path) -> None:
    """Keep of the first run what does not depend on its seed."""
    if template.exists():
        return
    template.mkdir()
    for name in ("run.json", "signature.json", "curves.npz"):
        shutil.copy2(run / name, template / name)
    shutil.copytree(run / "teacher", template / "teacher")
    info = json.loads((template / "run.json").read_text())
    info["hypervolume"].pop("value", None)
    info.pop("files", None)  # of that run's config
    for name in ("run.json", ".run.json.copy"):
        (template / name).write_text(json.dumps(info | {"state": "RUNNING", "refused": 0}))


def main() -> None:
    """Run what is not in the results yet, and say what all of them add up to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/faults.jsonl")
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder to keep the model, its data and what was prepared of it")
    parser.add_argument("--pretend", action="store_true", help="trials do all but train, and import no torch")
    parser.add_argument("--local", type=int, default=3, help="so many runs start Ray themselves; the rest on a cluster")
    arguments = parser.parse_args()
    if arguments.pretend:
        os.environ["FAULTS_PRETEND"] = "1"
    # Ray's workers are nice by default: beside other work they would hardly run at all.
    os.environ |= {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "120"}
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    sys.path.insert(0, str(ROOT))
    done = (
        {json.loads(line)["seed"] for line in arguments.out.read_text().splitlines()} if arguments.out.exists() else {}
    )
    seeds = [s for s in range(arguments.first_seed, arguments.first_seed + arguments.runs) if s not in done]
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        work = arguments.work or Path(place)
        os.environ.setdefault("PAREDOWN_CACHE", f"{work}/cache")
        config = inputs(work / "inputs")
        nodes = None
        for seed in seeds:
            prepared = config.parent / "prepared"
            if seed >= arguments.first_seed + arguments.local and nodes is None and prepared.exists():
                nodes = Nodes()
            campaign = Campaign(seed, Path(place) / f"run-{seed}", config, nodes)
            found = campaign.go()
            keep_prepared(campaign.run, prepared)
            found["host"] = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
            with arguments.out.open("a") as stream:
                stream.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
            if any(found[key] for key in BAD):
                keep = Path(tempfile.gettempdir()) / f"kept-faults-{seed}"
                print(f"kept for a look: {keep}", flush=True)
                (Path(place) / f"run-{seed}").rename(keep)
        if nodes is not None:
            nodes.close()
    print(table([json.loads(line) for line in arguments.out.read_text().splitlines()]))


if __name__ == "__main__":
    main()
