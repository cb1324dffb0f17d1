"""From a recipe back to the workspace that it was made in: the same teacher and the same data, or a sentence."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.config import Config, config_from
from search.data import TaskData, load_data
from search.kinds import KINDS
from search.paths import cache_folder
from search.tasks import TaskSpec
from search.teacher.folder import ends_once, folder_hash, labels_of
from search.teacher.model import Teacher
from search.workspace import Workspace
from spaces.errors import UserError, did_you_mean
from spaces.plain_yaml import parse_value
from spaces.recipe import Recipe

OVERRIDABLE = ("teacher", "task", "plan.distillation", "trial", "final", "latency")
"""Sections of a recipe that ``key=value`` may reach; choices are changed in the file."""

CONFIG_KEYS = {
    "fidelity.": "trial.",
    "search.seed": "trial.seed",
    "resources.cpu": "trial.threads",
    "teacher.model": "teacher.path",
}
"""How a recipe calls keys of the config, for error messages."""


def read_recipe(file: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in ``file`` with ``final.num_train_epochs=1`` and the like; raises UserError.

    Whoever names other data takes them as they are: the hashes of the task go. A recipe may come from strangers, so
    that a teacher's own code is run only where an override says so.
    """
    recipe = Recipe.read(file)
    said = any(text.partition("=")[0].strip() == "teacher.trust_remote_code" for text in overrides)
    if recipe.teacher.get("trust_remote_code") and not said:
        raise UserError(
            f"{file}: teacher.trust_remote_code: the teacher needs code of its own; read what lies in "
            f"{recipe.teacher.get('path')}, then add teacher.trust_remote_code=true to run it"
        )
    _refuse_unconfirmed(recipe, file, [text.partition("=")[0].strip() for text in overrides])
    values = copy.deepcopy(recipe.as_dict())
    for text in overrides:
        _override(values, text)
    return Recipe.from_dict(values, str(file)) if overrides else recipe


def _refuse_unconfirmed(recipe: Recipe, file: Path, overridden: Sequence[str]) -> None:
    """Raise UserError for a teacher or data without a hash: whoever wrote the recipe may mean files of the reader."""
    if recipe.teacher.get("hash") is None and not any(name.startswith("teacher.") for name in overridden):
        place = recipe.teacher.get("path")
        raise UserError(
            f"{file}: teacher.hash is missing, so that any model may lie in {place}; look what lies there, then add "
            f"teacher.path={place} to train from it"
        )
    if any(name.startswith("task.") for name in overridden):
        return
    data, known = recipe.task.get("data"), recipe.task.get("hashes") or {}
    files = dict(data) if isinstance(data, Mapping) and "hub" not in data else {}
    files["transfer"] = recipe.task.get("transfer")
    for split, path in files.items():
        if path is not None and (not isinstance(known, Mapping) or not known.get(split)):
            raise UserError(
                f"{file}: task.hashes has none for {split}, so that {path} may be any file; look what it is, then add "
                "task.hashes={} to train on it"
            )


def config_of(recipe: Recipe, file: Path) -> Config:
    """Return the config that a recipe stands for; paths are relative to the recipe's ``file``."""
    trial = dict(recipe.trial)
    seed, threads = trial.pop("seed", 0), trial.pop("threads", 1)
    values = {
        "teacher": {
            "model": str(recipe.teacher.get("path", "")),
            "trust_remote_code": bool(recipe.teacher.get("trust_remote_code", False)),
        },
        "task": {key: value for key, value in recipe.task.items() if key != "hashes"},
        "search": {"seed": seed},
        "fidelity": trial,
        "resources": {"cpu": threads},
        "final": dict(recipe.final),
        "latency": dict(recipe.latency),
    }
    try:
        return config_from(values, base=file.absolute().parent, name=str(file))
    except UserError as error:
        text = str(error)
        for key, said in CONFIG_KEYS.items():
            text = text.replace(f": {key}", f": {said}")
        raise UserError(text) from None


def open_recipe(recipe: Recipe, file: Path) -> Workspace:
    """Return the workspace of a recipe; raises UserError when its teacher or data are gone or not the same."""
    config = config_of(recipe, file)
    teacher = find_teacher(recipe, config, str(file))
    if teacher.signature.hash != recipe.plan.student.signature:
        raise UserError(f"{file}: plan: made for a model of another shape than the teacher in {teacher.folder}")
    data = load_data(config.task, labels_of(str(teacher.folder)))
    check_data(recipe.task.get("hashes") or {}, data, str(file))
    return Workspace(config, data, TaskSpec.of(config.task, data.labels, one_end=ends_once(teacher.folder)), teacher)


def find_teacher(recipe: Recipe, config: Config, where: str) -> Teacher:
    """Return the teacher that a recipe names; raises UserError when it is missing or another one."""
    folder = Path(config.teacher.model)
    wanted = recipe.teacher.get("hash")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{where}: teacher.path: there is no model in {folder}; give the place of the teacher {wanted} "
            "with teacher.path=FOLDER, or make the recipe again"
        )
    found = folder_hash(folder)
    if wanted is not None and wanted != found:
        raise UserError(f"{where}: teacher.path: the model in {folder} is {found}, not the recipe's teacher {wanted}")
    kind = KINDS[config.task.kind]
    return Teacher(folder, found, kind.auto_class, cache_folder(), config.teacher.trust_remote_code)


def check_data(hashes: Mapping[str, str], data: TaskData, where: str) -> None:
    """Raise UserError when a split is not the one that the recipe was made with."""
    changed = [split for split, known in hashes.items() if data.hashes.get(split, known) != known]
    if changed:
        raise UserError(
            f"{where}: task.data: {' and '.join(changed)} changed since the recipe was made; "
            "to train on the data as they are now, add task.hashes={}"
        )


def _override(values: dict[str, Any], text: str) -> None:
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UserError(f"override {text!r}: write it as key=value, for example final.num_train_epochs=1")
    if not any(name.startswith(f"{section}.") for section in OVERRIDABLE):
        hint = did_you_mean(name.partition(".")[0], list(OVERRIDABLE))
        raise UserError(f"override {text!r}: the key is not known{hint}; allowed: {', '.join(OVERRIDABLE)}, then a key")
    *path, last = name.split(".")
    section = values
    for part in path:
        if not isinstance(section.get(part), dict):
            raise UserError(f"override {text!r}: {part!r} is no section of a recipe")
        section = section[part]
    section[last] = parse_value(value, f"override {text!r}")
    if name.startswith("task."):
        values["task"]["hashes"] = {}
