"""The command line: every command is there, mistakes are one sentence and exit code 2, nothing heavy is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from search.cli import main
from search.config import load_config
from spaces.plan import Choice, Distillation, Plan, Student
from spaces.recipe import Recipe
from spaces.signature import Signature, make_signature
from spaces.tensors import TensorSpec

COMMANDS = [
    "init",
    "check",
    "search",
    "plan",
    "augment",
    "status",
    "show",
    "measure",
    "report",
    "pick",
    "export",
    "train",
    "diff",
    "evaluate",
    "convert",
    "schema",
    "doctor",
]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Cli:
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return int(left.value.code or 0), said.out, said.err

    return call


TASK = {"kind": "text-classification", "data": {"train": "/data/train.csv"}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rows = "".join(f"thing number {i},{'good' if i % 2 else 'bad'}\n" for i in range(40))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    (tmp_path / "dev.csv").write_text("text,label\nother thing,good\nmore,bad\n")
    file = tmp_path / "config.yaml"
    file.write_text(
        "teacher: {model: minilm, finetune: {}}\n"
        "task: {kind: text-classification, data: {train: train.csv, validation: dev.csv}}\n"
        "search: {trials: 3}\n"
    )
    return file


def signature() -> Signature:
    shapes = {"classifier.weight": (2, 16), "classifier.bias": (2,), "bert.embeddings.word_embeddings.weight": (50, 16)}
    for name in ("query", "key", "value"):
        shapes[f"bert.encoder.layer.0.attention.self.{name}.weight"] = (16, 16)
    settings = {"architectures": ["BertForSequenceClassification"], "hidden_size": 16, "num_attention_heads": 2}
    return make_signature(
        {**settings, "model_type": "bert", "vocab_size": 50}, [TensorSpec(n, "F32", s) for n, s in shapes.items()]
    )


def plan(rank: int = 4) -> Plan:
    made = signature()
    query = next(module.path for module in made.modules if module.path.endswith("query"))
    return Plan(Student.of(made.hash, {query: Choice.of("lowrank", rank=rank)}), Distillation())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "plans").mkdir(parents=True)
    info = {
        "format": 1,
        "state": "FINISHED",
        "metric": "accuracy",
        "objectives": ["accuracy", "size_mb"],
        "teacher": {"path": "teacher", "hash": "t", "metrics": {"accuracy": 0.92}, "size_mb": 90.0},
    }
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"task": TASK, "search": {"trials": 3}, "final": {"num_train_epochs": 1}})
    )
    (folder / "signature.json").write_text(signature().to_json())
    with (folder / "trials.jsonl").open("w") as stream:
        for number, (accuracy, size) in enumerate([(0.9, 40.0), (0.85, 20.0), (0.7, 10.0)]):
            made = plan(rank=2 + number)
            (folder / "plans" / f"{made.hash}.json").write_text(made.to_json())
            row = {"trial": f"t{number:05}", "number": number, "state": "COMPLETE", "plan": made.hash, "seed": 0}
            stream.write(json.dumps({**row, "accuracy": accuracy, "accuracy_se": 0.01, "size_mb": size}) + "\n")
    return folder


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_contract_has_help_that_fits_80_columns(cli: Cli, command: str) -> None:
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert "Usage: paredown" in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_lists_every_command_with_a_whole_sentence(cli: Cli) -> None:
    code, out, _ = cli("--help")
    listed = out[out.index("Commands:") :].splitlines()[1:]
    assert code == 0
    assert [line.split()[0] for line in listed if line] == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in listed if line)


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = "{'torch', 'ray', 'optuna', 'transformers', 'pandas', 'numpy'}"
    code = (
        f"import sys\nfrom search.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n"
        f"    print('@', sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "@ []"


def test_reading_a_run_imports_no_torch_and_no_ray(run: Path) -> None:
    for words in (["status", run], ["pick", run, "--knee"], ["show", run, "--trial", "0"]):
        code = (
            f"import sys\nfrom search.cli import main\ntry:\n    main({[str(w) for w in words]!r})\n"
            "except SystemExit as left:\n"
            "    print('@', left.code, sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "@ 0 []"


def test_init_writes_a_config_that_loads_and_overwrites_nothing(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    assert cli("init", file)[0] == 0
    assert load_config(file).search.trials == 60
    assert f"paredown search {file}" in file.read_text()
    code, _, err = cli("init", file)
    assert code == 2
    assert "nothing is overwritten" in err


def test_init_looks_at_data_and_teacher_and_says_what_it_found(
    cli: Cli, backbone: Path, task_data: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "my.yaml"
    code, out, _ = cli("init", file, "--teacher", backbone, "--data", task_data["train"])
    assert code == 0
    assert "400 rows with the columns text, label; 3 labels" in out
    config = load_config(file)
    assert Path(str(config.task.data.test)).resolve() == Path(task_data["test"]).resolve()
    assert Path(config.teacher.model).resolve() == backbone.resolve()
    assert "# What was looked at:" in file.read_text()
    assert cli("init", tmp_path / "b.yaml", "--teacher", backbone)[0] == 2
    values = json.loads(cli("init", tmp_path / "c.yaml", "--data", task_data["train"], "--json")[1])
    assert values["values"]["task"]["columns"] == {"text": "text", "label": "label"}
    assert cli("init", tmp_path / "d.yaml", "--data", tmp_path / "none.csv")[0] == 2


def test_schema_is_json_and_can_be_written_for_an_editor(cli: Cli, tmp_path: Path) -> None:
    assert json.loads(cli("schema")[1])["title"] == "A paredown search"
    code, out, _ = cli("schema", "--out", tmp_path / "config.schema.json")
    assert code == 0
    assert "# yaml-language-server: $schema=" in out
    assert json.loads((tmp_path / "config.schema.json").read_text())["required"] == ["teacher", "task"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [("paredown st", "status"), ("paredown export --as ", "hf-script"), ("paredown train --as", "--as-trial")],
)
def test_the_shell_completes_commands_options_and_their_words(words: str, offered: str) -> None:
    number = len(words.split(" ")) - 1
    asked = {"_PAREDOWN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    done = subprocess.run(
        [sys.executable, "-m", "paredown"], capture_output=True, text=True, env={**os.environ, **asked}, check=True
    )
    assert offered in done.stdout.split()


def test_check_says_data_and_forecast(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forecast = SimpleNamespace(rows=lambda: [("smallest student", "1.2 MB")], as_dict=lambda: {"smallest_mb": 1.2})
    fake(monkeypatch, "search.forecast", forecast=lambda config: forecast)
    code, out, _ = cli("check", config)
    assert code == 0
    assert "40 train, 2 validation rows; 2 labels" in out
    assert "1.2 MB" in out
    assert json.loads(cli("check", config, "--json")[1])["forecast"] == {"smallest_mb": 1.2}


@pytest.mark.parametrize("command", ["check", "search"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("serach.trials=3", "did you mean 'search'?"),
        ("search.trials=-1", "search.trials: -1"),
        ("space.methods=[dense, lowrnak]", "did you mean 'lowrank'?"),
        ("task.data.train=tarin.csv", "no such file"),
        ("task.columns.label=lable", "no column 'lable'"),
        ("task.metric=acuracy", "did you mean 'accuracy'?"),
        ("task.kind=masked-ml", "task.kind"),
    ],
)
def test_mistakes_are_one_sentence_with_exit_code_2(
    cli: Cli, config: Path, command: str, override: str, words: str
) -> None:
    code, out, err = cli(command, config, override)
    assert code == 2
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
    assert out == ""


def test_search_prints_the_front_and_what_to_do_next(
    cli: Cli, config: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.run import Run

    seen = {}

    def run_search(config: Any, *, address: str | None = None) -> Run:
        seen.update(dir=config.run.dir, trials=config.search.trials, address=address)
        return Run(run)

    fake(
        monkeypatch,
        "search.forecast",
        forecast=lambda config: SimpleNamespace(rows=lambda: [("time", "1 h")], disk_mb=1),
    )
    fake(monkeypatch, "search.driver.launch", run_search=run_search)
    code, out, _ = cli("search", config, "search.trials=5", "--run", run, "--address", "auto")
    assert code == 0
    assert seen == {"dir": str(run), "trials": 5, "address": "auto"}
    assert "t00002" in out
    assert f"paredown report {run}" in out
    assert "1 h" not in out  # a run that exists goes on: its forecast was said before
    code, out, _ = cli("search", config, "--run", run, "--json")
    assert json.loads(out)["counts"]["COMPLETE"] == 3
    code, out, err = cli("search", config, "--run", run / "new", "--json")
    assert "1 h" in err
    assert json.loads(out)["front"][0]["trial"] == "t00002"


def test_plan_takes_one_budget_and_known_words(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def make_plan(config: Any, **options: Any) -> Any:
        seen.update(options)
        return SimpleNamespace(save=lambda out: out.write_text("x"), plan=plan(), expected={"size_mb": 3.0})

    fake(monkeypatch, "search.students.oneshot", make_plan=make_plan)
    out = config.parent / "recipe.yaml"
    assert cli("plan", config, "--keep", "0.2", "--allocator", "uniform", "--init", "svd", "--out", out)[0] == 0
    assert seen == {"keep": 0.2, "size_mb": None, "method": "lowrank", "allocator": "uniform", "init": "svd"}
    assert out.exists()
    said = json.loads(cli("plan", config, "--keep", "0.2", "--out", out, "--json")[1])
    assert said == {"file": str(out), "plan": plan().hash, "expected": {"size_mb": 3.0}}
    for wrong in (["--keep", "0"], ["--keep", "1", "--size-mb", "3"], [], ["--keep", "1", "--method", "lowrnak"]):
        assert cli("plan", config, *wrong, "--out", out)[0] == 2
    assert cli("plan", config, "--keep", "1", "--init", "random", "--out", out)[0] == 2


def test_status_shows_the_front_and_json(cli: Cli, run: Path) -> None:
    code, out, _ = cli("status", run)
    assert code == 0
    assert "finished: trials of 3: 3 complete" in out
    assert max(map(len, out.splitlines())) <= 80
    values = json.loads(cli("status", run, "--json")[1])
    assert [row["trial"] for row in values["front"]] == ["t00002", "t00001", "t00000"]
    assert values["hypervolume"] is None


def test_watching_in_json_gives_a_line_for_every_change(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "state": "RUNNING"}))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:  # the first time nothing has changed
            (run / "run.json").write_text(json.dumps(info))

    monkeypatch.setattr("search.cli.run_commands.time.sleep", sleep)
    code, out, _ = cli("status", run, "--watch", "--json")
    assert code == 0
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["RUNNING", "FINISHED"]
    (run / "run.json").write_text(json.dumps({**info, "state": "RUNNING"}))
    slept.clear()
    assert "finished: trials of 3: 3 complete" in cli("status", run, "--watch")[1]


def test_show_prints_a_trials_plan_or_a_plan_file(cli: Cli, run: Path, tmp_path: Path) -> None:
    file = next((run / "plans").iterdir())
    for arguments in ([run, "--trial", "t00000"], [run, "--trial", "0"], [file]):
        code, out, _ = cli("show", *arguments)
        assert code == 0
        assert "lowrank" in out
        assert "bytes" in out
    (tmp_path / "alone.json").write_text(file.read_text())
    assert "signature.json" in cli("show", tmp_path / "alone.json")[1]
    assert cli("show", run)[0] == 2
    assert "t00009" in cli("show", run, "--trial", "t00009")[2]


def test_pick_says_why_and_fails_with_the_nearest(cli: Cli, run: Path) -> None:
    assert cli("pick", run, "--max-drop", "8")[1].startswith("t00001: ")
    assert cli("pick", run, "--max-size-mb", "25")[1].startswith("t00001: ")
    assert cli("pick", run, "--min", "accuracy=0.89")[1].startswith("t00000: ")
    assert json.loads(cli("pick", run, "--trial", "2", "--json")[1])["trial"] == "t00002"
    code, out, err = cli("pick", run, "--max-size-mb", "1")
    assert code == 1
    assert "nearest" in err
    assert out == ""
    assert cli("pick", run, "--max", "size_mb")[0] == 2
    assert cli("pick", run, "--max", "sise_mb=3")[0] == 2


def test_export_writes_a_recipe_that_diff_reads(cli: Cli, run: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert cli("export", run, "--trial", "0", "--out", a)[0] == 0
    assert cli("export", run, "--trial", "1", "--out", b)[0] == 0
    assert Recipe.read(a).plan.hash == plan(rank=2).hash
    assert "no difference" in cli("diff", a, a)[1]
    code, out, _ = cli("diff", a, b)
    assert code == 0
    assert "rank=3" in out
    assert max(map(len, out.splitlines())) <= 80
    assert next(line for line in out.splitlines() if "rank=3" in line).split()[0].endswith("query")
    assert json.loads(cli("diff", a, b, "--json")[1])


def test_export_also_writes_a_script_and_says_what_it_leaves_out(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = SimpleNamespace(text="print()\n", left_out=("penalty 0.1",))
    fake(monkeypatch, "search.hf_script", script_of=lambda recipe, name: script)
    out = tmp_path / "train_student.py"
    code, said, _ = cli("export", run, "--trial", "0", "--as", "hf-script", "--out", out)
    assert code == 0
    assert out.read_text() == "print()\n"
    assert "left out of the script: penalty 0.1" in said
    assert f"python {out} --out model/" in said
    values = json.loads(cli("export", run, "--trial", "0", "--out", tmp_path / "r.yaml", "--json")[1])
    assert values["trial"] == "t00000"
    assert values["left_out"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["pick", "no-run", "--knee"],
        ["report", "no-run"],
        ["status", "no-run"],
        ["measure", "no-run"],
        ["train", "no.yaml", "--out", "x"],
        ["evaluate", "no-model"],
        ["convert", "no-model"],
        ["diff", "no.yaml", "no.json"],
        ["search"],
        ["no-such-command"],
    ],
)
def test_input_that_is_not_there_has_exit_code_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments)[0] == 2


def test_train_and_evaluate_pass_on_what_was_asked(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, seen = tmp_path / "a.yaml", []
    cli("export", run, "--trial", "0", "--out", recipe)

    def train_recipe(recipe: Path, out: Path, *, as_trial: bool, overrides: list[str]) -> Any:
        seen.append((recipe.name, as_trial, overrides))
        return SimpleNamespace(rows=lambda: [("accuracy", "0.90", "0.91")], sentence=str, as_dict=dict)

    fake(monkeypatch, "search.students.train", train_recipe=train_recipe)
    scores = {"accuracy": 0.9, "n": float("nan")}
    fake(monkeypatch, "search.students.evaluate", evaluate_folder=lambda folder, data=None: dict(scores))
    assert "0.91" in cli("train", recipe, "final.num_train_epochs=1", "--as-trial", "--out", tmp_path / "m")[1]
    assert seen == [("a.yaml", True, ["final.num_train_epochs=1"])]
    (tmp_path / "config.json").write_text("{}")
    assert json.loads(cli("evaluate", tmp_path, "--json")[1]) == {"accuracy": 0.9, "n": None}


def test_what_was_measured_of_a_model_stands_beside_its_teacher(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    latency = {"latency_ms": 5.0, "latency_ms_p10": 4.5, "latency_ms_p90": 6.0}
    teacher = {"accuracy": 0.95, "accuracy_se": 0.01, "accuracy_low": 0.93, "accuracy_high": 0.97, "size_mb": 90.9}
    score = {"accuracy": 0.9, "accuracy_se": 0.012, "accuracy_low": 0.88, "accuracy_high": 0.92}
    values = {**score, "split": "test", "rows": 1500, "params": 1234567, **latency}
    found = {**values, "latency_ratio": 0.4, "teacher": teacher, "note": "the test data changed"}
    fake(monkeypatch, "search.students.evaluate", evaluate_folder=lambda folder, data=None: dict(found))
    lines = cli("evaluate", tmp_path)[1].splitlines()
    assert lines[0].startswith("test: 1,500 rows")
    assert lines[1].split() == ["student", "teacher"]
    assert lines[2].split() == ["accuracy", "0.900", "(0.880", "to", "0.920)", "0.950", "(0.930", "to", "0.970)"]
    assert any(line.split() == ["latency", "(ms)", "5.00", "(4.50", "to", "6.00)"] for line in lines)
    assert lines[-1] == "note: the test data changed"
    converted = {"file": "m.onnx", "size_mb": 3.0, "max_difference": 1e-7, "latency_ratio": 0.5}
    fake(monkeypatch, "search.students.convert", convert=lambda folder, to, int8: dict(converted))
    _, out, _ = cli("convert", tmp_path)
    assert out.splitlines()[2].split() == ["latency", "/", "torch's", "0.5"]
    assert "wrote m.onnx" in out
    assert json.loads(cli("convert", tmp_path, "--json")[1]) == converted


def test_a_failure_is_one_sentence_and_its_traceback_is_in_a_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk\nis full")

    (tmp_path / "config.json").write_text("{}")
    fake(monkeypatch, "search.students.evaluate", evaluate_folder=fail)
    code, _, err = cli("evaluate", tmp_path)
    assert code == 1
    assert err.startswith("error: RuntimeError: the disk is full (the traceback is in ")
    log = Path(err.split("the traceback is in ")[1].split(";")[0])
    assert "in fail" in log.read_text()


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["report", str(tmp_path / "none"), "--debug"])
    assert left.value.code == 2
    assert "Traceback" in capsys.readouterr().err


def test_doctor_says_what_is_there(cli: Cli) -> None:
    code, out, _ = cli("doctor")
    assert code == 0
    assert "torch" in out
    levels = {row["level"] for row in json.loads(cli("doctor", "--json")[1])}
    assert levels <= {"good", "optional"}


def test_the_facade_has_the_public_names_and_imports_them_late() -> None:
    code = "import paredown, sys; print(sorted({'torch', 'ray', 'pandas', 'search'} & set(sys.modules)), paredown.Run)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] <class 'analysis.run.Run'>")
    assert done.stderr == ""


def test_the_facade_says_when_another_package_hides_ours(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", "import paredown\nparedown.Run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert f"paredown's package 'analysis' is hidden by {tmp_path / 'analysis'}" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ImportError: paredown's package")


def test_the_command_refuses_to_run_on_a_hidden_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import paredown

    monkeypatch.setattr(paredown, "_refusal", "hidden")
    with pytest.raises(SystemExit) as left:
        paredown.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: hidden\n"


def test_the_module_runs_as_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paredown", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip().count(".") == 2
