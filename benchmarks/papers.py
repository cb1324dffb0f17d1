"""The papers' orderings, rerun: which hold on this machine, by how much, and how surely.

    python benchmarks/papers.py --data trec6=DIR --data sst2=DIR:TRANSFER.txt ... [--claims 3,6] [--seeds 3]
        [--out benchmarks/results/papers.jsonl] [--work runs/papers]
    python benchmarks/papers.py --report docs/papers.md

DIR holds train, validation and test files (csv with text and label, or jsonl with tokens and tags); the sets are named
trec6, banking77, sst2 (whole sentences) and snips (slots). Students of claim arms are trained alike and judged on
validation and test rows together; each pair of arms is compared row by row over all seeds. Rows that the output file
holds are not run again, so that the benchmark can be interrupted. The rows name the data by hash.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from papers_claims import CLAIMS, Claim
from papers_report import report, verdicts

Key = tuple[Any, ...]


def main() -> None:
    """Run what is missing, print the verdicts, and write the report where one is asked for."""
    arguments = parsed()
    rows = read(arguments.out)
    claims = [c for c in CLAIMS if not arguments.claims or c.number in arguments.claims]
    if arguments.data:
        for row in missing_rows(claims, rows, arguments):
            rows.append(row)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            shown = {name: row[name] for name in ("claim", "set", "arm", "keep", "seed", "value", "seconds")}
            print(json.dumps(shown), flush=True)
    for claim in claims:
        for verdict in verdicts(claim, rows):
            print(verdict.line)
    if arguments.report:
        arguments.report.write_text(report(rows), encoding="utf-8")


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], help="NAME=FOLDER or NAME=FOLDER:TRANSFER.txt")
    parser.add_argument("--claims", type=lambda text: [int(n) for n in text.split(",")], default=[])
    parser.add_argument("--seeds", type=int, default=None, help="instead of each claim's own number")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/papers.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("runs/papers"), help="for the subsets of few labels")
    parser.add_argument("--report", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def missing_rows(claims: list[Claim], rows: list[dict[str, Any]], arguments: argparse.Namespace) -> Iterator[Any]:
    """Yield the rows that are not there yet, of the sets that were given."""
    import torch
    from papers_lab import Lab, Place

    from search.quiet import quiet

    quiet()
    torch.set_num_threads(arguments.threads)
    places = {}
    for text in arguments.data:
        name, _, path = text.partition("=")
        folder, _, transfer = path.partition(":")
        places[name] = Place(name, Path(folder).resolve(), Path(transfer).resolve() if transfer else None)
    done = {key_of(row) for row in rows}
    labs: dict[Key, Lab] = {}
    for claim in claims:
        for name in (name for name in claim.sets if name in places):
            for seed in range(arguments.seeds or claim.seeds):
                for keep in claim.keeps:
                    for arm in claim.arms:
                        if (claim.number, name, arm.name, keep, seed) in done:
                            continue
                        at = (name, claim.labels)
                        labs.setdefault(at, Lab(places[name], claim.labels, arguments.work))
                        yield labs[at].run(claim, arm, keep, seed)


def key_of(row: dict[str, Any]) -> Key:
    """Return what tells rows apart."""
    return row["claim"], row["set"], row["arm"], row["keep"], row["seed"]


def read(file: Path) -> list[dict[str, Any]]:
    """Return the rows of earlier calls."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
