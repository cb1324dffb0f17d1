"""Tables and a plot of replayed searches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

NEAR, TRIAL = 0.95, 60
"""The share of the reference volume that counts as reaching it; the steps of a whole trial."""
WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 860, 420, 60, 44, 200, 16
COLOURS = {
    "guided": "#c1121f",
    "turns": "#e0a458",
    "TPE": "#1d5fa8",
    "random": "#555555",
    "NSGA-II": "#7d4f9e",
    "GP": "#0b8a6a",
    "MOASHA": "#2b2b2b",
}
"""By sampler; lines in the explicit space are dashed."""
LOWEST, TICK = 0.2, 0.1

EXPLICIT = ", explicit"
"""How the names of arms in the explicit space end."""

Rows = Sequence[Mapping[str, Any]]


def tables(rows: Rows) -> str:
    """Return all tables as Markdown."""
    return "\n\n".join([arms_table(of(rows, "arms")), arms_table(of(rows, "ablation")), stopping_table(rows)])


def of(rows: Rows, part: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of a part by arm."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["part"] == part:
            found[row["arm"]].append(row)
    return dict(found)


def reference(arms: Mapping[str, Rows]) -> float:
    """Return the volume that others are held against: the largest median over seeds of any arm at its end."""
    return max((median(r["volume"][-1] for r in rows) for rows in arms.values()), default=0.0)


def reached(row: Mapping[str, Any], level: float) -> float:
    """Return after how many whole trials' steps the volume is at least ``level`` and stays there; infinite if never."""
    volumes = np.array(row["volume"])
    below = np.flatnonzero(volumes < level)
    first = 0 if len(below) == 0 else int(below[-1]) + 1
    return row["steps"][first] / TRIAL if first < len(volumes) else float("inf")


def after(row: Mapping[str, Any], trials: int) -> float | None:
    """Return the volume after the steps of so many whole trials; None where the arm had fewer."""
    within = np.flatnonzero(np.array(row["steps"]) <= trials * TRIAL)
    enough = row["steps"][-1] > (trials - 1) * TRIAL
    return float(row["volume"][within[-1]]) if enough and len(within) else None


def arms_table(arms: Mapping[str, Rows]) -> str:
    """Return medians of the volume after some trials, and of the trials to 0.95 of the reference, over the seeds."""
    if not arms:
        return ""
    most = reference(arms)
    at = (6, 12, 24, 48, 60, 120)
    lines = [
        f"Reference {most:.4f}; medians of {min(len(r) for r in arms.values())} seeds.",
        "",
        "| arm | " + " | ".join(f"{n} trials" for n in at) + f" | trials to {NEAR} (lowest to highest) |",
        "|---|" + "---|" * (len(at) + 1),
    ]
    for name, rows in arms.items():
        columns = [[v for r in rows if (v := after(r, n)) is not None] for n in at]
        cells = [f"{median(column):.3f}" if len(column) == len(rows) else "" for column in columns]
        counts = sorted(reached(r, NEAR * most) for r in rows)
        said = f"{number(median(counts), rows)} ({number(counts[0], rows)} to {number(counts[-1], rows)})"
        lines.append(f"| {name} | {' | '.join(cells)} | {said} |")
    return "\n".join(lines)


def number(count: float, rows: Rows) -> str:
    """Return a number of whole trials; more than there were, where it was not reached."""
    return f"{count:.0f}" if np.isfinite(count) else f"> {max(r['steps'][-1] for r in rows) / TRIAL:.0f}"


def stopping_table(rows: Rows) -> str:
    """Return what early stopping saves and costs, by arm: medians over seeds."""
    arms = of(rows, "stopping")
    names = [name.removesuffix(", stopped") for name in arms if name.endswith(", stopped")]
    lines = ["| sampler | steps | volume | trials stopped | of would-be front trials |", "|---|---|---|---|---|"]
    for name in names:
        plain = {r["seed"]: r for r in arms.get(f"{name}, to the end", [])}
        pairs = [(plain[r["seed"]], r) for r in arms[f"{name}, stopped"] if r["seed"] in plain]
        if not pairs:
            continue
        steps = median(b["steps"][-1] / a["steps"][-1] for a, b in pairs)
        volumes = median(b["volume"][-1] / a["volume"][-1] for a, b in pairs)
        stopped = median(1 - float(np.mean(b["complete"])) for _, b in pairs)
        lost = [would_be_front(b) for _, b in pairs]
        share = sum(x[0] for x in lost) / max(sum(x[1] for x in lost), 1)
        lines.append(f"| {name} | {steps:.2f} | {volumes:.3f} | {stopped:.2f} | {share:.3f} |")
    return "\n".join(lines)


def would_be_front(row: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many trials that were stopped would be on the front by their means, and how many are on it."""
    points = np.array([p[:2] for p in row["points"]])
    beaten = [
        bool(((points[:, 0] <= s) & (points[:, 1] >= m) & (points != (s, m)).any(axis=1)).any()) for s, m in points
    ]
    front = [n for n, gone in enumerate(beaten) if not gone]
    return sum(not row["complete"][n] for n in front), len(front)


def draw(rows: Rows) -> str:
    """Return an SVG: the median volume against training steps for every arm, bands from lowest to highest seed."""
    arms = of(rows, "arms")
    top = TICK * np.ceil(max(max(r["volume"]) for r in rows) / TICK)
    most = max(r["steps"][-1] for r in rows)
    low = LOWEST

    def place(steps: float, volume: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * steps / most
        y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (max(volume, low) - low) / (top - low)
        return f"{x:.1f},{y:.1f}"

    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>']
    for tick in np.arange(low, top + TICK / 2, TICK):
        x, y = place(0, tick).split(",")
        parts.append(f'<text x="{float(x) - 8}" y="{float(y) + 4}" text-anchor="end">{tick:.1f}</text>')
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#ddd"/>')
    for tick in np.linspace(0, most, 7):
        x = place(tick, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:,.0f}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">training steps; median hypervolume, lowest to highest seed</text>')
    for n, (name, found) in enumerate(arms.items()):
        colour = COLOURS[name.removesuffix(EXPLICIT)]
        dashes = ' stroke-dasharray="5 4"' if name.endswith(EXPLICIT) else ""
        steps = np.arange(TRIAL, min(r["steps"][-1] for r in found) + 1, TRIAL)
        volumes = np.array([[after(r, s // TRIAL) or 0.0 for s in steps] for r in found])
        upper = [place(s, v) for s, v in zip(steps, volumes.max(axis=0), strict=True)]
        under = [place(s, v) for s, v in zip(steps, volumes.min(axis=0), strict=True)]
        parts.append(f'<polygon points="{" ".join(upper + under[::-1])}" fill="{colour}" opacity="0.12"/>')
        middle = [place(s, v) for s, v in zip(steps, np.median(volumes, axis=0), strict=True)]
        parts.append(f'<polyline points="{" ".join(middle)}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        line = TOP + 14 + 20 * n
        at = WIDTH - RIGHT + 12
        line_to = f'x1="{at}" y1="{line}" x2="{at + 20}" y2="{line}"'
        parts.append(f'<line {line_to} stroke="{colour}" stroke-width="2"{dashes}/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 38}" y="{line + 4}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
