"""The forecast: what is there, what can be reached, how long it takes, and all without training."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.config import Config
from search.forecast import duration, forecast
from search.forecast.limits import least_cost
from search.workspace import make_space
from spaces.cost import cost
from spaces.curves import Curves
from spaces.errors import UserError
from spaces.signature import read_signature

Configure = Callable[..., Config]
LSTM = {"student": {"lstm": {"hidden": [8, 24], "embedding": [8, 16], "layers": 1}}}


def test_it_counts_groups_and_says_reachable_sizes(configure: Configure) -> None:
    found = forecast(configure("search.trials=7"))
    assert found.groups == {"qkv": 2, "attn_out": 2, "ffn_in": 2, "ffn_out": 2, "embedding": 1}
    assert found.excluded == {"pooler": 1}
    assert found.smallest_mb < found.largest_mb == pytest.approx(found.teacher_mb)
    assert found.measured
    assert found.trials == 7
    assert 0 < found.trial_s < 60
    said = dict(found.rows())
    assert said["smallest student"] == f"{found.smallest_mb:.2f} MB"
    assert said["largest student"].endswith(" MB")
    assert found.as_dict()["total_s"] == found.total_s


def test_lstm_students_have_sizes_in_place_of_groups(configure: Configure) -> None:
    config = configure(space=LSTM, constraints={"flops": 1e6})
    found = forecast(config)
    assert found.groups == found.excluded == {}
    assert dict(found.rows())["student"] == "bidirectional LSTM: hidden 8 to 24, embedding 8 to 16, layers 1"
    assert found.smallest_mb < found.largest_mb
    assert found.measured
    with pytest.raises(UserError, match=r"constraints.params: 10 cannot be met; no student of this space has less"):
        forecast(configure(space=LSTM, constraints={"params": 10}))
    with pytest.raises(UserError, match=r"constraints.size_mb: 0.001 MB cannot be met"):
        forecast(configure(space=LSTM, constraints={"size_mb": 0.001}))


def test_the_signature_on_paper_is_the_trained_teachers(configure: Configure, recipe_file: Path) -> None:
    from search.data import load_data
    from search.forecast.rehearse import expected_teacher
    from search.tasks import TaskSpec
    from spaces.recipe import Recipe

    config = configure()
    data = load_data(config.task)
    teacher = expected_teacher(config, TaskSpec.of(config.task, data.labels), data)
    folder = Path(Recipe.read(recipe_file).teacher["path"])
    assert teacher.signature.hash == read_signature(folder).hash
    assert not teacher.missing


def test_nothing_is_trained_or_written_for_a_missing_teacher(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "empty"))
    found = forecast(config)
    assert found.teacher_s > 0
    assert "for the teacher" in dict(found.rows())["time"]
    assert not list((tmp_path / "empty").iterdir())
    assert not Path(config.run.dir).exists()


def test_limits_that_can_be_met_bound_the_largest_student(configure: Configure) -> None:
    found = forecast(configure(constraints={"size_mb": 0.1, "latency_ms": 3.0, "flops": 1e6}))
    assert found.largest_mb <= 0.1
    assert found.constraints["size_mb"] == "0.1: can be met"
    assert found.constraints["latency_ms"] == "3: known only by measuring"


@pytest.mark.parametrize("name", ["size_mb", "params", "flops"])
def test_a_limit_that_no_student_meets_is_refused_with_the_nearest(configure: Configure, name: str) -> None:
    with pytest.raises(UserError, match=rf"constraints.{name}: 0.0001.* cannot be met; .*\d"):
        forecast(configure(constraints={name: 0.0001}))


def test_no_student_costs_less_than_the_least(configure: Configure, recipe_file: Path) -> None:
    from spaces.recipe import Recipe

    config = configure(space={"methods": ["dense", "lowrank", "kronecker", "sparse", "lowrank+sparse"]})
    signature = read_signature(Path(Recipe.read(recipe_file).teacher["path"]))
    space = make_space(config, signature, Curves.flat(signature))
    for budget in (0.02, 0.1, 0.3, 1.0):
        for method in config.space.methods:
            values: dict[str, Any] = {f"{unit}.method": method for unit in space.codec.method_units}
            price = cost(space.student({"budget": budget, **values}), signature, sequence_length=8)
            assert price.params >= least_cost(space, "params", 8)
            assert price.flops >= least_cost(space, "flops", 8)


def test_a_teacher_without_a_head_is_refused(configure: Configure, backbone: Path) -> None:
    with pytest.raises(UserError, match="has no trained head"):
        forecast(configure(teacher={"model": str(backbone)}))


def test_a_teacher_that_cannot_be_loaded_is_one_sentence(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(UserError, match=r"teacher.model: .*broken.* cannot be loaded") as error:
        forecast(configure(teacher={"model": str(tmp_path / "broken"), "finetune": {}}))
    assert "\n" not in str(error.value)


def test_mistakes_in_the_data_are_said_before_torch_is_imported(
    configure: Configure, task_data: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "w1 w2,hot\n" * 20)
    file = tmp_path / "config.yaml"
    file.write_text(
        configure(task={"kind": "text-classification", "data": {"train": str(tmp_path / "train.csv")}}).to_yaml()
    )
    code = (
        "import sys\nfrom search.config import load_config\nfrom search.forecast import forecast\n"
        f"try:\n    forecast(load_config({str(file)!r}))\nexcept Exception as error:\n"
        "    print('@', type(error).__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "@ UserError False"


def test_times_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (45.4, 600, 12_600)] == ["45 s", "10 min", "3.5 h"]
