"""What the training script of a plan is made of: its own modules here, and new names where two would be the same."""

from __future__ import annotations

from collections.abc import Mapping

from search.hf_script.assemble import Code, assemble
from spaces.errors import UserError
from spaces.plan import Student

OWN = "search.hf_script"
METHODS = {
    "dense": "compressors.methods.dense",
    "lowrank": "compressors.methods.lowrank",
    "kronecker": f"{OWN}.kronecker_start",
    "sparse": "compressors.methods.sparse",
    "block": "compressors.methods.sparse",
    "lowrank+sparse": "compressors.methods.lowrank_sparse",
    "pruned-lowrank": "compressors.methods.pruned_lowrank",
}
"""The module that makes the start of each method."""

RENAMES: Mapping[str, Mapping[str, str]] = {
    "compressors.distill.objective": {r"\blosses\.": ""},
    "compressors.distill.capture": {r"\bPARTS\b": "PROJECTIONS"},
    "compressors.distill.evaluate": {r"\bautocast\b": "fast", r"\bin_bfloat16\b": "autocast"},
    "compressors.methods": {r"\binitialiser\(choice\.method\)": "STARTS[choice.method]"},
    "compressors.structure": {r"\bunit_scores\b": "ffn_scores"},
    "compressors.masks": {r"\bscore\(": "weight_scores("},
    "compressors.kronecker_sums": {r"\bRIDGE\b": "KRONECKER_RIDGE"},
    "compressors.kronecker_alternation": {r"\b(STEPS|SWEEPS|RIDGE)\b": r"KRONECKER_\1"},
}

REPLACED = (("compressors.methods", "initialiser"), ("search.tasks.encode", "IGNORED"))
"""What a script has in another form: a table of its own, and one ``IGNORED`` for two that are equal."""


def code_of(student: Student) -> Code:
    """Return the code of a student's script; raises UserError for methods of other packages."""
    own, state = [f"{OWN}.training", f"{OWN}.rows", f"{OWN}.start"], f"{OWN}.state"
    if student.lstm is not None:
        return assemble([*own, f"{OWN}.lstm_state"], RENAMES, replaced=[*REPLACED, (state, "state_of")])
    modules = _modules(student)
    renames = {**RENAMES, **{module: _start_names(module) for module in {*modules.values(), METHODS["lowrank"]}}}
    roots = [*own, state, *dict.fromkeys(modules.values())]
    made = assemble(roots, renames, REPLACED)
    starts = ", ".join(f'"{name}": {_start(module)}' for name, module in modules.items())
    return made._replace(last=f"{made.last}STARTS = {{{starts}}}\n")


def _modules(student: Student) -> dict[str, str]:
    """Return the module of every method that a student uses; what is cut is dense."""
    names = {"dense", *(choice.method for _, choice in student)}
    for name in sorted(names - set(METHODS)):
        raise UserError(f"--as hf-script: method {name!r} is of another package; allowed: {', '.join(METHODS)}")
    return {name: METHODS[name] for name in METHODS if name in names}


def _start(module: str) -> str:
    return f"start_{module.rpartition('.')[2].removesuffix('_start')}"


def _start_names(module: str) -> dict[str, str]:
    return {r"\b(\w+)\.initialise\b": r"start_\1", r"\bdef initialise\b": f"def {_start(module)}"}
