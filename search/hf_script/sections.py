"""Which modules of this project the training script of a plan is made of."""

from __future__ import annotations

from search.hf_script.assemble import Section
from spaces.errors import UserError
from spaces.plan import Student

OWN = "search.hf_script"

TRAINING = (
    Section(f"{OWN}.training"),
    Section(f"{OWN}.rows"),
    Section(f"{OWN}.start"),
    Section("search.kinds"),
    Section("search.data.columns", only=("SEPARATOR", "_label", "_label_set")),
    Section("search.data.labels", only=("output_names",)),
    Section("search.tasks.encode", only=("_PROBLEMS", "encode_texts", "encode_words", "_options", "_arrays", "_align")),
    Section("compressors.distill.batches"),
    Section("compressors.distill.objective", renames={r"\blosses\.": ""}),
    Section("compressors.distill.losses"),
    Section("compressors.distill.capture", renames={r"\bPARTS\b": "PROJECTIONS"}),
    Section("compressors.distill.targets", only=("teacher_outputs", "_pooled")),
    Section("compressors.distill.schedule"),
    Section("compressors.distill.loop", only=("_decay_groups",)),
    Section("compressors.distill.precision"),
    Section("compressors.distill.modes", only=("evaluating", "_modes_kept")),
    Section(
        "compressors.distill.evaluate",
        only=("predict", "logits_of", "by_length", "_batches"),
        renames={r"\bautocast\b": "fast", r"\bin_bfloat16\b": "autocast"},
    ),
    Section("search.tasks.score"),
    Section("search.tasks.entities"),
    Section("spaces.errors", only=("UserError",)),
)

CLOSED_FORMS = (
    Section("compressors.calibration", only=("sampled_loss", "_drawn", "_gaussian")),
    Section("compressors.observe"),
    Section("compressors.signature", only=("kind_of",)),
    Section("compressors.closed_forms"),
    Section("compressors.factors", only=("Kept", "_cut")),
)

CHOICES = (
    Section(f"{OWN}.state"),
    Section(
        "compressors.methods",
        only=("initialise", "_left_of_mean"),
        renames={r"\binitialiser\(choice\.method\)": "STARTS[choice.method]"},
    ),
    Section("spaces.plan", only=("Choice",)),
)

CUTS = (
    Section(
        "compressors.structure",
        only=(
            "_ROW_TYPES", "Remains", "remains", "word_rows", "head_scores", "unit_scores", "check_supported", "_module",
            "_narrowed", "_best", "_group_energies",
        ),
        renames={r"\bunit_scores\b": "ffn_scores"},
    ),
    Section(
        "spaces.structure",
        only=("WORD_MAP", "OVER_WORDS", "row_dtype", "short_tables", "refusal", "head_refusal", "unit_refusal"),
    ),
)  # fmt: skip

LSTM = (
    Section(f"{OWN}.lstm_state"),
    Section("compressors.lstm"),
    Section("spaces.cost", only=("PREFIX",)),
    Section(
        "spaces.lstm",
        only=(
            "DIRECTIONS", "GATES", "TASKS", "_OUTPUTS", "lstm_shapes", "check_lstm", "word_table", "head",
            "_input_widths",
        ),
    ),
)  # fmt: skip

MASKS = (
    Section("compressors.masks", renames={r"\bscore\(": "weight_scores("}),
    Section("compressors.compensate"),
)
KRONECKER = (Section("compressors.kronecker_sums", renames={r"\b(STEPS|SWEEPS|RIDGE)\b": r"KRONECKER_\1"}),)

METHODS = {
    "dense": "dense",
    "lowrank": "lowrank",
    "kronecker": "kronecker",
    "sparse": "sparse",
    "block": "sparse",
    "lowrank+sparse": "lowrank_sparse",
    "pruned-lowrank": "pruned_lowrank",
}
"""The module of each method."""


def sections_of(student: Student) -> list[Section]:
    """Return the sections of a student's script; raises UserError for methods of other packages."""
    if student.lstm is not None:
        return [*TRAINING, *CLOSED_FORMS, *LSTM]
    modules = _modules(student)
    masked = {"sparse", "lowrank_sparse", "pruned_lowrank"} & set(modules)
    return [
        *TRAINING,
        *CLOSED_FORMS,
        *CHOICES,
        *map(_method, modules),
        *(MASKS if masked else ()),
        *(KRONECKER if "kronecker" in modules else ()),
        *CUTS,
    ]


def starts_of(student: Student) -> str:
    """Return the line that names what makes the parts of each method; empty for a student without methods."""
    if student.lstm is not None:
        return ""
    used = _modules(student)
    found = ", ".join(f'"{name}": start_{module}' for name, module in METHODS.items() if module in used)
    return f"STARTS = {{{found}}}\n"


def _modules(student: Student) -> list[str]:
    """Return the modules of the methods used, those that others call included."""
    names = {"dense", *(choice.method for _, choice in student)}
    for name in sorted(names - set(METHODS)):
        raise UserError(f"--as hf-script: method {name!r} is of another package; allowed: {', '.join(METHODS)}")
    found = {METHODS[name] for name in names}
    return sorted(found | ({"lowrank"} if found & {"lowrank_sparse", "pruned_lowrank"} else set()))


def _method(module: str) -> Section:
    renames = {r"\b(\w+)\.initialise\b": r"start_\1", r"\bdef initialise\b": f"def start_{module}"}
    place = f"{OWN}.kronecker_start" if module == "kronecker" else f"compressors.methods.{module}"
    return Section(place, renames=renames)
