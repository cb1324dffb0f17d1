"""What must hold between keys of a config, beyond each key on its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from search.config.fill import preset_files
from search.config.problems import Problem, unknown_word
from search.config.root import Config
from search.kinds import KINDS, LEAST_ROOM, LEAST_WINDOW, MULTI_LABEL
from spaces.domains import Choices, Domain, Fixed, Range, Scalar
from spaces.errors import UserError
from spaces.objectives import COSTS, METRICS, objective
from spaces.plan import ATTENTION_OBJECTIVES, OBJECTIVES

BACKBONE = "minilm"
"""The name of the offline backbone; it has no task head, so that it needs fine-tuning."""


def check(config: Config) -> Iterator[Problem]:
    """Yield every problem; none when the config makes sense as a whole."""
    yield from _teacher(config)
    yield from _data(config)
    yield from _columns(config)
    yield from _windows(config)
    yield from _untaught(config)
    yield from _metric(config)
    yield from _methods(config)
    yield from _student(config)
    yield from _nothing_to_choose(config)
    yield from _objectives(config)
    yield from _constraints(config)
    yield from _rungs(config)
    yield from _baselines(config)


def _teacher(config: Config) -> Iterator[Problem]:
    untaught = config.task.kind == "sentence-embedding"
    if config.teacher.model == BACKBONE and config.teacher.finetune is None and not untaught:
        yield Problem(
            ("teacher", "model"),
            f"{BACKBONE} is a backbone without a task head; add teacher.finetune, or name a fine-tuned model",
        )


def _data(config: Config) -> Iterator[Problem]:
    data = config.task.data
    files = [name for name in ("train", "validation", "test") if getattr(data, name) is not None]
    if data.hub is None and data.train is None:
        yield Problem(("task", "data"), "train is missing: give a file, or hub: and name: of a hub data set")
    if data.hub is None and data.name is not None:
        yield Problem(("task", "data", "name"), "name goes with hub, which is missing")
    if data.hub is not None and files:
        yield Problem(("task", "data", files[0]), "files and hub exclude each other; keep one of them")


def _columns(config: Config) -> Iterator[Problem]:
    kind = KINDS[config.task.kind]
    for role, name in config.task.columns.model_dump().items():
        if role not in kind.columns:
            allowed = ", ".join(kind.columns)
            yield Problem(("task", "columns", role), f"{name!r}: {kind.name} has no such column; allowed: {allowed}")
        elif not isinstance(name, str) and kind.name != MULTI_LABEL:
            text = f"{list(name)!r} is not allowed: only {MULTI_LABEL} has a column for each label; name one column"
            yield Problem(("task", "columns", role), text)
    found = [name for role, name in config.task.columns.model_dump().items() if role in kind.columns]
    given = [name for names in found for name in ([names] if isinstance(names, str) else names)]
    for name in sorted({name for name in given if given.count(name) > 1}):
        yield Problem(("task", "columns"), f"{name!r} is given for two columns; each needs one of its own")
    if config.task.labels and not kind.names:
        yield Problem(("task", "labels"), f"{kind.name} has no labels that could have names")


def _windows(config: Config) -> Iterator[Problem]:
    task, key = config.task, ("task", "stride")
    if KINDS[task.kind].long != "windows":
        if task.stride is not None:
            yield Problem(key, f"{task.stride}: only question-answering reads long texts in windows")
        return
    if task.max_length < LEAST_WINDOW:
        yield Problem(("task", "max_length"), f"{task.max_length} is not allowed: {task.kind} needs {LEAST_WINDOW}")
    elif task.stride is not None and task.stride > task.max_length // 2 - LEAST_ROOM:
        most = task.max_length // 2 - LEAST_ROOM
        yield Problem(key, f"{task.stride} is not allowed: at most {most}, so that each window brings something new")


def _untaught(config: Config) -> Iterator[Problem]:
    """What cannot be learnt where there are no labels, or not by an LSTM."""
    kind, lstm = KINDS[config.task.kind], config.space.student is not None
    if kind.name == "sentence-embedding":
        if config.teacher.finetune is not None:
            yield Problem(("teacher", "finetune"), f"{kind.name} has no labels to fine-tune on; leave it out")
        taught = _values(config.space.distillation.objective)
        for name in [n for n in taught if n in ("labels", "teacher-labels")] if not lstm else ():
            yield Problem(("space", "distillation", "objective"), f"{name!r} is not allowed: {kind.name} has no labels")
    if lstm and (kind.target not in ("label", "tags")):
        allowed = ", ".join(name for name, other in KINDS.items() if other.target in ("label", "tags"))
        yield Problem(("space", "student"), f"an LSTM student is not built for {kind.name}; allowed: {allowed}")


def _metric(config: Config) -> Iterator[Problem]:
    kind = KINDS[config.task.kind]
    if config.task.metric in kind.metrics:
        return
    if config.task.metric in METRICS:
        allowed = ", ".join(kind.metrics)
        yield Problem(("task", "metric"), f"{config.task.metric!r} does not fit {kind.name}; allowed: {allowed}")
    else:
        yield Problem(("task", "metric"), unknown_word(config.task.metric, kind.metrics))


def _methods(config: Config) -> Iterator[Problem]:
    from spaces.methods import names

    known = list(names())
    lists: dict[tuple[str, ...], tuple[str, ...]] = {("space", "methods"): config.space.methods}
    lists |= {("space", "own_methods", kind): names for kind, names in config.space.own_methods.items()}
    for key, methods in lists.items():
        for index, method in enumerate(methods):
            if method not in known:
                yield Problem((*key, index), unknown_word(method, known))
        if len(set(methods)) < len(methods):
            yield Problem(key, "a method is given twice; keep one of them")


def _student(config: Config) -> Iterator[Problem]:
    if config.space.student is None:
        return
    for objective_name in _values(config.space.distillation.objective):
        if objective_name in ATTENTION_OBJECTIVES:
            allowed = ", ".join(name for name in OBJECTIVES if name not in ATTENTION_OBJECTIVES)
            text = f"{objective_name!r} is not allowed: an LSTM student has no attention; allowed: {allowed}"
            yield Problem(("space", "distillation", "objective"), text)
    for name in type(config.space.student).model_fields:
        sizes = _values(getattr(config.space.student, name))
        broken = next((size for size in sizes if isinstance(size, float) and not size.is_integer()), None)
        if broken is not None:
            yield Problem(("space", "student", "lstm", name), f"{broken} is not allowed: whole numbers")


def _nothing_to_choose(config: Config) -> Iterator[Problem]:
    space = config.space
    methods = {*space.methods, *(name for names in space.own_methods.values() for name in names)}
    domains = [getattr(space.distillation, name) for name in type(space.distillation).model_fields]
    sizes = [space.structure.layers, space.structure.heads, space.structure.ffn]
    if space.student is not None:
        domains += [getattr(space.student, name) for name in type(space.student).model_fields]
    elif methods != {"dense"}:
        return
    if all(domain is None or isinstance(domain, Fixed) for domain in [*domains, *sizes]):
        yield Problem(("space",), "there is nothing to choose: add a method, or a range to structure or distillation")


def _values(domain: Domain) -> tuple[Scalar, ...]:
    """Return what stands in a domain: its value, its choices, or its ends."""
    match domain:
        case Fixed(value):
            return (value,)
        case Choices(values):
            return values
        case Range(low, high):
            return (low, high)


def _objectives(config: Config) -> Iterator[Problem]:
    given = config.objectives
    for index, name in enumerate(given):
        try:
            objective(name)
        except UserError as error:
            yield Problem(("objectives", index), str(error).removeprefix("objectives: "))
            continue
        if name in METRICS and name != config.task.metric:
            yield Problem(("objectives", index), f"{name!r} is not this task's metric, which is {config.task.metric!r}")
        if name.startswith("latency_ms."):
            yield Problem(("objectives", index), f"{name!r} needs a latency target of that name")
        if name in given[:index]:
            yield Problem(("objectives", index), f"{name!r} is given twice; keep one of them")
    if not set(given) & set(METRICS) or not set(given) & set(COSTS):
        rule = f"the task metric ({config.task.metric}) and at least one of {', '.join(COSTS)} are needed"
        yield Problem(("objectives",), f"{list(given)!r} is not allowed: {rule}")


def _constraints(config: Config) -> Iterator[Problem]:
    allowed = (config.task.metric, *COSTS)
    for name, bound in config.constraints.items():
        key = ("constraints", name)
        if name not in allowed:
            yield Problem(key, unknown_word(name, allowed))
        elif name in COSTS and bound <= 0:
            yield Problem(key, f"{bound} is not allowed: an upper bound above 0")
        elif name == config.task.metric and METRICS[name] == "maximize" and not -1 <= bound <= 1:
            yield Problem(key, f"{bound} is not allowed: metrics are fractions, so that 90 % is 0.9")


def _rungs(config: Config) -> Iterator[Problem]:
    rungs = config.fidelity.rungs
    rising = all(low < high for low, high in pairwise(rungs))
    if not rising or rungs[0] <= 0 or rungs[-1] != 1.0:
        yield Problem(
            ("fidelity", "rungs"), f"{list(rungs)!r} is not allowed: rising fractions above 0, the last one 1.0"
        )


def _baselines(config: Config) -> Iterator[Problem]:
    papers = sorted(set(preset_files()) - {"default"})
    for i, name in enumerate(config.baselines.presets):
        if name not in papers:
            yield Problem(("baselines", "presets", str(i)), unknown_word(name, papers))
