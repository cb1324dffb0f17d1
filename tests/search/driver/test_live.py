"""What a search shows: lines where nobody watches, a table on a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from search.driver.live import Screen, Steps, front_table, line_of, number
from search.folder.store import RunStore
from spaces.objectives import objective

OBJECTIVES = [objective("accuracy"), objective("size_mb")]


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def said(at: Console) -> str:
    assert isinstance(at.file, io.StringIO)
    return at.file.getvalue()


@pytest.fixture
def conductor(tmp_path: Path) -> Any:
    store = RunStore(tmp_path / "run", OBJECTIVES)
    return SimpleNamespace(store=store, objectives=OBJECTIVES, trials=9, running={"t00009": None})


def end(conductor: Any, trial: int, accuracy: float | None, size: float = 3.0, state: str = "COMPLETE") -> None:
    name = f"t{trial:05d}"
    row = {"trial": name, "number": trial, "state": state, "reason": "because" if state != "COMPLETE" else ""}
    conductor.store.ended(row | ({} if accuracy is None else {"accuracy": accuracy, "size_mb": size}))


def test_steps_are_a_line_at_every_tenth_where_nobody_watches() -> None:
    out = console()
    with Steps(out) as steps:
        for done in range(101):
            steps("training", done, 100)
        steps("measuring", 0, 1)
        steps("measuring", 1, 1)
    lines = said(out).splitlines()
    assert lines[:3] == ["training: 0/100", "training: 10/100", "training: 20/100"]
    assert len(lines) == 12
    assert lines[-1] == "measuring"


def test_steps_on_a_terminal_are_a_bar() -> None:
    out = console(terminal=True)
    with Steps(out) as steps:
        steps("training", 1, 4)
        steps("training", 4, 4)
    assert "training" in said(out)


def test_every_trial_that_ends_is_one_line_once(conductor: Any) -> None:
    end(conductor, 0, 0.9)
    out = console()
    with Screen(conductor, out) as screen:
        end(conductor, 1, 0.81234567)
        end(conductor, 2, None, state="FAIL")
        screen()
        screen()
    assert said(out).splitlines() == ["t00001  COMPLETE  accuracy 0.8123  size_mb 3", "t00002  FAIL        (because)"]


def test_the_picture_counts_and_shows_the_front(conductor: Any) -> None:
    for trial in range(14):
        end(conductor, trial, 0.5 + trial / 100, 1.0 + trial)
    out = console()
    out.print(Screen(conductor, out).picture())
    text = said(out)
    assert "14/9 trials: 14 complete, 0 stopped, 0 failed, 1 running" in text
    assert "t00000" in text
    assert "and 2 more" in text


def test_a_terminal_is_drawn_at_most_once_a_second(conductor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr("search.driver.live.time", SimpleNamespace(monotonic=lambda: at[0]))
    drawn: list[float] = []

    def picture() -> str:
        drawn.append(at[0])
        return ""

    with Screen(conductor, console(terminal=True)) as screen:
        monkeypatch.setattr(screen, "picture", picture)
        for moment in (100.5, 101.1, 101.5, 102.2):
            at[0] = moment
            screen()
    assert drawn == [101.1, 102.2]


def test_an_empty_front_is_an_empty_table(conductor: Any) -> None:
    assert front_table(conductor).row_count == 0


@pytest.mark.parametrize(("value", "text"), [(0.93612, "0.9361"), (12.3456, "12.35"), (22713216, "22,713,216")])
def test_numbers_are_short_and_without_exponents(value: float, text: str) -> None:
    assert number(value) == text


def test_a_line_leaves_out_what_a_trial_does_not_have() -> None:
    assert line_of({"trial": "t00001", "state": "FAIL", "reason": "x"}, ["accuracy"]) == "t00001  FAIL        (x)"
