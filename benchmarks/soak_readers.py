"""What ``soak.py`` reads: each reader makes one broken input from its number and reads it as a command would."""

from __future__ import annotations

import json
import random
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from soak_mutate import ODD, broken_bytes, broken_value

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
CONFIGS = sorted(Path(__file__).parents[1].glob("examples/*/config.yaml"))


class Reader(ABC):
    """One kind of input; ``place`` is an empty folder for it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @abstractmethod
    def make(self, rng: random.Random) -> None:
        """Write a broken input into ``place``."""

    @abstractmethod
    def read(self, rng: random.Random) -> None:
        """Read it as our commands do."""


def _texts(rng: random.Random, value: Any, text: bytes, others: list[bytes], dump: Any) -> bytes:
    """Return a broken form of a file: half by its values, half by its bytes."""
    if rng.random() < 0.55:
        with_value = dump(broken_value(rng, value)).encode("utf-8", "surrogateescape")
        return with_value if rng.random() < 0.9 else broken_bytes(rng, with_value, others)
    return broken_bytes(rng, text, others)


def _yaml(value: Any) -> str:
    try:  # half of an input's time goes into writing it in Python
        return yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False)
    except UnicodeEncodeError:
        return yaml.safe_dump(value, allow_unicode=True, sort_keys=False)


class ConfigReader(Reader):
    """``load_config`` on the files of the examples and of a run, sometimes with overrides."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        files = [*CONFIGS, GOLDEN / "run" / "config.yaml"]
        self.texts = [file.read_bytes() for file in files]
        self.values = [yaml.safe_load(text) for text in self.texts]
        self.keys = [f"{a}.{b}" for a, section in self.values[-1].items() if isinstance(section, dict) for b in section]

    def make(self, rng: random.Random) -> None:
        which = rng.randrange(len(self.texts))
        data = _texts(rng, self.values[which], self.texts[which], self.texts, _yaml)
        (self.place / "config.yaml").write_bytes(data)

    def read(self, rng: random.Random) -> None:
        from search.config import config_from, load_config
        from spaces.plain_yaml import parse_yaml

        overrides = []
        if rng.random() < 0.2:
            value = rng.choice((str(rng.choice(ODD)), rng.choice(self.texts).decode()[: rng.randrange(40)]))
            overrides.append(f"{rng.choice(self.keys)}={value}"[: rng.choice((400, 400, 8))])
        config = load_config(self.place / "config.yaml", overrides)
        again = config_from(parse_yaml(config.to_yaml(), "again")[0])
        assert again == config, "a resolved config does not load to an equal config"


