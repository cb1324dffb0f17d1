"""What is computed once per run, and that a resumed run still has the data that it began with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.config import Config
from search.tasks import TaskSpec
from search.workers.prepare import data_facts, facts_of, refuse_changed_data
from search.workers.worker import WorkSpec
from search.workspace import open_workspace
from spaces.errors import UserError

Configure = Callable[..., Config]


def test_data_that_changed_since_the_run_began_are_refused(
    configure: Configure, task_data: dict[str, str], tmp_path: Path
) -> None:
    files = {split: tmp_path / f"{split}.csv" for split in task_data}
    for split, file in files.items():
        file.write_text(Path(task_data[split]).read_text())
    config = configure(f"task.data.validation={files['validation']}", f"task.data.test={files['test']}")
    workspace = open_workspace(config)
    known, teacher = data_facts(workspace), workspace.teacher.folder
    refuse_changed_data(config, known, teacher)
    for split in ("validation", "test"):
        files[split].write_text(files[split].read_text() + "w1 w2,hot\n")
    with pytest.raises(UserError, match=r"task.data: validation and test changed since the run began"):
        refuse_changed_data(config, known, teacher)


def test_rows_that_are_cut_are_told_of(configure: Configure) -> None:
    assert open_workspace(configure()).rows.cut() == []
    rows = open_workspace(configure("task.max_length=8")).rows
    full = [sum(len(ids) == 8 for ids in split.input_ids) for split in (rows.train, rows.validation)]
    train, validation = rows.cut()
    assert train == f"{full[0]} of 400 train rows fill task.max_length, 8 tokens; what they have more is not read"
    assert validation.startswith(f"{full[1]} of 90 validation rows")


def test_a_teacher_no_better_than_chance_is_warned_of(
    configure: Configure, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = WorkSpec(configure().to_yaml(), str(cache))
    assert not [said for said in facts_of(work, 1, lambda *step: None)["warnings"] if "teacher" in said]
    monkeypatch.setattr(TaskSpec, "chance", lambda self, labels: 1.0)
    (said,) = [said for said in facts_of(work, 1, lambda *step: None)["warnings"] if "teacher" in said]
    assert "accuracy is" in said
    assert "no better than the 1.000 of answers that ignore the input" in said


def test_a_device_that_is_not_there_is_refused_before_a_teacher_is_made(configure: Configure, tmp_path: Path) -> None:
    work = WorkSpec(configure("latency.device=cuda:99").to_yaml(), str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"latency.device: 'cuda:99' is not seen here"):
        facts_of(work, 1, lambda *step: None)
    assert not (tmp_path / "cache").exists()
