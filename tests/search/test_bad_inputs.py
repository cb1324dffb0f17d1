"""Whatever is wrong with what a user gives is said in one sentence, with exit code 2 and nothing lost.

``docs/errors.md`` is made by these tests: ``pytest tests/search/test_bad_inputs.py --regenerate`` writes it anew.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.cli import main
from tests.search.bad.configs import FILES, KEYS
from tests.search.bad.data import DATA
from tests.search.bad.files import MODELS, RECIPES, RUNS, TEACHERS
from tests.search.bad.options import OPTIONS
from tests.search.bad.project import Case, Project

TABLES = {
    "Configs: the file": FILES,
    "Configs: the keys": KEYS,
    "Data": DATA,
    "Teachers and machines": TEACHERS,
    "Recipes and plans": RECIPES,
    "Runs": RUNS,
    "Model folders": MODELS,
    "Keys, options and places": OPTIONS,
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
    assert err.isprintable() or set(err) - set(filter(str.isprintable, err)) == {"\n"}
    assert content(project.folder).items() >= before.items(), "something was lost"


@pytest.mark.parametrize(("title", "case"), [CASES[0], CASES[17], CASES[-1]])
def test_debug_shows_the_traceback_and_the_same_sentence(
    title: str, case: Case, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    case.change(project)
    code, _, plain = run(case, capsys)
    shown, _, err = run(case, capsys, "--debug")
    assert (code, shown) == (2, 2)
    assert "Traceback (most recent call last)" in err
    assert err.endswith(plain)


def test_a_cache_that_cannot_be_written_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAREDOWN_CACHE", str(project.folder / "train.csv" / "cache"))
    code, _, err = run(Case("", lambda p: None, ("check", "config.yaml"), ()), capsys)
    assert code == 2
    assert "PAREDOWN_CACHE" in err
    assert "(Not a directory); name another" in err


def test_a_full_disk_is_a_sentence_and_nothing_is_written_over(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/report.html")

    before = content(project.folder)
    monkeypatch.setattr("analysis.report.render", full)
    monkeypatch.setattr("search.cli.run_commands.say", full)
    code, _, err = run(Case("", lambda p: None, ("report", "run"), ()), capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert "the disk is full (run/report.html); free some space and give the same command again" in err
    assert content(project.folder) == before


def test_the_page_of_errors_holds_what_was_said(regenerate: bool) -> None:
    if len(SAID) < len(CASES):
        pytest.skip("only some of the inputs were tried")
    page = "".join(_page())
    if regenerate:
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "run this file again with --regenerate"


def _page() -> Iterator[str]:
    """Yield the parts of ``docs/errors.md``."""
    yield "# What is said about bad input\n\n"
    yield (
        "Every mistake is refused before work starts: one sentence on standard error with the file, line or key, the\n"
        "value, and what is allowed; exit code 2, or 1 where the input is right and nothing fits it. `--debug` shows\n"
        f"the traceback. The tests try these {len(CASES)} inputs through the command line and write this page\n"
        "(`make errors`); sentences of more than 400 characters are shortened here.\n"
    )
    for title, cases in TABLES.items():
        yield f"\n## {title}\n\n| what is given | command | what it says |\n|---|---|---|\n"
        for case in cases:
            sentence = SAID[f"{title}/{case.what}"].removeprefix("error: ")
            shown = sentence if len(sentence) <= 400 else f"{sentence[:160]} ... {sentence[-120:]}"
            words = " ".join(word or "''" for word in case.command)
            cells = (case.what, f"`{words if len(words) <= 100 else f'{words[:80]} ...'}`", shown)
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |\n"