class RecipeReader(Reader):
    """``Recipe.read``, its config, its plan as a table and its exact size."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        from spaces.signature import Signature

        self.texts = [(GOLDEN / name).read_bytes() for name in ("recipe.yaml", "plan.json", "run/config.yaml")]
        self.value = yaml.safe_load(self.texts[0])
        self.signature = Signature.from_json((GOLDEN / "run" / "signature.json").read_text())

    def make(self, rng: random.Random) -> None:
        (self.place / "recipe.yaml").write_bytes(_texts(rng, self.value, self.texts[0], self.texts, _yaml))
        plan = self.value["plan"]
        (self.place / "plan.json").write_bytes(_texts(rng, plan, self.texts[1], self.texts, json.dumps))

    def read(self, rng: random.Random) -> None:
        from analysis.tables import plan_table
        from search.students.rebuild import config_of, read_recipe
        from spaces.cost import cost
        from spaces.plan import Plan
        from spaces.recipe import Recipe

        if rng.random() < 0.2:
            plan = Plan.read(self.place / "plan.json")
        else:
            recipe = read_recipe(self.place / "recipe.yaml")
            plan = recipe.plan
            again = Recipe.read(recipe.save(self.place / "again.yaml"))
            assert again.plan.hash == plan.hash, "a recipe is not read back as it was written"
            config_of(recipe, self.place / "recipe.yaml")
        cost(plan, self.signature, sequence_length=8)
        plan_table(plan, self.signature)


class DataReader(Reader):
    """``load_data`` on broken csv, tsv, jsonl, parquet and txt files of every kind of task."""

    KINDS = ("text-classification", "text-pair-classification", "multi-label-classification", "regression")

    def make(self, rng: random.Random) -> None:
        self.kind = rng.choice((*self.KINDS, "token-classification"))
        self.files = {split: self._file(rng, split) for split in ("train", "validation")}
        self.transfer = None
        if rng.random() < 0.2:
            self.transfer = self.place / "transfer.txt"
            self.transfer.write_bytes(broken_bytes(rng, b"some words\nmore words\n" * 5, [b"x"]))

    def _rows(self, rng: random.Random) -> list[dict[str, Any]]:
        count = rng.choice((0, 1, 2, 12, 12, 12, 40))
        rows = []
        for _ in range(count):
            words = [f"w{rng.randrange(9)}" for _ in range(rng.randrange(1, 6))]
            label: Any = rng.choice(("a", "b"))
            if self.kind == "regression":
                label = rng.random()
            elif self.kind.startswith("multi"):
                label = rng.choice(("a", "b", "a|b", ""))
            if self.kind == "token-classification":
                rows.append({"tokens": words, "tags": [rng.choice(("O", "B-x")) for _ in words]})
            else:
                rows.append({"text": " ".join(words), "text_pair": "other", "label": label})
        return rows

    def _file(self, rng: random.Random, split: str) -> Path:
        rows = self._rows(rng)
        suffix = rng.choice((".csv", ".tsv", ".jsonl", ".jsonl", ".parquet"))
        file = self.place / f"{split}{suffix}"
        if suffix != ".jsonl" and rng.random() < 0.7:
            rows = broken_value(rng, rows) if rng.random() < 0.3 else rows
        if suffix == ".jsonl":
            value = broken_value(rng, rows) if rng.random() < 0.5 and rows else rows
            lines = value if isinstance(value, list) else [value]
            file.write_bytes("".join(json.dumps(row) + "\n" for row in lines).encode())
        else:
            self._table(rows, file)
        if rng.random() < 0.5:
            file.write_bytes(broken_bytes(rng, file.read_bytes(), [b"text,label\na,b\n", b'{"text": "a"}\n']))
        return file

    @staticmethod
    def _table(rows: Any, file: Path) -> None:
        try:
            table = pd.DataFrame([row for row in rows if isinstance(row, dict)])
            if file.suffix == ".parquet":
                table.to_parquet(file)
            else:
                table.to_csv(file, index=False, sep="\t" if file.suffix == ".tsv" else ",")
        except (ValueError, TypeError, OverflowError, AttributeError, UnicodeError):
            file.write_bytes(b"text,label\n" + repr(rows).encode("utf-8", "surrogateescape"))
        except Exception as error:  # values that arrow has no type for
            file.write_bytes(repr(error).encode("utf-8", "surrogateescape"))

    def read(self, rng: random.Random) -> None:
        from search.config import Columns, Data, Task
        from search.data import load_data
        from search.kinds import KINDS

        names = KINDS[self.kind].required
        data = Data(**{name: str(file) for name, file in self.files.items()})
        columns = Columns(**{name: name for name in names})
        transfer = str(self.transfer) if self.transfer is not None else None
        order = rng.choice((None, None, None, ("a", "b"), ("O", "B-x"), ("LABEL_0", "LABEL_1")))
        load_data(Task(kind=self.kind, data=data, columns=columns, transfer=transfer), order)


TABLES = {"trials.jsonl", "trials.parquet"}
PARTS = {
    "config.yaml": "config",
    "signature.json": "signature",
    "rungs.jsonl": "rungs",
    "importance.json": "importance",
    "baselines.parquet": "baselines",
}
"""What of a run is read from a file alone."""


class RunReader(Reader):
    """A run folder with one or two broken files, as status, pick, export, show and now and then report read it."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.names = [
            "run.json",
            "run.json",
            "trials.jsonl",
            "trials.jsonl",
            "config.yaml",
            "signature.json",
            "rungs.jsonl",
            "trials.parquet",
            "front.parquet",
            "baselines.parquet",
            "importance.json",
            *(f"plans/{file.name}" for file in sorted((GOLDEN / "run" / "plans").iterdir())[:2]),
        ]
        self.texts = {name: (GOLDEN / "run" / name).read_bytes() for name in self.names}
        self.values = {name: yaml.safe_load(text) for name, text in self.texts.items() if name.endswith(".yaml")}
        self.values |= {name: json.loads(text) for name, text in self.texts.items() if name.endswith(".json")}

    def make(self, rng: random.Random) -> None:
        (self.place / "run" / "plans").mkdir(parents=True)
        chosen = self.chosen = rng.sample(self.names, rng.choice((1, 1, 2)))
        for name, text in self.texts.items():
            bare = name.endswith(".parquet") and rng.random() < 0.9  # tables are slow to read, and may be missing
            if name in chosen and rng.random() < 0.97:
                (self.place / "run" / name).write_bytes(self._broken(rng, name))
            elif name not in chosen and not bare:
                (self.place / "run" / name).write_bytes(text)

    def _broken(self, rng: random.Random, name: str) -> bytes:
        text, others = self.texts[name], list(self.texts.values())
        if name.endswith(".parquet") and rng.random() < 0.5:
            return self._table(rng, name)
        if name.endswith(".parquet"):
            return broken_bytes(rng, text, others)
        if name.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines()]
            return _texts(rng, rows, text, others, _lines)
        return _texts(rng, self.values[name], text, others, _yaml if name.endswith(".yaml") else json.dumps)

    def _table(self, rng: random.Random, name: str) -> bytes:
        table = pd.read_parquet(GOLDEN / "run" / name)
        column = rng.choice(list(table.columns))
        match rng.randrange(3):
            case 0:
                table = table.drop(columns=column)
            case 1:
                table = table.assign(**{column: rng.choice(("x", 1, None, True, -1.5))})
            case _:
                table = table.rename(columns={column: f"{column}x"}).head(rng.randrange(3))
        table.to_parquet(self.place / "table")
        return (self.place / "table").read_bytes()

    def read(self, rng: random.Random) -> None:
        from analysis.run import Run
        from analysis.tables import front_table, plan_table, status
        from spaces.plan import Plan

        run = Run(self.place / "run")
        for name, part in PARTS.items():
            if name in self.chosen or rng.random() < 0.1:
                getattr(run, part)
        if self.chosen[0].startswith("plans/"):
            plan_table(Plan.read(self.place / "run" / self.chosen[0]), run.signature)
        elif rng.random() < 0.05 or TABLES.intersection(self.chosen):  # they take most of the time
            plan_table(run.plan(rng.randrange(5)), run.signature)
        if rng.random() < 0.08:
            self._pick(rng, run)
        if rng.random() < 0.03:
            status(run)
            front_table(run)
        if rng.random() < 0.0005:
            run.report(self.place / "report.html")

    def _pick(self, rng: random.Random, run: Any) -> None:
        from analysis.pick import NothingFits

        try:
            found = run.pick(**rng.choice(({"max_drop": 5.0}, {"knee": True}, {"max_size_mb": 0.08}, {"trial": 1})))
        except NothingFits:
            return
        if rng.random() < 0.5:
            found.recipe().save(self.place / "recipe.yaml")


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows]))


