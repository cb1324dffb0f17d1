"""A Python that sees torch, transformers and safetensors with what they require, and nothing else."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

WANTED = ("torch", "transformers", "safetensors")


def bare_site(folder: Path) -> Path:
    """Fill ``folder`` with links to the installed packages that ``WANTED`` require, and return it."""
    folder.mkdir()
    for found in _required():
        tops = {file.parts[0] for file in found.files or []}
        for top in tops - {"..", "__pycache__"}:
            if not top.endswith(".pth") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
    return folder


def python_of(site: Path) -> list[str]:
    """Return the start of a command that runs this Python with ``site`` in the place of its site-packages."""
    return [
        "env",
        "-u",
        "PYTHONHOME",
        f"PYTHONPATH={site}",
        "HF_HUB_OFFLINE=1",
        "OMP_NUM_THREADS=1",
        sys.executable,
        "-S",
    ]


def _required() -> list[Distribution]:
    todo, found = list(WANTED), dict[str, Distribution]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another platform or an extra
            continue
        needs = [need for need in found[name].requires or [] if "extra ==" not in need]
        todo += [match[0] for need in needs if (match := re.match(r"[\w.-]+", need))]
    return list(found.values())
