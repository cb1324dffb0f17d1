"""A search from an installed wheel, outside of the repository, on a cluster that asks for a token.

The cluster's workers have Ray and the other libraries and nothing of ours: that reaches them from the driver.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from search.config import Config

ROOT = Path(__file__).parents[2]
LIBRARIES = next(path for path in map(Path, sys.path) if path.name == "site-packages")
Configure = Callable[..., Config]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(folder: Path, *wheels: Path) -> Path:
    """Make a virtual environment of the libraries that are here, without this project but for ``wheels``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    place = next((folder / "lib").glob("python3*")) / "site-packages"
    (place / "libraries.pth").write_text(f"{LIBRARIES}\n")  # a path alone: the editable install in there stays unseen
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(place)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("spaces", "compressors", "search", "analysis"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("paredown.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(source / "wheels")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (found,) = (source / "wheels").glob("paredown-*.whl")
    return found


@pytest.fixture
def run(tmp_path: Path, cache: Path) -> Run:
    """Run a program outside of the repository, where Ray asks for the token in ``RAY_AUTH_TOKEN``."""
    home = tmp_path / "home"
    home.mkdir()
    ours = ("PYTHONPATH", "RAY_ADDRESS", "RAY_AUTH_TOKEN")
    base = {name: value for name, value in os.environ.items() if name not in ours}
    base |= {"HOME": str(home), "PAREDOWN_CACHE": str(cache), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token"}

    def call(*words: object, token: str | None = None) -> subprocess.CompletedProcess[str]:
        env = base | ({"RAY_AUTH_TOKEN": token} if token else {})
        return subprocess.run(
            [str(word) for word in words], env=env, cwd=home, capture_output=True, text=True, check=False, timeout=400
        )

    return call


@pytest.fixture
def cluster(run: Run, tmp_path: Path) -> Iterator[str]:
    """The address of a head with two cores, started by an environment without this project."""
    python = environment(tmp_path / "bare")
    assert run(python, "-c", "import search").returncode != 0
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    ray = [python, "-m", "ray.scripts.scripts"]
    options = ["--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    place = [f"--temp-dir=/tmp/r{port}", "--object-store-memory=100000000", "--disable-usage-stats"]
    started = run(*ray, "start", *options, *place, token="a-token-of-this-test-only-0123456789")
    assert started.returncode == 0, started.stderr
    yield f"{socket.gethostbyname(socket.gethostname())}:{port}"
    pids = [int(f.name) for f in Path("/proc").iterdir() if f.name.isdigit() and f"/tmp/r{port}" in command(f)]
    for pid in pids:
        os.kill(pid, 9)
    shutil.rmtree(f"/tmp/r{port}", ignore_errors=True)


def command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.slow
def test_a_search_from_a_wheel_brings_its_code_to_workers_and_needs_the_clusters_token(
    wheel: Path, cluster: str, run: Run, configure: Configure, tmp_path: Path
) -> None:
    python = environment(tmp_path / "installed", wheel)
    values = configure("search.trials=2", "fidelity.max_steps=4", "fidelity.rungs=[1.0]").resolved()
    file = tmp_path / "home" / "my.yaml"
    file.write_text(yaml.safe_dump(values))
    words = ["-m", "paredown", "search", file, "--address", cluster]
    refused = run(python, *words, token="another-token-of-this-test-0123456789")
    assert refused.returncode == 2
    assert f"--address: no Ray cluster answers at '{cluster}'" in " ".join(refused.stderr.split())
    assert "RAY_AUTH_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = run(python, *words, token="a-token-of-this-test-only-0123456789")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    folder = Path(values["run"]["dir"])
    assert json.loads((folder / "run.json").read_text())["counts"] == {"COMPLETE": 2, "STOPPED": 0, "FAIL": 0}
    status = run(python, "-m", "paredown", "status", folder, "--json")
    assert json.loads(status.stdout)["state"] == "FINISHED"
