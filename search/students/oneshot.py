"""Compression in one shot: the recipe of one plan, without a search."""

from __future__ import annotations

from typing import Any

from search.config import Config
from search.driver.progress import progress_bar
from search.proposing.sampling import LSTM_LEARNING_RATE, LSTM_OBJECTIVES, nearest_distillation
from search.quiet import quiet
from search.workers.prepare import versions
from search.workspace import Workspace, check_teaching, domains_of, make_space, open_workspace
from spaces.allocate import Allocator
from spaces.cost import cost
from spaces.curves import Curves
from spaces.errors import UserError
from spaces.plan import Plan, Student
from spaces.recipe import Recipe
from spaces.space import Space

ENCODER_ONLY = ("embedding", "pooler")
"""What ``--keep`` leaves dense and does not count."""


def make_plan(
    config: Config, *, keep: float | None, size_mb: float | None, method: str, allocator: Allocator, init: str
) -> Recipe:
    """Return the recipe of one plan, in which every free matrix is compressed by ``method``.

    Either ``keep`` (stored / dense weights of the encoder's groups) or ``size_mb`` (the whole file, in 10^6 bytes;
    there ``space.exclude`` says what stays dense) is the budget; it is met from below. Distillation takes the
    config's fixed values, and of ranges and choices what lies nearest to what does well at this budget;
    ``space.structure`` is cut by its fixed fractions, and as little as may be where it names several. The teacher
    is made if it is missing. Where the config asks for an LSTM student the plan is the largest one within
    ``size_mb``, whatever the method. Raises UserError when the budget is below what the method reaches.
    """
    if config.space.student is not None and keep is not None:
        raise UserError("--keep counts the teacher's matrices, of which an LSTM student keeps none; give --size-mb")
    quiet()
    with progress_bar() as progress:
        workspace = open_workspace(config, progress=progress)
        check_teaching(config, workspace.teacher.signature)
        cut = bool(domains_of(config)) or config.space.structure.vocabulary == "used"
        measured = (cut or allocator == "marginal") and config.space.student is None
        curves = workspace.curves if measured else Curves.flat(workspace.teacher.signature)
    made_by = {"command": "paredown plan", **({"keep": keep} if keep is not None else {"size_mb": size_mb})}
    if config.space.student is not None:
        return recipe_for(workspace, _lstm_plan(config, workspace, size_mb or 0), made_by)
    exclude = ENCODER_ONLY if keep is not None else config.space.exclude
    space = Space(
        workspace.teacher.signature,
        curves,
        (method,),
        granularity="none",
        exclude=exclude,
        stored_dtype=config.run.stored_dtype,
        structure=domains_of(config),
        words=curves.words if config.space.structure.vocabulary == "used" else None,
    )
    student = _kept(space, keep, allocator, init) if keep is not None else _sized(space, size_mb or 0, allocator, init)
    made_by |= {"method": method, "allocator": allocator, "init": init}
    section = config.space.distillation
    domains = {name: getattr(section, name) for name in type(section).model_fields}
    distillation = nearest_distillation(domains, space.codec_of(student.structure).stored(student) / space.whole_bytes)
    return recipe_for(workspace, Plan(student, distillation), made_by)


def recipe_for(workspace: Workspace, plan: Plan, made_by: dict[str, Any]) -> Recipe:
    """Return the recipe that trains ``plan`` in ``workspace``; it expects what arithmetic knows."""
    config, teacher = workspace.config, workspace.teacher
    price = cost(plan, teacher.signature, sequence_length=config.latency.sequence_length)
    return Recipe(
        teacher={
            "path": str(teacher.folder.resolve()),
            "hash": teacher.hash,
            "trust_remote_code": teacher.trust_remote_code,
            "model": config.teacher.model,
        },
        task={**config.task.model_dump(mode="json"), "hashes": dict(workspace.data.hashes)},
        plan=plan,
        trial={
            **config.fidelity.model_dump(mode="json"),
            "seed": config.search.seed,
            "threads": threads_of(config),
        },
        final=config.final.model_dump(mode="json"),
        latency=config.latency.model_dump(mode="json"),
        expected={"size_mb": price.size_mb, "params": price.params, "flops": price.flops},
        versions=versions(),
        made_by={**made_by, "plan": plan.hash},
    )


def threads_of(config: Config) -> int:
    """Return the threads that a trial computes on."""
    return max(1, int(config.resources.cpu))


def _lstm_plan(config: Config, workspace: Workspace, size_mb: float) -> Plan:
    """Return the largest LSTM student of the config's sizes whose file takes at most ``size_mb``."""
    limited = config.model_copy(update={"constraints": {**config.constraints, "size_mb": size_mb}})
    try:
        space = make_space(limited, workspace.teacher.signature, Curves.flat(workspace.teacher.signature))
        student = space.student_at(1.0)
    except UserError as error:
        raise UserError(str(error).replace("constraints.size_mb:", "--size-mb")) from None
    settings = nearest_distillation(space.distillation or {}, 1.0, LSTM_OBJECTIVES, learning_rate=LSTM_LEARNING_RATE)
    return Plan(student, settings)


def _kept(space: Space, keep: float, allocator: Allocator, init: str) -> Student:
    least = space.least_bytes / space.whole_bytes
    if keep < least:
        raise UserError(f"--keep {keep:g}: {space.methods[0]} keeps at least {_up(least)} of this teacher's encoder")
    return space.student({"budget": keep}, allocator, init)


def _sized(space: Space, size_mb: float, allocator: Allocator, init: str) -> Student:
    """Return the largest student whose file takes at most ``size_mb``; the header grows with the factors."""
    limit = size_mb * 1e6
    budget = min((limit - space.fixed_bytes) / space.whole_bytes, 1.0)
    while budget > 0:
        student = space.student({"budget": budget}, allocator, init)
        over = _file_bytes(student, space) - limit
        if over <= 0:
            return student
        budget -= max(over, 1024) / space.whole_bytes
    least = _file_bytes(space.student({"budget": 1e-9}, allocator, init), space)
    raise UserError(f"--size-mb {size_mb:g}: the smallest student by {space.methods[0]} takes {_up(least / 1e6)} MB")


def _file_bytes(student: Student, space: Space) -> int:
    return cost(student, space.signature, sequence_length=1).file_bytes


def _up(value: float) -> str:
    """Return ``value`` rounded up to 3 decimals, so that what is said to be reachable is."""
    return f"{-(-value * 1000 // 1) / 1000:g}"
