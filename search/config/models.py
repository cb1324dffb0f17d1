"""The keys of a config, their defaults and what each may be; every section is frozen and refuses unknown keys."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from spaces import domains
from spaces.distillation import LAYER_MAPS, MASK_SCORES, OBJECTIVES, SCHEDULES, UNFREEZING
from spaces.domains import Choices, Domain, Fixed, Range
from spaces.errors import UserError

TaskKind: TypeAlias = Literal[
    "text-classification",
    "multi-label-classification",
    "text-pair-classification",
    "regression",
    "token-classification",
    "question-answering",
    "masked-lm",
    "causal-lm",
    "sentence-embedding",
]


def _parse_domain(value: object, **rules: Any) -> Domain:
    try:
        return domains.parse(value, **rules)
    except UserError as error:
        raise ValueError(str(error)) from None


def _auto_or_count(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(f"{value!r} is not allowed: auto, or a whole number from 1")


def _as_names(value: object) -> object:
    """Return a mapping of names to names; YAML reads 0 as a number."""
    if not isinstance(value, dict):
        return value
    return {str(old): new if isinstance(new, list | dict) else str(new) for old, new in value.items()}


def _student(value: object) -> object:
    if value is None or value == "same":
        return None
    if isinstance(value, dict) and set(value) == {"lstm"}:
        return value["lstm"] if value["lstm"] is not None else {}
    if isinstance(value, LstmStudent):
        return value
    raise ValueError(f"{value!r} is not allowed: same, or lstm: {{hidden: ..., embedding: ..., layers: ...}}")


_domain_text = PlainSerializer(lambda domain: domain.to_value())
LearningRate = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=1e-8, maximum=1.0)), _domain_text]
Temperature = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=0.1, maximum=100.0)), _domain_text]
Objective = Annotated[Domain, PlainValidator(partial(_parse_domain, allowed=OBJECTIVES)), _domain_text]
Share = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=0.0, maximum=1.0)), _domain_text]
Weight = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=0.0)), _domain_text]
Size = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=1)), _domain_text]
Kept: TypeAlias = Annotated[
    Domain | None,
    PlainValidator(lambda v: None if v in (None, "keep") else _parse_domain(v, minimum=0.01, maximum=1.0)),
    PlainSerializer(lambda domain: "keep" if domain is None else domain.to_value()),
]
Rounds = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=1, whole=True)), _domain_text]
Updates = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=0, whole=True)), _domain_text]
Part = Annotated[Domain, PlainValidator(partial(_parse_domain, minimum=0.01, maximum=1.0)), _domain_text]
Flag = Annotated[Domain, PlainValidator(partial(_parse_domain, allowed=(True, False))), _domain_text]
Schedule = Annotated[Domain, PlainValidator(partial(_parse_domain, allowed=SCHEDULES)), _domain_text]
Unfreezing = Annotated[Domain, PlainValidator(partial(_parse_domain, allowed=UNFREEZING)), _domain_text]
LayerMap = Annotated[Domain, PlainValidator(partial(_parse_domain, allowed=LAYER_MAPS)), _domain_text]
Tracker: TypeAlias = Literal["wandb", "mlflow", "tensorboard"]
MaskScores = Annotated[Domain, PlainValidator(partial(_parse_domain, allowed=MASK_SCORES)), _domain_text]
Kind: TypeAlias = Literal["qkv", "attn_out", "ffn_in", "ffn_out", "embedding", "pooler"]
OneOrMore: TypeAlias = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None
Files: TypeAlias = OneOrMore
Names: TypeAlias = Annotated[tuple[str, ...], Field(strict=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
MOST_ROWS = 100_000
"""Of one batch: more are a slip, which would end without memory."""

Count: TypeAlias = Annotated[int, Field(ge=1, le=10_000_000)]
Epochs: TypeAlias = Annotated[float, Field(gt=0, le=10_000)]


class Section(BaseModel):
    """A part of the config: frozen, strict about types, with no keys but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Sparing(Section):
    """A section that is written without the keys that are not set."""

    @model_serializer(mode="wrap")
    def _without_none(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value is not None}


class FineTune(Section):
    """How a teacher is made from a backbone."""

    num_train_epochs: Epochs = 2
    learning_rate: Positive = 1e-4


class Teacher(Section):
    """The model to be compressed; with ``finetune`` it is first trained on the task."""

    model: Annotated[str, Field(min_length=1)]
    finetune: FineTune | None = None
    trust_remote_code: bool = False


class Data(Sparing):
    """Files by split (one, several, or a pattern with ``*``), or a data set of the Hugging Face hub.

    The latter is ``hub`` and, where it has several, ``name``.
    """

    train: Files = None
    validation: Files = None
    test: Files = None
    hub: str | None = None
    name: str | None = None


class Columns(Sparing):
    """Names of the columns; those that the task's kind does not use are None.

    A list of labels names columns that each hold 0 or 1 for the label that they are called after.
    """

    text: str | None = None
    text_pair: str | None = None
    label: OneOrMore = None
    tokens: str | None = None
    tags: str | None = None
    question: str | None = None
    context: str | None = None
    answers: str | None = None


