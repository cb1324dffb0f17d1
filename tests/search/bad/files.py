"""Teachers, recipes, plans, runs and model folders that are wrong, and machines that lack something."""

from __future__ import annotations

import shutil

import yaml

from tests.search.bad.project import CHECK, TRAIN, Case, Change, Project, drops, sets, text


def _cut(name: str, size: int) -> Change:
    def change(project: Project) -> None:
        file = project.folder / name
        file.write_bytes(file.read_bytes()[:size])

    return change


def _gone(name: str) -> Change:
    def change(project: Project) -> None:
        place = project.folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return change


def _pickled(project: Project) -> None:
    (project.folder / "teacher" / "model.safetensors").rename(project.folder / "teacher" / "pytorch_model.bin")


def _line(name: str, content: str) -> Change:
    def change(project: Project) -> None:
        file = project.folder / name
        file.write_text(file.read_text() + content)

    return change


def _nothing(project: Project) -> None:
    """Leave the project as it is."""


def _other_config(project: Project) -> None:
    values = yaml.safe_load((project.folder / "run" / "config.yaml").read_text())
    values["space"]["methods"] = ["dense"]
    values["run"]["dir"] = "run"
    values["task"]["data"] = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    values["teacher"] = {"model": "./teacher"}
    project.write_yaml("config.yaml", values)


def _occupied(project: Project) -> None:
    (project.folder / "trained").mkdir()
    (project.folder / "trained" / "notes.txt").write_text("mine")


def _stranger(project: Project) -> None:
    def change(values: dict[str, object]) -> None:
        task = values["task"]
        assert isinstance(task, dict)
        task["data"] = {"train": "/etc/passwd"}
        task.pop("hashes")

    project.change("recipe.yaml", change)


TEACHERS = (
    Case(
        "a teacher that is not there", sets("config.yaml", "teacher.model", "./nobody"), CHECK, ("there is no folder",)
    ),
    Case("a teacher without config.json", _gone("teacher/config.json"), CHECK, ("has no config.json",)),
    Case(
        "a teacher whose config.json is no JSON", text("teacher/config.json", "{"), CHECK, ("config.json", "not JSON")
    ),
    Case("a teacher without weights", _gone("teacher/model.safetensors"), CHECK, ("teacher", "model.safetensors")),
    Case("a teacher whose weights are cut off", _cut("teacher/model.safetensors", 5000), CHECK, ("tensors have",)),
    Case("a teacher with pickled weights", _pickled, CHECK, ("pytorch_model.bin", "safetensors")),
    Case("a teacher without a tokenizer", _gone("teacher/tokenizer.json"), CHECK, ("teacher", "tokenizer")),
    Case(
        "a tokenizer that knows more words than the teacher",
        lambda p: p.change(
            "teacher/tokenizer.json", lambda v: v["model"]["vocab"].update({f"new{i}": 45 + i for i in range(9)})
        ),
        CHECK,
        ("tokenizer", "54", "45"),
    ),
    Case(
        "a device that is not there",
        _nothing,
        ("measure", "model", "--device", "cuda:99"),
        ("'cuda:99' is not seen here", "allowed: auto, cpu"),
    ),
)

