"""Whatever is wrong with what a user gives is said in one sentence, with exit code 2 and nothing lost.

``docs/errors.md`` is made by these tests: ``pytest tests/search/test_bad_inputs.py --regenerate`` writes it anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from search.cli import main
from tests.search.bad.configs import FILES, KEYS
from tests.search.bad.data import DATA
from tests.search.bad.files import MODELS, RECIPES, RUNS, TEACHERS
from tests.search.bad.project import Case, Project

TABLES = {
    "Configs: the file": FILES,
    "Configs: the keys": KEYS,
    "Data": DATA,
    "Teachers and machines": TEACHERS,
    "Recipes and plans": RECIPES,
    "Runs": RUNS,
    "Model folders": MODELS,
}
CASES = [(title, case) for title, cases in TABLES.items() for case in cases]
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

SAID: dict[str, str] = {}
"""What each case printed, by its title and its words; the page is made of it."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path.parent / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = Project.make(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made


def run(case: Case, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([*case.command, *more])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@pytest.mark.parametrize(("title", "case"), CASES, ids=[f"{title}-{case.what}"[:80] for title, case in CASES])
def test_it_is_one_sentence_that_helps(
    title: str, case: Case, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    case.change(project)
    before = content(project.folder)
    code, _, err = run(case, capsys)
    lines = [line for line in err.splitlines() if line.strip()]
    sentence = lines[-1] if lines else ""
    SAID[f"{title}/{case.what}"] = sentence.replace(f"{project.folder}/", "").replace(str(project.folder), ".")
    assert "Traceback" not in err
    assert [part for part in case.says if part not in sentence] == [], sentence
    assert code == case.code, err
    assert len(sentence) < 1500
    assert content(project.folder).items() >= before.items(), "something was lost"
