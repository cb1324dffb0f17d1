"""How time and memory grow with layers, width and data: fitted exponents.

    OMP_NUM_THREADS=1 python benchmarks/speed_growth.py [--out FILE]

CPU seconds of one thread. Layers and width: untrained BERTs; what is timed are the low-rank curves (whose
eigen-decompositions need width^3), building a low-rank student from kept components, and a training step on 512 tokens;
the bytes of its file. Data: synthetic rows of 4 to 24 tokens; laying out an epoch, a batch with its teacher outputs,
and the teacher's pass (a BERT of 2 x 64, hidden states of both layers), with the largest anonymous memory that this
process had in it: what is mapped from disk is not counted. How the driver grows with trials is measured by scale.py.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed_closed_forms import calibrated, teacher
from speed_common import RESULTS, record, timed
from transformers import BertConfig, BertForSequenceClassification

from compressors.apply import student_of
from compressors.distill.batches import Encoded, collate, order, stream
from compressors.distill.precision import autocast
from compressors.distill.targets import prepare_targets
from compressors.factors import Factors
from compressors.saving import save_student, weights_bytes
from compressors.signature import config_dict, signature_of
from spaces.plan import Choice, Student

LAYERS = ((6, 384), (12, 384), (24, 384))
WIDTHS = ((2, 384), (2, 768), (2, 1024))
ROWS = (5_000, 50_000, 500_000)


def main() -> None:
    """Measure, fit, write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--out", type=Path, default=RESULTS / "speed_growth.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model_once(2, 128)  # imports and first calls
    series: dict[str, tuple[Sequence[int], Callable[[int], dict[str, float]]]] = {
        "layers": ([layers for layers, _ in LAYERS], lambda layers: model_once(layers, LAYERS[0][1])),
        "width": ([width for _, width in WIDTHS], lambda width: model_once(WIDTHS[0][0], width)),
        "rows": (arguments.rows, data_once),
    }
    record(arguments.out, chain.from_iterable(grown(name, *parts) for name, parts in series.items()))


def grown(name: str, sizes: Sequence[int], measure: Callable[[int], dict[str, float]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each size, then the exponents: slopes of a line through the logarithms."""
    found = []
    for size in sizes:
        found.append(measure(size))
        yield {"against": name, "size": size, **found[-1]}
    slopes = {
        key: round(float(np.polyfit(np.log(sizes), np.log([row[key] for row in found]), 1)[0]), 2) for key in found[0]
    }
    yield {"against": name, "exponents": slopes}


def model_once(layers: int, width: int) -> dict[str, float]:
    """Return the times of one model, and the bytes of its student."""
    model = teacher(layers, width)
    factors = Factors.of_model(model, calibrated(model, 32))
    blocks = [module for module in factors.signature.modules if module.block is not None]
    curves = timed(lambda: [factors.low_rank(module.path, "fisher-whitened", 1) for module in blocks])[1]
    choices = {module.path: Choice.of("lowrank", rank=width // 8) for module in blocks}
    plan = Student.of(factors.signature.hash, choices)
    built: list[Any] = []
    build = min(timed(lambda: built.append(student_of(plan, config_dict(model), factors)))[1] for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        save_student(built[-1], Path(folder) / "model")
        size = weights_bytes(Path(folder) / "model")
    step = min(timed(lambda: _step(model))[1] for _ in range(4))
    return {
        "curves_s": round(curves, 3),
        "build_s": round(build, 4),
        "step_s": round(step, 4),
        "student_mb": round(size / 1e6, 2),
    }


def _step(model: Any) -> None:
    ids = torch.randint(5, 30000, (32, 16))
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    with autocast(torch.device("cpu")):
        loss = model(input_ids=ids).logits.float().square().mean()
    loss.backward()
    model.zero_grad()


def data_once(count: int) -> dict[str, float]:
    """Return the times of so many rows, and the memory of the teacher's pass."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 25, count)
    flat = rng.integers(5, 1000, int(lengths.sum()), dtype=np.int32)
    data = Encoded(tuple(np.split(flat, np.cumsum(lengths)[:-1])), labels=rng.integers(0, 2, count))
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=2, vocab_size=1000, **sizes)).eval()
    collate(data, np.arange(2))  # what is made once for all epochs
    epoch = timed(lambda: order(data, 32, 0, 0))[1]
    names = ("logits", "hidden.1", "hidden.2")
    with tempfile.TemporaryDirectory() as folder, Peak() as peak:
        prepared: list[Any] = []
        signature = signature_of(model)
        passing = timed(
            lambda: prepared.append(
                prepare_targets(data, names, Path(folder), teacher=lambda: model, signature=signature)
            )
        )[1]
        batches = timed(lambda: [prepared[0].batch(collate(data, i)) for i in islice(stream(data, 32, 0), 100)])[1]
    return {
        "epoch_s": round(epoch, 4),
        "teacher_s": round(passing, 2),
        "batch_ms": round(batches * 10, 3),
        "teacher_memory_mb": round(max(peak.grown, 1.0), 1),
    }


class Peak:
    """How much the anonymous memory of this process grew at most, in MB, looked at every 20 ms."""

    def __enter__(self) -> Peak:
        """Begin to look."""
        self.before, self.most, self.done = _anonymous_mb(), 0.0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop looking."""
        self.done.set()
        self.thread.join()

    @property
    def grown(self) -> float:
        """Megabytes above what there was."""
        return self.most - self.before

    def _look(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, _anonymous_mb())


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


if __name__ == "__main__":
    main()