RECIPES = (
    Case("a recipe that is not there", _nothing, ("train", "recpe.yaml", "--out", "m"), ("no such file",)),
    Case("a config in place of a recipe", _nothing, ("train", "config.yaml", "--out", "m"), ("no recipe",)),
    Case("a recipe of a newer format", sets("recipe.yaml", "format", 99), TRAIN, ("format is 99", "reads format 1")),
    Case("a recipe without a format", drops("recipe.yaml", "format"), TRAIN, ("format is None",)),
    Case("a recipe with a misspelt key", sets("recipe.yaml", "teachr", {}), TRAIN, ("did you mean 'teacher'?",)),
    Case("a recipe without a plan", drops("recipe.yaml", "plan"), TRAIN, ("with the key plan",)),
    Case(
        "a recipe with text for a number",
        sets("recipe.yaml", "final.num_train_epochs", "two"),
        TRAIN,
        ("final.num_train_epochs: 'two'",),
    ),
    Case(
        "a plan with an unknown method",
        sets("recipe.yaml", "plan.student.choices", {"classifier": {"method": "magic"}}),
        TRAIN,
        ("method 'magic' has no layers; allowed: dense",),
    ),
    Case(
        "a plan for a matrix that is not there",
        sets("recipe.yaml", "plan.student.choices", {"bert.none": {"method": "lowrank", "rank": 8}}),
        TRAIN,
        ("'bert.none' is no weight matrix",),
    ),
    Case(
        "a plan with a rank above the matrix",
        sets("recipe.yaml", "plan.student.choices", {"classifier": {"method": "lowrank", "rank": 999}}),
        TRAIN,
        ("999",),
    ),
    Case(
        "a plan for another teacher", sets("recipe.yaml", "plan.student.signature", "0" * 16), TRAIN, ("another shape",)
    ),
    Case(
        "a recipe whose teacher is gone",
        sets("recipe.yaml", "teacher.path", "nowhere"),
        TRAIN,
        ("there is no model in", "teacher.path=FOLDER"),
    ),
    Case(
        "a recipe whose teacher was changed",
        sets("recipe.yaml", "teacher.hash", "0" * 16),
        TRAIN,
        ("not the recipe's teacher",),
    ),
    Case(
        "a recipe whose data were changed",
        sets("recipe.yaml", "task.hashes.train", "0" * 64),
        TRAIN,
        ("train changed", "task.hashes={}"),
    ),
    Case(
        "a recipe that wants to run the teacher's code",
        sets("recipe.yaml", "teacher.trust_remote_code", True),
        TRAIN,
        ("needs code of its own",),
    ),
    Case("a stranger's recipe that names a file of yours as data", _stranger, TRAIN, ("task.hashes",)),
    Case("a recipe without the teacher's hash", drops("recipe.yaml", "teacher.hash"), TRAIN, ("teacher.hash",)),
    Case("an override of no section", _nothing, (*TRAIN, "finl.num_train_epochs=1"), ("did you mean 'final'?",)),
    Case("a target that holds other files", _occupied, TRAIN, ("the folder is not empty",)),
    Case("a target that is a file", _nothing, ("train", "recipe.yaml", "--out", "train.csv"), ("this is a file",)),
    Case("a plan that is no JSON", text("plan.json", "{"), ("show", "plan.json"), ("plan.json: not JSON",)),
    Case("a plan of 100,000 brackets", text("plan.json", "[" * 100_000), ("show", "plan.json"), ("nested too deeply",)),
    Case(
        "a plan without a student",
        text("plan.json", "{}"),
        ("show", "plan.json"),
        ("with the keys student and distillation",),
    ),
    Case(
        "a plan with a learning rate of 0",
        sets("plan.json", "distillation.learning_rate", 0),
        ("show", "plan.json"),
        ("learning_rate is 0.0; allowed: above 0",),
    ),
    Case(
        "a plan with half a rank",
        sets("plan.json", "student.choices", {"a": {"method": "lowrank", "rank": 1.5}}),
        ("show", "plan.json"),
        ("rank is 1.5",),
    ),
    Case(
        "two budgets for one plan",
        _nothing,
        ("plan", "config.yaml", "--keep", "0.5", "--size-mb", "1", "--out", "r.yaml"),
        ("either --keep or --size-mb",),
    ),
    Case(
        "more than everything kept",
        _nothing,
        ("plan", "config.yaml", "--keep", "1.5", "--out", "r.yaml"),
        ("--keep 1.5", "at most 1"),
    ),
)

