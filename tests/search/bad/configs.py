"""Configs that are wrong, as a file and key by key."""

from __future__ import annotations

from tests.search.bad.project import CHECK, Case, Project, drops, key, sets, text

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 8)
)


def _twice(project: Project) -> None:
    file = project.folder / "config.yaml"
    file.write_text(file.read_text() + "search: {trials: 9}\n")


FILES = (
    Case("a config that is not there", lambda p: (p.folder / "config.yaml").unlink(), CHECK, ("no such file",)),
    Case("a folder in place of the config", lambda p: None, ("check", "run"), ("run: this is no file",)),
    Case("a config in Latin-1", text("config.yaml", "teacher: {model: caf\xe9}".encode("latin-1")), CHECK, ("UTF-8",)),
    Case("an empty config", text("config.yaml", ""), CHECK, ("a mapping of keys to values is expected",)),
    Case("a list in place of the config", text("config.yaml", "- a\n- b\n"), CHECK, ("a mapping of keys",)),
    Case("YAML that does not parse", text("config.yaml", "teacher: [\n"), CHECK, ("config.yaml:2", "not valid YAML")),
    Case(
        "a tag that would make a Python object",
        text("config.yaml", "teacher: !!python/object/apply:os.system ['true']\n"),
        CHECK,
        ("config.yaml:1", "the tag", "plain values only"),
    ),
    Case("aliases that stand for 100 million values", text("config.yaml", BOMB), CHECK, ("too many",)),
    Case("400,000 brackets", text("config.yaml", f"a: {'[' * 400_000}"), CHECK, ("too deeply nested",)),
    Case("a config of 2 MB", text("config.yaml", f"a: {'x' * 2_000_000}"), CHECK, ("at most 1,000,000 are read",)),
    Case("a key given twice", _twice, CHECK, ("'search' is given twice",)),
    Case("a key that is missing", drops("config.yaml", "task.kind"), CHECK, ("task.kind: this key is missing",)),
    Case("an override without a value", lambda p: None, (*CHECK, "search.trials"), ("write it as key=value",)),
    Case("an override of no key", lambda p: None, (*CHECK, "search.trails=3"), ("did you mean 'trials'?",)),
    Case("a command that is not there", lambda p: None, ("serach", "config.yaml"), ("No such command",)),
)

