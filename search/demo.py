"""The data of the quickstart: movie review snippets with human ratings, from a package that any registry has.

``python -m search.demo [FOLDER]`` writes train.csv, validation.csv and test.csv (default: examples/quickstart/data).
The snippets come with the source distribution of vaderSentiment (MIT licence): Hutto and Gilbert, "VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from search.paths import cache_folder
from spaces.errors import UserError

PACKAGE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

NEUTRAL = 0.5
"""Snippets with a mean rating (-4 to 4) closer to 0 than this are left out: people did not agree on them."""

SIZES = {"test": 1000, "validation": 800, "train": 3600}
"""Rows by split; few enough for a teacher in under a minute on two cores."""

MOST_BYTES = 50_000_000


class Row(NamedTuple):
    """A snippet and whether people liked what it is about: 1 for a positive mean rating, 0 for a negative one."""

    text: str
    label: int


def prepare(folder: Path) -> dict[str, int]:
    """Write the three files into ``folder`` and return their numbers of rows; existing files are replaced."""
    archive = fetch()
    splits = split(read_ratings(archive))
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerows([Row._fields, *rows])
    return {name: len(rows) for name, rows in splits.items()}


def fetch() -> Path:
    """Return the source distribution in the cache; it is downloaded with pip the first time, and its hash checked."""
    folder = cache_folder() / "demo"
    archive = folder / f"{PACKAGE.replace('==', '-')}.tar.gz"
    if not archive.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            found = _download(Path(scratch))
            folder.mkdir(parents=True, exist_ok=True)
            partial = archive.with_suffix(".partial")
            partial.write_bytes(found.read_bytes())
            partial.replace(archive)
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SHA256:
        raise UserError(f"{archive}: its sha256 is {digest}, not that of {PACKAGE}; delete the file and try again")
    return archive


def _download(scratch: Path) -> Path:
    # pip checks the hash before it runs anything of the package
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run(
        [*command, "-r", str(wanted), "-d", str(scratch)], capture_output=True, text=True, check=False
    )
    found = sorted(scratch.glob("*.tar.gz"))
    if done.returncode != 0 or not found:
        reason = next((line for line in done.stderr.splitlines() if "ERROR" in line), "pip gave no reason")
        raise UserError(f"{PACKAGE} cannot be downloaded with pip: {reason}")
    return found[0]


def read_ratings(archive: Path) -> list[tuple[float, str]]:
    """Return (mean rating, snippet) from the archive inside the archive; nothing is unpacked to disk."""
    with tarfile.open(archive) as outer:
        inner = _member(outer, next((name for name in outer.getnames() if name.endswith(f"/{INNER}")), INNER))
        with tarfile.open(fileobj=outer.extractfile(inner)) as data:
            stream = data.extractfile(_member(data, RATINGS))
            text = stream.read().decode("utf-8") if stream is not None else ""
    rows = [line.split("\t") for line in text.splitlines() if line]
    return [(float(rating), snippet.strip()) for _, rating, snippet in rows]


def _member(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """Return a member that is a plain file of a sensible size; links and devices are refused."""
    try:
        member = archive.getmember(name)
    except KeyError:
        raise UserError(f"{PACKAGE}: there is no {name} in it") from None
    if not member.isfile() or member.size > MOST_BYTES:
        raise UserError(f"{PACKAGE}: {name} is no plain file of at most {MOST_BYTES} bytes")
    return member


def split(ratings: Sequence[tuple[float, str]], sizes: dict[str, int] = SIZES) -> dict[str, list[Row]]:
    """Return the splits: each text once, neutral ones left out, the order given by the hash of the text."""
    rows: dict[str, Row] = {}
    for rating, text in ratings:
        if abs(rating) >= NEUTRAL and text:
            rows.setdefault(text.casefold(), Row(text, int(rating > 0)))
    order = sorted(rows, key=lambda key: hashlib.sha256(key.encode()).digest())
    splits, start = {}, 0
    for name, size in sizes.items():
        splits[name] = [rows[key] for key in order[start : start + size]]
        start += size
    return splits


def main() -> int:
    """Write the quickstart's data and say where."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("examples/quickstart/data")
    try:
        counts = prepare(folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {folder}: {', '.join(f'{count:,} {name}' for name, count in counts.items())} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