RUNS = (
    Case("a run that is not there", _nothing, ("status", "runn"), ("no such run folder",)),
    Case("a folder that is no run", _nothing, ("status", "model"), ("it has no run.json",)),
    Case("a run.json that is no JSON", text("run/run.json", "{"), ("status", "run"), ("run.json: not JSON",)),
    Case(
        "a run of a newer format", sets("run/run.json", "format", 2), ("status", "run"), ("format 2 is newer than 1",)
    ),
    Case(
        "a run of an older format", sets("run/run.json", "format", 0), ("status", "run"), ("format 0 is older than 1",)
    ),
    Case(
        "a run with an unknown objective",
        sets("run/run.json", "objectives", ["sise_mb"]),
        ("status", "run"),
        ("did you mean 'size_mb'?",),
    ),
    Case(
        "a run whose teacher is a word",
        sets("run/run.json", "teacher", "bert"),
        ("status", "run"),
        ("key 'teacher' is 'bert'",),
    ),
    Case(
        "a trial that leads out of the run",
        _line("run/trials.jsonl", '{"trial":"../../x","number":9,"state":"COMPLETE"}\n'),
        ("status", "run"),
        ("'../../x'",),
    ),
    Case(
        "a plan that leads out of the run",
        _line("run/trials.jsonl", '{"trial":"t00009","number":9,"state":"COMPLETE","plan":"../../x"}\n'),
        ("status", "run"),
        ("'../../x'",),
    ),
    Case("a table that is no parquet file", text("run/front.parquet", "PAR1"), ("status", "run"), ("front.parquet",)),
    Case("a config of the run that is no YAML", text("run/config.yaml", "a: ["), ("status", "run"), ("config.yaml:",)),
    Case(
        "a signature that is none",
        text("run/signature.json", "{}"),
        ("show", "run", "--trial", "0"),
        ("signature.json",),
    ),
    Case(
        "a plan file that is gone",
        _gone("run/plans"),
        ("export", "run", "--knee", "--out", "r.yaml"),
        ("plans", "no such file"),
    ),
    Case("a trial that the run does not have", _nothing, ("show", "run", "--trial", "t99999"), ("no trial 't99999'",)),
    Case("show without saying which trial", _nothing, ("show", "run"), ("which trial?",)),
    Case("a bound on an unknown column", _nothing, ("pick", "run", "--max", "sise_mb=3"), ("did you mean 'size_mb'?",)),
    Case(
        "a bound that is no number", _nothing, ("pick", "run", "--max", "size_mb=small"), ("write it as NAME=NUMBER",)
    ),
    Case("a bound that no trial meets", _nothing, ("pick", "run", "--max-size-mb", "0.0001"), ("nearest",), code=1),
    Case(
        "a report that cannot be written",
        _nothing,
        ("report", "run", "--out", "train.csv/r.html"),
        ("cannot be written",),
    ),
    Case(
        "a run folder of another config",
        _other_config,
        ("search", "config.yaml"),
        ("holds a run of another config", "was", "now"),
    ),
    Case(
        "a run folder that cannot be written",
        sets("config.yaml", "run.dir", "train.csv/run"),
        ("search", "config.yaml"),
        ("run.dir", "cannot be written"),
    ),
)

MODELS = (
    Case("a model that is not there", _nothing, ("evaluate", "modl"), ("there is no such folder",)),
    Case("a folder that is no model", _nothing, ("evaluate", "run"), ("it has no config.json",)),
    Case("a model that paredown did not write", _nothing, ("evaluate", "teacher"), ("paredown.json",)),
    Case(
        "a model without its facts", _gone("model/paredown.json"), ("evaluate", "model"), ("there is no paredown.json",)
    ),
    Case(
        "a model of a newer format", sets("model/paredown.json", "format", 7), ("evaluate", "model"), ("format is 7",)
    ),
    Case(
        "a model whose weights are cut off",
        _cut("model/model.safetensors", 9000),
        ("evaluate", "model"),
        ("model.safetensors",),
    ),
    Case(
        "a model whose weights are another model's",
        lambda p: shutil.copy(p.folder / "teacher/model.safetensors", p.folder / "model"),
        ("evaluate", "model"),
        ("does not hold what config.json describes",),
    ),
    Case(
        "a model with a billion units",
        sets("model/config.json", "base.hidden_size", 10**9),
        ("evaluate", "model"),
        ("do not make a model",),
    ),
    Case(
        "a model without a tokenizer",
        _gone("model/tokenizer.json"),
        ("evaluate", "model", "--data", "test.csv"),
        ("tokenizer",),
    ),
    Case("a runtime that is not known", _nothing, ("measure", "model", "--runtime", "tensorrt"), ("tensorrt",)),
    Case("a format that is not known", _nothing, ("convert", "model", "--to", "tflite"), ("tflite",)),
    Case(
        "data for evaluation that are not there", _nothing, ("evaluate", "model", "--data", "none.csv"), ("none.csv",)
    ),
)