class ModelReader(Reader):
    """A model folder with a broken config, weights header or facts, loaded without its code."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.names = ("config.json", "model.safetensors", "paredown.json")
        self.texts = {name: (GOLDEN / "model" / name).read_bytes() for name in self.names}

    def make(self, rng: random.Random) -> None:
        folder = self.place / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(GOLDEN / "model", folder)
        name = rng.choice(self.names)
        text = self.texts[name]
        if name.endswith(".json"):
            data = _texts(rng, json.loads(text), text, list(self.texts.values()), json.dumps)
        else:
            length = int.from_bytes(text[:8], "little")
            header = _texts(rng, json.loads(text[8 : 8 + length]), text[8 : 8 + length], [text], json.dumps)
            size = len(header) if rng.random() < 0.8 else rng.choice((0, 2**62, 10**9, len(header) + 1))
            data = size.to_bytes(8, "little") + header + text[8 + length :]
        (folder / name).write_bytes(data)

    def read(self, rng: random.Random) -> None:
        from compressors.saving import load
        from search.students.model_folder import read_facts
        from spaces.signature import read_signature

        folder = self.place / "model"
        for call in (read_signature, read_facts, load):
            call(folder)


READERS: dict[str, type[Reader]] = {
    "config": ConfigReader,
    "recipe": RecipeReader,
    "data": DataReader,
    "run": RunReader,
    "model": ModelReader,
}
