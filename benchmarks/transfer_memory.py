"""Memory that transfer text takes, by format: read and checked, then as token ids.

    OMP_NUM_THREADS=1 python benchmarks/transfer_memory.py [--rows 500000] [--out FILE]

Rows of 20 random words each, in a txt, jsonl, csv and parquet file. Every reading is a process of its own: its peak
above what it had with everything imported and the tokenizer loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from speed_common import RESULTS, record

FORMATS = ("txt", "jsonl", "csv", "parquet")
WORDS = 20


def main() -> None:
    """Write the files, read each in a process of its own, write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "transfer_memory.json")
    parser.add_argument("--read", type=Path, help="Read one file and print its memory.")
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        record(arguments.out, measured(arguments.rows, Path(folder)), rows_read=arguments.rows, words=WORDS)


def measured(rows: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each format."""
    write(rows, folder)
    for suffix in FORMATS:
        file = folder / f"rows.{suffix}"
        call = [sys.executable, __file__, "--read", str(file)]
        found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        yield {"format": suffix, "file_mb": round(file.stat().st_size / 1e6, 1), **found}


def write(rows: int, folder: Path) -> None:
    """Write the same rows in every format; the parquet file has one group of rows."""
    import pandas as pd

    from search.backbone import resolve

    listed = (Path(resolve("minilm")) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    known = [word for word in listed if word.isalpha()]
    drawn = np.random.default_rng(0).integers(0, len(known), (rows, WORDS))
    frame = pd.DataFrame(
        {"text": [" ".join([known[word] for word in row]) for row in drawn.tolist()], "id": range(rows)}
    )
    (folder / "rows.txt").write_text("\n".join(frame["text"]) + "\n", encoding="utf-8")
    frame.to_json(folder / "rows.jsonl", orient="records", lines=True)
    frame.to_csv(folder / "rows.csv", index=False)
    frame.to_parquet(folder / "rows.parquet", row_group_size=rows)


def read(file: Path) -> dict[str, float]:
    """Return MB of memory that reading ``file`` and tokenising it take at most."""
    from transformers import AutoTokenizer

    from search.backbone import resolve
    from search.config.models import Columns, Data, Task
    from search.data import data_from, load_data
    from search.tasks import TaskSpec

    few = {"text": ["one", "two", "three", "four"], "label": ["a", "b", "a", "b"]}
    train = file.with_name("train.jsonl")
    train.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in zip(*few.values(), strict=True)))
    files = Data(train=str(train), validation=str(train))
    task = Task(kind="text-classification", data=files, columns=Columns(text="text", label="label"))
    spec = TaskSpec.of(task, ("a", "b"))
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    spec.encode(tokenizer, data_from(task, train=few, validation=few, transfer=["one"]).train)
    before = peak_mb()
    transfer = load_data(task.model_copy(update={"transfer": str(file)})).transfer
    assert transfer is not None, "the file was read"
    loaded = peak_mb()
    spec.encode(tokenizer, transfer)
    return {"read_mb": round(loaded - before, 1), "tokenised_mb": round(peak_mb() - before, 1)}


def peak_mb() -> float:
    """Return the largest memory of this process so far; what getrusage says begins with its parent's (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
