"""What commands print where there is no terminal: plain lines, no control codes, nothing of the libraries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from search.cli import main
from search.config import Config
from tests.search.bad.project import Project

GOLDEN = Path(__file__).parents[1] / "golden"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
COMMANDS = (
    ("status", "run"),
    ("show", "run", "--trial", "0"),
    ("show", "plan.json"),
    ("pick", "run", "--knee"),
    ("export", "run", "--knee", "--out", "out.yaml"),
    ("diff", "recipe.yaml", "plan.json"),
    ("status", "run", "--watch"),
    ("report", "run"),
)


def paredown(folder: Path, *arguments: str) -> tuple[int, str, str]:
    variables = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "COLUMNS", "TERM")}
    variables |= {"PAREDOWN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    variables["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "paredown", *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_terminal_there_are_no_control_codes(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run", "plan.json", "recipe.yaml"):
        copy = shutil.copytree if (GOLDEN / name).is_dir() else shutil.copy
        copy(GOLDEN / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as left:
        main(command)
    said = capsys.readouterr()
    assert left.value.code in (0, None), said.err
    assert said.out.strip()
    assert said.err == ""
    assert CONTROL.findall(said.out) == []


def test_check_through_a_pipe_prints_its_forecast_and_nothing_of_the_libraries(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    code, out, err = paredown(project.folder, "check", "config.yaml")
    assert (code, err) == (0, "")
    assert CONTROL.findall(out) == []
    known = (
        "data:",
        "warning:",
        "teacher",
        "groups",
        "left dense",
        "smallest",
        "largest",
        "trials",
        "time",
        "disk",
        " ",
    )
    assert [line for line in out.splitlines() if line and not line.startswith(known)] == []


@pytest.mark.slow
def test_a_search_through_a_pipe_prints_few_plain_lines_and_keeps_a_log(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    config = configure("search.trials=2", "search.max_concurrent=1")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    code, out, err = paredown(tmp_path, "search", "config.yaml")
    assert code == 0, err
    assert CONTROL.findall(out + err) == []
    assert err == ""
    assert len(out.splitlines()) < 60
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert any(" launched: trial t00001" in line for line in log)
    assert any(" ended: trial t00001" in line for line in log)
