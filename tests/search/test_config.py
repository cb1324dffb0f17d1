"""Configs: defaults, overrides, and one good sentence for each mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import config_from, load_config, same_run_or_difference
from spaces.domains import Choices, Fixed, Range, parse
from spaces.errors import UserError
from spaces.plain_yaml import parse_yaml

BASE = """\
teacher:
  model: minilm
  finetune: {num_train_epochs: 2, learning_rate: 1e-4}
task:
  kind: text-classification
  data: {train: train.csv, validation: dev.csv}
  columns: {text: text, text_pair: null, label: label}
  metric: accuracy
space:
  preset: default
search: {trials: 8, seed: 0}
run: {dir: runs/here}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(BASE)
    return path


def sentence(file: Path, text: str, *overrides: str) -> str:
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(file, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_the_contract(file: Path) -> None:
    config = load_config(file)
    assert config.space.granularity == "kind+layer"
    assert config.objectives == ("accuracy", "size_mb", "latency_ms")
    assert config.fidelity.rungs == (0.11, 0.33, 1.0)
    assert config.latency.sequence_length == 32
    assert config.space.distillation.temperature == Range(1, 8)
    assert config.space.structure.layers is None
    assert config.space.student is None


def test_exponents_without_a_dot_are_numbers(file: Path) -> None:
    finetune = load_config(file).teacher.finetune
    assert finetune is not None
    assert finetune.learning_rate == 1e-4


def test_relative_paths_are_relative_to_the_file(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(file)
    assert config.task.data.train == str(tmp_path / "train.csv")
    assert config.run.dir == str(tmp_path / "runs/here")
    assert load_config(file, ["run.dir=s3://bucket/run"]).run.dir == "s3://bucket/run"


def test_the_run_folder_is_named_after_the_file_when_it_is_not_given(file: Path) -> None:
    file.write_text(BASE.replace("run: {dir: runs/here}\n", ""))
    assert load_config(file).run.dir == str(file.parent / "runs/my")


def test_a_local_teacher_is_a_path_and_a_hub_id_is_not(file: Path, tmp_path: Path) -> None:
    (tmp_path / "my-teacher").mkdir()
    assert load_config(file, ["teacher.model=my-teacher"]).teacher.model == str(tmp_path / "my-teacher")
    assert load_config(file, ["teacher.model=bert-base-uncased"]).teacher.model == "bert-base-uncased"


def test_overrides_are_read_as_yaml(file: Path) -> None:
    config = load_config(file, ["search.trials=3", "space.methods=[dense, lowrank]", "search.time_limit_s=null"])
    assert config.search.trials == 3
    assert config.space.methods == ("dense", "lowrank")
    assert config.search.time_limit_s is None


def test_the_resolved_config_loads_to_an_equal_config(file: Path, tmp_path: Path) -> None:
    config = load_config(file, ["space.distillation.temperature=2", "constraints.size_mb=20"])
    written = tmp_path / "run" / "config.yaml"
    written.parent.mkdir()
    written.write_text(config.to_yaml())
    assert load_config(written) == config


def test_values_in_memory_make_the_same_config(file: Path) -> None:
    assert config_from(yaml.safe_load(BASE.replace("1e-4", "1.0e-4")), base=file.parent) == load_config(file)


def test_the_default_metric_columns_and_objectives_follow_the_kind(file: Path) -> None:
    file.write_text(
        "teacher: {model: minilm, finetune: {}}\ntask: {kind: token-classification, data: {train: t.jsonl}}\n"
    )
    config = load_config(file)
    assert config.task.metric == "seqeval_f1"
    assert config.task.columns.tokens == "tokens"
    assert config.objectives[0] == "seqeval_f1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE + "serach: {trials: 3}\n", ["my.yaml:13: serach:", "did you mean 'search'?", "allowed: teacher"]),
        (BASE.replace("trials: 8", "trials: -1"), ["my.yaml:11: search.trials: -1", "greater than or equal to 1"]),
        (BASE.replace("trials: 8", "trials: true"), ["search.trials: True", "integer"]),
        (BASE.replace("seed: 0", "sede: 0"), ["search.sede:", "did you mean 'seed'?"]),
        (BASE.replace("kind: text-c", "kind: txt-c"), ["my.yaml:5: task.kind:", "did you mean 'text-classification'?"]),
        (BASE.replace("metric: accuracy", "metric: acuracy"), ["my.yaml:8: task.metric:", "did you mean 'accuracy'?"]),
        (BASE.replace("metric: accuracy", "metric: pearson"), ["does not fit text-classification", "macro_f1"]),
        (BASE.replace("default", "defualt"), ["my.yaml:10: space.preset:", "did you mean 'default'?"]),
        (BASE.replace("default", "default\n  methods: [dense, lowrnak]"), ["space.methods.1:", "'lowrank'?"]),
        (BASE.replace("default", "default\n  methods: []"), ["space.methods:", "at least 1"]),
        (BASE.replace("default", "default\n  granularity: leyer"), ["did you mean 'layer'?"]),
        (BASE.replace("default", "default\n  distillation: {temperature: [8, 1]}"), ["low must be below high"]),
        (BASE.replace("default", "default\n  distillation: {objective: [a, b, c]}"), ["choices"]),
        (BASE.replace("default", "default\n  distillation: {objective: logitz}"), ["did you mean 'logits'?"]),
        (BASE.replace("default", "default\n  distillation: {learning_rate: {lo: 1, high: 2}}"), ["'lo'", "'low'?"]),
        (BASE + "objectives: [accuracy]\n", ["my.yaml:13: objectives:", "at least one of size_mb"]),
        (BASE + "objectives: [accuracy, size]\n", ["objectives.1: 'size'", "allowed:"]),
        (BASE + "objectives: [accuracy, macro_f1, size_mb]\n", ["'macro_f1' is not this task's metric"]),
        (BASE + "constraints: {size: 3}\n", ["constraints.size", "size_mb"]),
        (BASE + "constraints: {size_mb: -3}\n", ["constraints.size_mb", "above 0"]),
        (BASE + "constraints: {accuracy: 90}\n", ["constraints.accuracy", "0.9"]),
        (BASE + "constraints: {size_mb: .nan}\n", ["constraints.size_mb", "finite"]),
        (BASE + "fidelity: {rungs: [0.5, 0.3]}\n", ["fidelity.rungs", "rising"]),
        (BASE.replace("  finetune: {num_train_epochs: 2, learning_rate: 1e-4}\n", ""), ["teacher.model", "finetune"]),
        (BASE.replace("train: train.csv, ", ""), ["task.data", "train is missing"]),
        (BASE.replace("  kind: text-classification\n", ""), ["task.kind: this key is missing"]),
        (BASE.replace("text: text,", "tokens: t,"), ["task.columns.tokens: 't'", "allowed: text, label, text_pair"]),
        (BASE + "latency: 3\n", ["latency: 3", "batch_size"]),
        (BASE + "search: {trials: 9}\n", ["my.yaml:13: the key 'search' is given twice"]),
        (BASE + "\n  : [\n", ["my.yaml:", "not valid YAML"]),
        (BASE + "run2: !!python/object/apply:os.system ['true']\n", ["my.yaml:13:", "tag", "plain values only"]),
        ("", ["a mapping of keys to values is expected"]),
        ("- a\n- b\n", ["mapping"]),
    ],
)
def test_each_mistake_is_one_sentence_with_its_place(file: Path, text: str, words: list[str]) -> None:
    said = sentence(file, text)
    assert all(word in said for word in words), said


