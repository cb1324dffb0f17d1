"""What this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal, NamedTuple

from spaces.errors import UserError

NEEDED = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "ray",
    "optuna",
    "pandas",
    "plotly",
    "pydantic",
)
OPTIONAL = {
    "onnxruntime": "ONNX conversion and runtimes: pip install 'paredown[onnx]'",
    "nbclient": "executing the notebooks: pip install 'paredown[notebooks]'",
    "playwright": "testing the report in a browser: pip install 'paredown[report-test]'",
}
LOW_DISK_GB = 5.0


class Finding(NamedTuple):
    """One thing that was looked at: ``good``, ``optional`` (missing, not needed) or ``bad`` (missing and needed)."""

    level: Literal["good", "optional", "bad"]
    name: str
    text: str


def examine() -> list[Finding]:
    """Look at everything; nothing is changed and no network is used."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _needed,
        _devices,
        _ray,
        _backbone,
        _methods,
        _folders,
        _optional,
    )
    return [finding for look in looks for finding in look()]


def _python() -> Iterator[Finding]:
    yield Finding("good", "python", f"{platform.python_version()}, {sys.executable}")


def _packages() -> Iterator[Finding]:
    from paredown import shadowed

    problem = shadowed()
    text = f"{_version('paredown') or 'not installed as a distribution'}, its four packages are its own"
    yield Finding("good" if problem is None else "bad", "paredown", problem or text)


def _needed() -> Iterator[Finding]:
    for name in NEEDED:
        found = _version(name)
        yield Finding("good" if found else "bad", name, found or f"missing: pip install {name}, or make install")


def _optional() -> Iterator[Finding]:
    for name, purpose in OPTIONAL.items():
        found = _version(name)
        yield Finding("good" if found else "optional", name, found or f"not installed; needed for {purpose}")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    missing = "not installed; needed for testing the report in a browser: apt-get install chromium"
    yield Finding("good" if browser else "optional", "chromium", browser or missing)


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    limited = f", OMP_NUM_THREADS={threads}" if threads else ""
    yield Finding("good", "cpu", f"{cores} cores, {platform.machine()}{limited}")
    if find_spec("torch") is None:
        return
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding(
        "good" if names else "optional", "gpu", ", ".join(names) or "none seen by torch; searches run on the cpu"
    )


def _ray() -> Iterator[Finding]:
    """Say whether the dashboard is there, which `ray job submit` needs, and whether authentication was turned off."""
    extra = find_spec("aiohttp") is not None and find_spec("ray") is not None
    text = "with dashboard" if extra else "no dashboard; `ray job submit` needs it: pip install 'paredown[cluster]'"
    yield Finding("good" if extra else "optional", "ray cluster", text)
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode is not None and mode.lower() == "disabled":
        yield Finding("bad", "ray auth", "RAY_AUTH_MODE=disabled lets anyone who reaches the port run code; unset it")


def _backbone() -> Iterator[Finding]:
    from search.backbone import minilm_folder

    try:
        yield Finding("good", "minilm", f"{minilm_folder()}, weights verified")
    except UserError as error:
        yield Finding("optional", "minilm", str(error).removeprefix("teacher.model: "))


def _methods() -> Iterator[Finding]:
    from spaces.methods import names

    yield Finding("good", "methods", ", ".join(names()))


def _folders() -> Iterator[Finding]:
    from search.paths import cache_folder

    folder = cache_folder()
    free = shutil.disk_usage(folder).free / 1e9
    low = f"; below {LOW_DISK_GB:g} GB a search may fill the disk" if free < LOW_DISK_GB else ""
    yield Finding("good" if not low else "bad", "cache", f"{folder}, {free:.0f} GB free{low}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