KEYS = (
    key("serach", {"trials": 3}, "serach: this key is not known (did you mean 'search'?)", "allowed: teacher"),
    key("search.sede", 0, "did you mean 'seed'?"),
    key("search.trials", 0, "search.trials: 0", "greater than or equal to 1"),
    key("search.trials", "many", "search.trials: 'many'", "integer"),
    key("search.trials", 2.5, "search.trials: 2.5"),
    key("search.trials", True, "search.trials: True"),
    key("search.seed", -1, "search.seed: -1", "greater than or equal to 0"),
    key("search.seed", 2**40, "less than"),
    key("search.sampler", "tp", "did you mean 'tpe'?", "allowed: auto"),
    key("search.max_concurrent", 0, "auto, or a whole number from 1"),
    key("search.time_limit_s", -5, "search.time_limit_s: -5", "greater than 0"),
    key("task.kind", "text-clasification", "did you mean 'text-classification'?"),
    key("task.metric", "acuracy", "did you mean 'accuracy'?"),
    key("task.metric", "pearson", "does not fit text-classification", "allowed: accuracy"),
    key("task.max_length", 2, "greater than or equal to 4"),
    key("task.max_length", 512, "task.max_length", "512", "24"),
    key("task.columns", {"tokens": "t"}, "task.columns.tokens", "has no such column"),
    key("task.columns", {"label": ["hot", "cold"]}, "task.columns.label: ['hot', 'cold']", "only multi-label-class"),
    key("task.columns", {"label": []}, "task.columns.label: [] is not allowed: a text, or a list of at least one"),
    key("task.data", {}, "train is missing"),
    key("task.data", {"train": "train.csv", "hub": "glue"}, "exclude each other"),
    key("task.data", {"train": "train.csv", "name": "sst2"}, "name goes with hub"),
    key("task.data.train", "a\0b.csv", "which is allowed nowhere"),
    key("task.data.train", "x" * 5000, "no such file"),
    key("task.data.train", "~nobody-of-that-name/x.csv", "no such file"),
    key("teacher.model", "minilm", "a backbone without a task head"),
    key("teacher.model", "", "teacher.model"),
    key("teacher.finetune", {"learning_rate": 0}, "teacher.finetune.learning_rate: 0", "greater than 0"),
    key("teacher.trust_remote_code", "yes please", "teacher.trust_remote_code"),
    key("space.preset", "ladybert", "did you mean 'ladabert'?"),
    key("space.preset", ["ladabert"], "space.preset"),
    key("space.granularity", "layers", "did you mean 'layer'?"),
    key("space.methods", ["lowrnk"], "did you mean 'lowrank'?"),
    key("space.methods", [], "space.methods"),
    key("space.methods", ["lowrank", "lowrank"], "given twice"),
    key("space.exclude", ["poolr"], "space.exclude: 'poolr' matches no group", "kinds:"),
    key("space.structure.layers", [0.5, 1.5], "space.structure.layers: 1.5", "0.01 to 1"),
    key("space.structure.vocabulary", "some", "allowed: keep, used"),
    key("space.student", "lstm", "same, or lstm:"),
    key("space.student", {"lstm": {"hidden": [10.5, 20]}}, "whole numbers"),
    key("space.distillation.learning_rate", {"low": 1e-3, "high": 1e-4}, "low must be below high"),
    key("space.distillation.learning_rate", {"low": 0, "high": 1e-4, "log": True}, "must start above 0"),
    key("space.distillation.temperature", [1, 2, 3], "is not a range of two numbers"),
    key("space.distillation.temperature", float("nan"), "is not a number"),
    key("space.distillation.objective", "logit", "did you mean 'logits'?"),
    key("space.distillation.objective", {"choices": []}, "choices is empty"),
    key("objectives", ["accuracy", "sise_mb"], "did you mean 'size_mb'?"),
    key("objectives", ["accuracy"], "at least one of size_mb"),
    key("objectives", ["accuracy", "size_mb", "size_mb"], "given twice"),
    key("objectives", ["f1", "size_mb"], "not this task's metric"),
    key("constraints", {"sise_mb": 3}, "did you mean 'size_mb'?"),
    key("constraints", {"size_mb": -3}, "an upper bound above 0"),
    key("constraints", {"accuracy": 90}, "90 % is 0.9"),
    key("constraints", {"size_mb": 0.001}, "constraints.size_mb", "0.001", "smallest"),
    key("constraints", {"params": 10}, "constraints.params: 10 cannot be met", "less than"),
    key("constraints", {"flops": 10}, "constraints.flops: 10 cannot be met", "less than"),
    key("fidelity.rungs", [0.5, 0.3], "rising fractions"),
    key("fidelity.max_steps", 0, "greater than or equal to 1"),
    key("early_stopping.grace", 0, "greater than or equal to 1"),
    key("final.num_train_epochs", 0, "greater than 0"),
    key("latency.device", "gpu", "latency.device: 'gpu'", "auto"),
    key("latency.sequence_length", 512, "latency.sequence_length", "512", "24"),
    key("latency.runtime", "tensorrt", "allowed: torch"),
    key("resources.cpu", 0, "greater than 0"),
    key("run.keep_checkpoints", "some", "allowed: front, all"),
    key("run.dir", "", "run.dir"),
    Case(
        "nothing to choose",
        sets(
            "config.yaml",
            "space",
            {
                "methods": ["dense"],
                "distillation": {"learning_rate": 1e-4, "temperature": 2, "objective": "logits"},
            },
        ),
        CHECK,
        ("space", "nothing to choose"),
    ),
)