def test_further_problems_are_counted(file: Path) -> None:
    assert sentence(file, BASE.replace("trials: 8, seed: 0", "trials: -1, seed: -1")).endswith("(and 1 more)")


def test_a_mistake_in_an_override_names_the_override(file: Path) -> None:
    assert "override 'search.trials=0': search.trials: 0" in sentence(file, BASE, "search.trials=0")
    assert "write it as key=value" in sentence(file, BASE, "search.trials")


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.yaml: there is no such file"):
        load_config(tmp_path / "no.yaml")


def test_a_huge_file_is_refused(file: Path) -> None:
    assert "bytes" in sentence(file, BASE + "#" * 1_100_000)


def test_aliases_cannot_stand_for_millions_of_values(file: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 8)
    )
    assert "too many" in sentence(file, bomb)


def test_an_alias_to_itself_is_refused(file: Path) -> None:
    assert "my.yaml" in sentence(file, "a: &a [*a]\n")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (BASE + "latency: [{runtime: torch}]\n", "latency"),
    ],
)
def test_what_is_not_built_yet_is_refused(file: Path, text: str, key: str) -> None:
    said = sentence(file, text)
    assert f" {key}: " in said
    assert said.endswith("is not supported yet")


def test_an_lstm_student_brings_defaults_of_its_own(file: Path) -> None:
    config = load_config(file, ["space.student={lstm: {hidden: 64}}", "space.distillation.temperature=2"])
    assert config.space.student is not None
    assert config.space.student.hidden == Fixed(64)
    assert config.space.student.layers == Range(1, 2)
    assert config.space.distillation.objective == Choices(("logits", "logits+hidden"))
    assert config.space.distillation.learning_rate == Range(5e-4, 5e-3, log=True)
    assert config_from(config.resolved()) == config