class Task(Section):
    """What the model does, on which data, and how that is scored; ``labels`` gives labels of the data new names."""

    kind: TaskKind
    data: Data
    columns: Columns = Columns()
    labels: Annotated[dict[str, str], BeforeValidator(_as_names)] = Field(default_factory=dict)
    transfer: Files = None
    metric: str = "accuracy"
    max_length: Annotated[int, Field(ge=4, le=8192)] = 64
    stride: Count | None = None


class Structure(Section):
    """Kept fractions of layers, heads and FFN units (None keeps all), and whether unused words are dropped."""

    layers: Kept = None
    heads: Kept = None
    ffn: Kept = None
    vocabulary: Literal["keep", "used"] = "keep"


class LstmStudent(Section):
    """Sizes of an LSTM student: hidden units, embedding width, layers."""

    hidden: Size = Range(100, 600)
    embedding: Size = Range(50, 300)
    layers: Size = Range(1, 2)


class Distillation(Section):
    """How students learn from their teacher: the fields of ``spaces.distillation``, each with what it may be."""

    learning_rate: LearningRate = Range(2e-5, 5e-4, log=True)
    temperature: Temperature = Range(1, 8)
    objective: Objective = Choices(("logits", "logits+hidden", "logits+hidden+attention", "relations"))
    label_weight: Share = Fixed(0.0)
    intermediate_weight: Weight = Fixed(1.0)
    shrink_rounds: Rounds = Fixed(1)
    shrink_share: Part = Fixed(0.25)
    regrow: Flag = Fixed(False)
    penalty: Weight = Fixed(0.0)
    penalty_updates: Updates = Fixed(4)
    schedule: Schedule = Fixed("joint")
    unfreeze: Unfreezing = Fixed("all")
    layer_map: LayerMap = Fixed("own")
    mixup: Weight = Fixed(0.0)
    mask_scores: MaskScores = Fixed("data")


class Space(Section):
    """Which students the search may propose."""

    preset: str = "default"
    granularity: Literal["none", "model", "kind", "layer", "kind+layer", "group", "matrix"] = "kind+layer"
    methods: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = (
        "dense",
        "lowrank",
        "kronecker",
        "sparse",
        "lowrank+sparse",
    )
    own_methods: dict[Kind, Annotated[tuple[str, ...], Field(strict=False, min_length=1)]] = Field(default_factory=dict)
    exclude: Names = ("pooler",)
    structure: Structure = Structure()
    student: Annotated[
        LstmStudent | None,
        BeforeValidator(_student),
        PlainSerializer(lambda lstm: "same" if lstm is None else {"lstm": lstm.model_dump()}),
    ] = None
    distillation: Distillation = Distillation()


class Search(Section):
    """How long and with which sampler the space is searched."""

    trials: Count = 60
    sampler: Literal["auto", "guided", "tpe", "nsgaii", "gp", "random"] = "auto"
    max_concurrent: Annotated[int | Literal["auto"], PlainValidator(_auto_or_count)] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    time_limit_s: Positive | None = None
    warm_start: str | Names | None = None


class EarlyStopping(Section):
    """Whether weak trials stop early; the first ``grace`` trials run to the end."""

    enabled: bool = True
    grace: Count = 4


class Fidelity(Section):
    """The short training of a trial; ``rungs`` are fractions of ``max_steps`` at which it is scored."""

    max_steps: Count = 300
    rungs: Annotated[tuple[float, ...], Field(strict=False, min_length=1)] = (0.11, 0.33, 1.0)
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 32


class Baselines(Section):
    """What is drawn beside the front besides the teacher and uniform low rank: two plans of each of ``presets``."""

    presets: Names = ()


class Confirm(Section):
    """Retraining ``top`` trials of the front with ``seeds`` more seeds at the end, for ``steps`` (None: a trial's)."""

    seeds: Annotated[int, Field(ge=0)] = 0
    top: Count = 8
    steps: Count | None = None


class Final(Section):
    """What ``paredown train`` runs by default; it ends early after so many looks at validation without a gain."""

    num_train_epochs: Epochs = 3
    early_stopping_patience: Count | None = 3


class Latency(Section):
    """What latency is measured on; ``hardware`` names kinds of nodes of a cluster, each of which measures the front."""

    batch_size: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 1
    sequence_length: Annotated[int, Field(ge=2, le=8192)] = 32
    threads: Count = 1
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    runtime: Literal["torch", "onnxruntime", "onnxruntime-int8"] = "torch"
    hardware: Names = ()

    @model_serializer(mode="wrap")
    def _without_hardware(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key != "hardware" or value}


class Resources(Section):
    """What one trial occupies, and how many seconds it may show no sign of life before it is given up (None: ever)."""

    cpu: Positive = 1
    gpu: Annotated[float, Field(ge=0)] = 0
    stall_s: Positive | None = 1800


class Run(Section):
    """Where the search writes, and what it keeps."""

    dir: Annotated[str, Field(min_length=1)] = "runs/run"
    keep_checkpoints: Literal["front", "all"] = "front"
    stored_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
