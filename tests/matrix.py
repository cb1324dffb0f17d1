"""The tests with the lowest, the newest and some middle versions of what paredown stands on.

Warnings of a deprecation are errors where our own modules cause them, not where other packages cause each other's.

    python tests/matrix.py [ROW ...] [--torch 2.13.0] [--folder .matrix] [--tests tests] [--keep]

Every row gets a virtual environment of its own. ``lowest`` has the lower bounds of pyproject.toml, ``before-5.15`` the
last transformers without ``config.per_layer_config``, ``newest`` whatever the package index has. torch is the version
of constraints.txt in all rows unless ``--torch`` names another: not every index has builds for the CPU of all of them;
``--torch bounds`` takes the lower bound in the first row and the newest in the others. Prints a line a row, and ends
with 1 where one failed. Environments that exist are used again; ``--keep`` leaves them there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BETWEEN = {"transformers": "transformers>=5.0,<5.15"}
"""What the row between takes in the place of a lower bound."""

TESTED = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "ray",
    "optuna",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
)
"""The packages of which ``lowest`` takes the lower bound; the index chooses versions of the others that fit them."""

KINDS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
OURS = r"(spaces|compressors|search|analysis|paredown)(\..*)?"

TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.112", "scipy", "ruff")


def main() -> int:
    """Run the rows and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=["lowest", "before-5.15", "newest"])
    parser.add_argument("--torch", default=pinned("torch"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix")
    parser.add_argument("--tests", default="tests")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    results = {row: run_row(row, arguments) for row in arguments.rows}
    for row, said in results.items():
        print(f"{row}: {said}")
    return int(any(not said.startswith("passed") for said in results.values()))


def run_row(row: str, arguments: argparse.Namespace) -> str:
    """Make the environment of a row, run the tests in it and return what came of it with the versions."""
    folder = arguments.folder / row
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        # torch first and alone, so that no other package's requirement chooses its build
        wanted = requirements(row, arguments.torch)
        first = [text for text in wanted if re.split(r"[<>=]", text)[0] == "torch"]
        for packages in (first, [*wanted, *TOOLS], ["--no-deps", "-e", str(ROOT), backbone()]):
            done = subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=False)
            if done.returncode:
                return f"could not be installed: {' '.join(packages)}"
        (folder / ".ready").touch()
    ours = ["-o", "filterwarnings=" + "\n".join(f"error::{kind}:{OURS}" for kind in KINDS)]
    tests = subprocess.run([python, "-m", "pytest", "-q", *ours, *arguments.tests.split()], cwd=ROOT, check=False)
    said = "passed" if tests.returncode == 0 else f"failed (pytest exited with {tests.returncode})"
    versions = versions_in(python)
    if not arguments.keep:
        shutil.rmtree(folder)
    return f"{said} with {versions}"


def requirements(row: str, torch: str) -> list[str]:
    """Return what is installed for a row: each dependency of pyproject.toml, bounded or fixed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["onnx"], *extras["seqeval"], *extras["notebooks"]]
    found = []
    for text in listed:
        name = re.split(r"[\[<>=]", text)[0]
        if name == "torch" and torch != "bounds":
            found.append(f"torch=={torch}")
        elif row == "lowest" and name in TESTED:
            found.append(lowest(text))
        elif row == "before-5.15" and name in BETWEEN:
            found.append(BETWEEN[name])
        else:
            found.append(text)
    return found


def lowest(requirement: str) -> str:
    """Return a requirement for the series of its lower bound: ``ray[tune]>=2.50`` -> ``ray[tune]==2.50.*``."""
    name, bound = requirement.split(">=")
    return f"{name}=={bound}.*"


def backbone() -> str:
    """Return the package with the weights that some tests read, as the Makefile names it."""
    return next(line.split(" := ")[1] for line in (ROOT / "Makefile").read_text().splitlines() if "BACKBONE :=" in line)


def pinned(name: str) -> str:
    """Return the version of a package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))


def versions_in(python: Path) -> str:
    """Return the versions of the tested packages in an environment."""
    code = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {TESTED!r}), sep=', ')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