def test_the_preset_of_lstm_students_can_be_overridden(file: Path) -> None:
    config = load_config(file, ["space.preset=xtremedistil", "space.distillation.learning_rate=0.002"])
    assert config.space.student is not None
    assert config.space.student.hidden == Range(100, 600)
    assert config.space.distillation.learning_rate == Fixed(0.002)
    assert config.space.distillation.label_weight == Fixed(0.0)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("space.distillation.objective=relations", "'relations' is not allowed: an LSTM student has no attention"),
        ("space.distillation.objective={choices: [logits, logits+hidden+attention]}", "allowed: labels, teacher"),
        ("space.student={lstm: {hidden: [10.5, 20]}}", "10.5 is not allowed: whole numbers"),
    ],
)
def test_what_an_lstm_cannot_be_or_learn_from_is_refused(file: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_config(file, ["space.student={lstm: {}}", override])


def test_a_resume_may_change_trials_but_not_the_space(file: Path) -> None:
    old = load_config(file).resolved()
    assert same_run_or_difference(old, load_config(file, ["search.trials=20", "resources.cpu=2"]).resolved()) == []
    changed = load_config(file, ["space.methods=[dense]", "search.seed=1"]).resolved()
    differences = same_run_or_difference(old, changed)
    assert [line.split(":")[0] for line in differences] == ["space.methods", "search.seed"]
    assert "now ['dense']" in differences[0]


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
@settings(deadline=None)
def test_two_numbers_are_a_range_that_is_log_when_it_is_wide(low: float, high: float) -> None:
    if low < high:
        assert parse([low, high]) == Range(low, high, log=high / low > 10)
    else:
        with pytest.raises(UserError):
            parse([low, high])


@given(
    st.one_of(st.integers(), st.text(), st.lists(st.integers(), min_size=1, unique=True).map(lambda v: {"choices": v}))
)
@settings(deadline=None)
def test_what_a_domain_writes_reads_back(value: object) -> None:
    given_ = parse(value, allowed=[value]) if isinstance(value, str) else parse(value)
    text = given_.to_value()
    assert (parse(text, allowed=[value]) if isinstance(value, str) else parse(text)) == given_
    assert isinstance(given_, Fixed | Choices)


KEYS = {
    "search.trials": st.integers(1, 10**6),
    "search.seed": st.integers(0, 2**32 - 1),
    "search.sampler": st.sampled_from(["auto", "guided", "tpe", "nsgaii", "gp", "random"]),
    "search.max_concurrent": st.just("auto") | st.integers(1, 64),
    "task.max_length": st.integers(4, 8192),
    "space.granularity": st.sampled_from(["none", "model", "kind", "layer", "kind+layer", "group", "matrix"]),
    "space.methods": st.permutations(["dense", "lowrank", "kronecker", "sparse"]),
    "space.distillation.temperature": st.floats(0.1, 100) | st.just([1, 8]) | st.just({"choices": [1, 2]}),
    "space.structure.layers": st.just("keep") | st.floats(0.01, 1.0),
    "constraints.size_mb": st.floats(1e-3, 1e6),
    "resources.stall_s": st.none() | st.floats(0.1, 1e6),
    "latency.sequence_length": st.integers(2, 8192),
    "run.dir": st.text("abc-_. é", min_size=1, max_size=20).map(lambda text: f"runs/x{text}"),
}
"""Keys of a config, and values that they may have."""
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3),
    max_leaves=6,
)


