"""Verdicts on the papers' claims from the rows of benchmarks/papers.py, and the page that shows them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from papers_claims import CLAIMS, Claim

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Verdict:
    """A pair of arms at one size on one set: means in points, their difference and its interval."""

    claim: int
    data: str
    keep: float
    better: str
    worse: str
    means: tuple[float, float]
    difference: float
    low: float
    high: float
    seeds: int
    wanted: int = 1
    margin: float = 0.0
    measured: tuple[str, str] = ("", "")
    slower: bool | None = None

    @property
    def word(self) -> str:
        """``holds`` or ``reversed`` where the interval leaves out 0 (or minus the margin), else ``undecided``.

        With fewer seeds than the claim asks for nothing is decided.
        """
        if self.seeds < self.wanted:
            return "undecided"
        if self.slower is not None:
            return "holds" if self.slower else "reversed"
        return "holds" if self.low > -self.margin else "reversed" if self.high < -self.margin else "undecided"

    @property
    def line(self) -> str:
        """The verdict as one line."""
        first, second = self.means
        return (
            f"{self.claim:>2} {self.data} keep {self.keep:g}: {self.better} {first:.1f} against {self.worse} "
            f"{second:.1f}: {self.difference:+.1f} [{self.low:+.1f}, {self.high:+.1f}] {self.word}, {self.seeds} seeds"
        )


def verdicts(claim: Claim, rows: list[dict[str, Any]]) -> list[Verdict]:
    """Return the verdict of every pair of a claim for which there are rows of the same seeds."""
    found: dict[tuple[str, float, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["claim"] == claim.number:
            found[row["set"], row["keep"], row["arm"]][row["seed"]] = row
    made = []
    for data in claim.sets:
        for keep in claim.keeps:
            for better, worse in claim.pairs:
                ours, theirs = found[data, keep, better], found[data, keep, worse]
                seeds = sorted(set(ours) & set(theirs))
                if seeds:
                    made.append(_compared(claim, data, keep, better, worse, [(ours[s], theirs[s]) for s in seeds]))
    return made


def _compared(
    claim: Claim, data: str, keep: float, better: str, worse: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]
) -> Verdict:
    """Paired bootstrap over the rows of the data, and over the seeds: what differs from another set or start."""
    first = np.stack([_rows(ours) for ours, _ in pairs])
    second = np.stack([_rows(theirs) for _, theirs in pairs])
    rng = np.random.default_rng(0)
    seeds, rows = first.shape[:2]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(seeds, size=seeds)
        weights = rng.multinomial(rows, np.full(rows, 1 / rows))
        drawn.append(_points(first[chosen], weights) - _points(second[chosen], weights))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    even = np.ones(rows, np.int64)
    means = _points(first, even), _points(second, even)
    shown = tuple(_measured([pair[side] for pair in pairs]) if claim.measured else "" for side in (0, 1))
    return Verdict(
        claim=claim.number,
        data=data,
        keep=keep,
        better=better,
        worse=worse,
        means=means,
        difference=means[0] - means[1],
        low=float(low),
        high=float(high),
        seeds=seeds,
        wanted=claim.seeds,
        margin=claim.margin,
        measured=(shown[0], shown[1]),
        slower=_is_slower(pairs) if claim.smaller_is_slower else None,
    )


def _measured(rows: list[dict[str, Any]]) -> str:
    names = ("size_mb", "latency_ratio_1", "latency_ratio_32")
    size, one, many = (float(np.median([row[name] for row in rows])) for name in names)
    return f" ({size:.1f} MB, {one:.2f} and {many:.2f} of the teacher's time at batch 1 and 32)"


def _is_slower(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> bool:
    """Tell whether the first is smaller and yet slower than the second, at batch 1 or 32."""
    smaller = all(ours["size_mb"] < theirs["size_mb"] for ours, theirs in pairs)
    return smaller and any(
        all(ours[name] > theirs[name] for ours, theirs in pairs) for name in ("latency_ratio_1", "latency_ratio_32")
    )


def _rows(row: dict[str, Any]) -> NDArray[np.float64]:
    """Return (rows, 1) of right or wrong, or (rows, 3) of entities right, found and true."""
    stored = row["rows"]
    if isinstance(stored, list):
        return np.array(stored, np.float64)
    bits, _, count = stored.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[: int(count), None].astype(np.float64)


def _points(rows: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    """Return the mean over seeds (first axis) of the metric of weighted rows, in points."""
    sums = np.einsum("srk,r->sk", rows, weights.astype(np.float64))
    if rows.shape[2] == 1:
        return float(100 * sums[:, 0].mean() / weights.sum())
    return float(100 * (2 * sums[:, 0] / np.maximum(1, sums[:, 1] + sums[:, 2])).mean())


HEAD = """# The papers' claims, rerun

`benchmarks/papers.py` trains each arm alike (MiniLM-L6 teacher; 120 steps of batch 32 unless the arm says
otherwise) and judges it on validation and test rows together. A difference is in points; its interval is the 95 %
range of a paired bootstrap over rows and seeds. **holds** or **reversed**: the interval leaves out 0; else, or with
fewer than 3 seeds of trained arms, **undecided**. An ordering found here, on small sets and one small model,
supports a published one and does not prove it. Published figures: (text) read in the paper, (code) in its authors'
code, (quoted) in a document that quotes it, (recalled) not verified.

Claims 1 (no rank-r matrix is nearer in output error than the whitened SVD) and 2 (nearest Kronecker product) are
theorems, held as property tests in `tests/compressors/test_closed_forms.py` and `test_kronecker_sums.py`. Of the
list of orderings that this kind of machine could decide, 16 (reweighting alone) and 18 (start of an LSTM's words)
are not here.
"""


def report(rows: list[dict[str, Any]]) -> str:
    """Return the page."""
    parts = [HEAD]
    for claim in CLAIMS:
        made = verdicts(claim, rows)
        parts.append(f"\n## {claim.number}. {claim.text}\n\nSource: {claim.source}. Published: {claim.published}.\n")
        if not made:
            parts.append("Not run yet.\n")
            continue
        if claim.labels:
            parts.append(f"{claim.labels} labelled rows per class; all other training text is unlabelled.\n")
        parts.append(
            "| set | kept | better | | worse | | difference | verdict | seeds |\n|---|---|---|---|---|---|---|---|---|"
        )
        for v in made:
            parts.append(
                f"| {v.data} | {v.keep:g} | {v.better}{v.measured[0]} | {v.means[0]:.1f} "
                f"| {v.worse}{v.measured[1]} | {v.means[1]:.1f} | "
                f"{v.difference:+.1f} [{v.low:+.1f}, {v.high:+.1f}] | {v.word} | {v.seeds} |"
            )
    return "\n".join(parts) + "\n"
