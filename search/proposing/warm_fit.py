"""Whether a plan from elsewhere is one of a space, and what its distillation becomes there."""

from __future__ import annotations

from dataclasses import asdict, fields

from spaces.cost import cost
from spaces.domains import nearest
from spaces.lstm_space import LstmSpace
from spaces.plan import Distillation, Plan
from spaces.space import Space


def misfit(plan: Plan, space: Space | LstmSpace) -> str | None:
    """Return why a plan is none of this space, to be read after its name; None where it is one."""
    student = plan.student
    if student.signature != space.signature.hash:
        return f"is a plan for another teacher (signature {student.signature}, here {space.signature.hash})"
    if (student.lstm is None) == isinstance(space, LstmSpace):
        kind = "no LSTM" if student.lstm is None else "an LSTM"
        return f"has a student that is {kind}, other than space.student asks for"
    if student.stored_dtype != space.stored_dtype:
        return f"stores {student.stored_dtype}, and run.stored_dtype is {space.stored_dtype}"
    problem = _other_matrices(plan, space) if isinstance(space, Space) else None
    if problem is not None:
        return problem
    size = cost(student, space.signature, sequence_length=1).file_bytes
    if space.max_bytes is not None and size > space.max_bytes:
        return f"takes {size / 1e6:.2f} MB, above constraints.size_mb {space.max_bytes / 1e6:g}"
    return None


def _other_matrices(plan: Plan, space: Space) -> str | None:
    """Return what a plan cuts or compresses that this space leaves alone."""
    structure = plan.student.structure
    for part in ("layers", "heads", "ffn"):
        if getattr(structure, part) and part not in space.cuts.domains:
            return f"cuts {part}, which space.structure keeps"
    if structure.vocabulary != space.words:
        return f"keeps {structure.vocabulary or 'all'} words, and this space {space.words or 'all'}"
    lists = space.codec_of(structure).lists
    for path, choice in plan.student:
        if path not in lists:
            return f"compresses {path}, which this space leaves dense"
        if choice.method not in lists[path]:
            return f"has method {choice.method} for {path}; allowed: {', '.join(lists[path])}"
    return None


def taught_here(plan: Plan, space: Space | LstmSpace) -> Plan:
    """Return the plan with every setting of its distillation moved to the nearest that this space allows."""
    settings, domains = asdict(plan.distillation), space.distillation or {}
    for field in fields(Distillation):
        if field.name in domains:
            settings[field.name] = nearest(domains[field.name], settings[field.name])
    return Plan(plan.student, Distillation(**settings))