def with_keys(values: dict[str, object]) -> dict[str, Any]:
    """Return the base config with dotted keys set."""
    raw: dict[str, Any] = yaml.safe_load(BASE)
    raw["teacher"]["finetune"] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        section = raw
        for name in path:
            section = section.setdefault(name, {})
        section[last] = value
    return raw


@given(st.fixed_dictionaries({}, optional=KEYS))
@settings(deadline=None, max_examples=80)
def test_every_config_that_is_right_is_the_same_when_its_text_is_read_again(values: dict[str, object]) -> None:
    config = config_from(with_keys(values))
    again = config_from(parse_yaml(config.to_yaml(), "resolved")[0])
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert same_run_or_difference(config.resolved(), again.resolved()) == []


@given(st.sampled_from(sorted(KEYS)), ANYTHING)
@settings(deadline=None, max_examples=150)
def test_any_value_of_a_key_is_read_or_refused_in_one_sentence(key: str, value: object) -> None:
    try:
        config_from(with_keys({key: value}))
        said = "read"
    except UserError as error:
        said = str(error)
    assert said.isprintable()  # one line, that is


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text("ab c"),
        lambda c: st.lists(c) | st.dictionaries(st.text("abc", min_size=1), c),
    )
)
@settings(deadline=None)
def test_plain_yaml_reads_as_the_safe_loader_reads_it(value: object) -> None:
    text = yaml.safe_dump({"value": value}, allow_unicode=True)
    assert parse_yaml(text, "text")[0] == yaml.safe_load(text)


def test_a_column_for_each_label_is_written_and_compared_as_a_list(file: Path) -> None:
    several = BASE.replace("text-classification", "multi-label-classification").replace(": accuracy", ": macro_f1")
    file.write_text(several)
    config = load_config(file, ["task.columns.label=[a, b]"])
    assert config.task.columns.label == ("a", "b")
    assert config.resolved()["task"]["columns"]["label"] == ["a", "b"]
    again = file.with_name("again.yaml")
    again.write_text(config.to_yaml())
    assert load_config(again) == config
    assert same_run_or_difference(config.resolved(), load_config(again).model_dump()) == []
    other = load_config(again, ["task.columns.label=[a, c]"])
    difference = same_run_or_difference(config.resolved(), other.resolved())
    assert difference == ["task.columns.label: was ['a', 'b'], now ['a', 'c']"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.columns.label=[a, b]", "only multi-label-classification has a column for each label; name one column"),
        ("task.columns.label=[1, 0]", "a text, or a list of at least one"),
        ("task.columns.text=[a, b]", "should be a valid string"),
    ],
)
def test_a_list_of_columns_where_one_is_needed_is_one_sentence(file: Path, override: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(file, [override])
    assert said in str(caught.value)
    assert "more)" not in str(caught.value)
