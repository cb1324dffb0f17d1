"""What the papers claim, as arms that are trained alike and pairs of arms to be compared.

Numbers are those of the list of checkable orderings in docs/papers.md. ``published`` says where a figure was read:
(text) in the paper, (code) in its authors' code, (quoted) in a document that quotes it, (recalled) not verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LOGITS = {"objective": "logits"}
LABELS = {"objective": "labels", "label_weight": 1.0}
INSIDE = {"objective": "logits+hidden+attention"}
STAGES = {"objective": "logits+hidden", "schedule": "stages"}


@dataclass(frozen=True)
class Arm:
    """One way to make and teach a student of a given size.

    ``method`` with ``knobs`` (pattern, split, kron_out, kron_in) is given to every matrix of the encoder, the budget
    shared by ``allocator``; ``lstm`` (hidden, embedding, layers) replaces the encoder; ``teacher`` is no student.
    ``passes`` over the rows that it learns from replace ``steps``; 0 steps leave it untrained. ``int8`` judges what
    onnxruntime makes of it in 8 bits.
    """

    name: str
    method: str = "lowrank"
    init: str = "fisher-whitened"
    allocator: str = "uniform"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    teach: Mapping[str, Any] = field(default_factory=lambda: LOGITS)
    learning_rate: float | None = None
    steps: int = 120
    passes: float | None = None
    transfer: bool = False
    lstm: tuple[int, int, int] | None = None
    int8: bool = False


@dataclass(frozen=True)
class Claim:
    """An ordering: each pair (better, worse) is tested at each of ``keeps`` on each of ``sets``.

    With a ``margin`` (points) the claim is that the first is at most so much below the second. ``measured`` adds
    bytes and latencies to the rows; with ``smaller_is_slower`` these decide and not the metric. ``labels`` are so
    many labelled rows per class, for the teacher too; the rest of the training rows is then transfer text, with the
    set's own transfer file.
    """

    number: int
    text: str
    source: str
    published: str
    sets: tuple[str, ...]
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...]
    keeps: tuple[float, ...] = (0.2,)
    labels: int | None = None
    seeds: int = 3
    margin: float = 0.0
    measured: bool = False
    smaller_is_slower: bool = False


def untrained(name: str, **rest: Any) -> Arm:
    """Return an arm that is judged as it was initialised."""
    return Arm(name, steps=0, **rest)


JOINT = {"objective": "logits+hidden"}
GRADUAL = {**STAGES, "unfreeze": "gradual"}

LSTM = (300, 300, 1)
RECURRENT: dict[str, Any] = {"lstm": LSTM, "learning_rate": 1e-3}
TAUGHT: dict[str, Any] = {**RECURRENT, "transfer": True}

CLAIMS: tuple[Claim, ...] = (
    Claim(
        3,
        "before training: whitened > Fisher rows > plain SVD at equal rank",
        "FlashSVD; adaptive rank selection (NAACL 2024)",
        "SST-2, rank 128 of 768: 78.2 / 60.2 / 58.9 (quoted)",
        ("trec6", "banking77"),
        tuple(untrained(init, init=init) for init in ("whitened", "fisher", "svd")),
        (("whitened", "fisher"), ("fisher", "svd")),
        (0.7, 0.5, 0.35),
        seeds=1,
    ),
    Claim(
        4,
        "after training on labels the gap shrinks, the order stays",
        "adaptive rank selection (NAACL 2024)",
        "GLUE, 66.5 M: 78.4 / 80.9 / 81.3 for SVD / whitened / Fisher with adaptive ranks (text)",
        ("trec6", "banking77"),
        tuple(Arm(init, init=init, teach=LABELS) for init in ("whitened", "fisher", "svd")),
        (("whitened", "svd"), ("fisher", "svd")),
        (0.35, 0.2),
    ),
    Claim(
        5,
        "Fisher-weighted SVD compresses an already compact model better than plain SVD",
        "FWSVD (ICLR 2022)",
        "MiniLM on CoNLL: cut without loss (text)",
        ("snips",),
        tuple(Arm(init, init=init, teach=LABELS) for init in ("fisher", "svd")),
        (("fisher", "svd"),),
        (0.5, 0.35, 0.2),
    ),
    Claim(
        6,
        "uneven ranks > uniform ranks at equal size",
        "adaptive rank selection (NAACL 2024)",
        "GLUE +2.2 to +4.8 after training (text)",
        ("trec6", "banking77"),
        (Arm("marginal", allocator="marginal"), Arm("uniform")),
        (("marginal", "uniform"),),
        (0.2, 0.1),
    ),
    Claim(
        7,
        "an unlabelled transfer set matters most where labels are few",
        "Mukherjee and Awadallah (arXiv 1910.01769), table 10 of XtremeDistil",
        "500 labels a class: IMDB 61.5 -> 89.1, Elec 65.7 -> 91.0 (text)",
        ("sst2",),
        (
            Arm("teacher", method="teacher"),
            Arm("gradual on transfer", passes=1.0, teach=GRADUAL, **TAUGHT),
            Arm("logits on transfer", passes=1.0, **TAUGHT),
            Arm("labels only", teach=LABELS, passes=30.0, **RECURRENT),
        ),
        (("gradual on transfer", "labels only"), ("logits on transfer", "labels only"), ("teacher", "labels only")),
        labels=100,
    ),
    Claim(
        8,
        "labels < logits < joint ~ logits < stages < stages + gradual unfreezing",
        "XtremeDistil (ACL 2020), table 3",
        "71.3 / 82.7 / 82.4 / 84.8 / 87.1 macro F1 of 41 languages (text)",
        ("snips",),
        (
            Arm("gradual", passes=6.0, teach=GRADUAL, **TAUGHT),
            Arm("stages", passes=6.0, teach=STAGES, **TAUGHT),
            Arm("joint", passes=6.0, teach=JOINT, **TAUGHT),
            Arm("logits", passes=6.0, **TAUGHT),
            Arm("labels", teach=LABELS, passes=60.0, **RECURRENT),
        ),
        (("logits", "labels"), ("joint", "logits"), ("stages", "joint"), ("gradual", "stages")),
        labels=20,
    ),
    Claim(
        9,
        "hard distillation with a transfer set is about as good as the teacher",
        "Mukherjee and Awadallah (arXiv 1910.01769), abstract",
        "at par with the teacher (text)",
        ("sst2",),
        (
            Arm("teacher", method="teacher"),
            Arm("hard", passes=1.0, teach={"objective": "teacher-labels"}, **TAUGHT),
            Arm("labels only", teach=LABELS, passes=30.0, **RECURRENT),
        ),
        (("hard", "teacher"), ("hard", "labels only")),
        labels=500,
        margin=2.0,
    ),
    Claim(
        10,
        "distillation > labels alone, for Kronecker and hybrid students",
        "KroneckerBERT (NAACL 2022), ablation; LadaBERT (COLING 2020)",
        "K8 without: MNLI -2.8, SST-2 -2.2, MRPC -1.0 (text)",
        ("trec6", "sst2"),
        (
            Arm("kronecker distilled", method="kronecker", teach=INSIDE, learning_rate=5e-4),
            Arm("kronecker labels", method="kronecker", teach=LABELS, learning_rate=5e-4),
            Arm("hybrid distilled", method="pruned-lowrank", teach=INSIDE),
            Arm("hybrid labels", method="pruned-lowrank", teach=LABELS),
        ),
        (("kronecker distilled", "kronecker labels"), ("hybrid distilled", "hybrid labels")),
    ),
    Claim(
        11,
        "a distillation stage on general text before the task helps a Kronecker student",
        "KroneckerBERT (NAACL 2022), ablation",
        "K8 without the stage: SST-2 -4.4, MRPC -16.7 (text)",
        ("sst2",),
        (
            Arm("with stage", method="kronecker", transfer=True, steps=360, teach=STAGES, learning_rate=5e-4),
            Arm("without", method="kronecker", steps=360, teach=STAGES, learning_rate=5e-4),
        ),
        (("with stage", "without"),),
        (0.1,),
    ),
    Claim(
        12,
        "pruning > hybrid at 1/2.5 of the size, hybrid >= pruning at 1/3.3 and below; factorisation worst throughout",
        "LadaBERT (COLING 2020)",
        "MNLI-m at 44 M: 82.8 pruning, 81.2 hybrid, 77.7 factors; at 33 M: 75.9 / 76.1 / 71.8 (recalled)",
        ("trec6",),
        tuple(
            Arm(f"{name}, {taught}", method=method, init="svd", teach=teach)
            for taught, teach in (("labels", LABELS), ("distilled", INSIDE))
            for name, method in (("pruning", "sparse"), ("hybrid", "pruned-lowrank"), ("factors", "lowrank"))
        ),
        (
            ("pruning, labels", "hybrid, labels"),
            ("pruning, labels", "factors, labels"),
            ("hybrid, labels", "factors, labels"),
            ("pruning, distilled", "hybrid, distilled"),
            ("hybrid, distilled", "factors, distilled"),
        ),
        (0.4, 0.3, 0.2, 0.1),
    ),
    Claim(
        13,
        "shrinking in rounds > at once, at equal steps",
        "LadaBERT (COLING 2020); oBERT (EMNLP 2022)",
        "64 rounds in the code, no isolated figure (code)",
        ("trec6",),
        tuple(
            Arm(f"{method}, {rounds}", method=method, init=init, teach={**LOGITS, "shrink_rounds": rounds})
            for method, init in (("sparse", "svd"), ("pruned-lowrank", "fisher-whitened"))
            for rounds in (64, 16, 4, 1)
        ),
        tuple(
            (f"{method}, {rounds}", f"{method}, 1") for method in ("sparse", "pruned-lowrank") for rounds in (64, 16, 4)
        ),
        (0.2,),
    ),
    Claim(
        14,
        "data-aware scores > magnitude, more so in one shot",
        "oBERT (EMNLP 2022); Wanda",
        "one-shot 2:4 on SQuAD: 50.0 magnitude, 83.2 second order (text)",
        ("trec6", "banking77"),
        tuple(
            Arm(f"{pattern}, {name}, {when}", method="sparse", init=init, knobs={"pattern": pattern}, steps=steps)
            for pattern in ("unstructured", "n:m")
            for name, init in (("second order", "fisher-whitened"), ("magnitude", "svd"))
            for when, steps in (("one shot", 0), ("trained", 120))
        ),
        tuple(
            (f"{pattern}, second order, {when}", f"{pattern}, magnitude, {when}")
            for pattern in ("unstructured", "n:m")
            for when in ("one shot", "trained")
        ),
        (0.3,),
    ),
    Claim(
        15,
        "irregular >= rows or columns in blocks >= whole rows at equal size",
        "block-structured pruning (arXiv 2009.08065); nn_pruning",
        "no isolated figure was read",
        ("trec6",),
        (
            Arm("irregular", method="sparse", knobs={"pattern": "unstructured"}),
            Arm("blocks", method="block"),
            Arm("whole rows", method="sparse", knobs={"pattern": "rows"}),
        ),
        (("irregular", "blocks"), ("blocks", "whole rows")),
        (0.5, 0.3, 0.2),
    ),
    Claim(
        17,
        "low rank + pruned rows > low rank alone > pruned rows alone",
        "LoSparse (ICML 2023)",
        "keep 10 %: SST-2 89.2 without distillation (code)",
        ("trec6", "banking77"),
        (
            Arm("both", method="lowrank+sparse", knobs={"pattern": "rows"}),
            Arm("low rank"),
            Arm("rows", method="sparse", knobs={"pattern": "rows"}),
        ),
        (("both", "low rank"), ("low rank", "rows")),
        (0.3, 0.2),
    ),
    Claim(
        19,
        "8-bit weights cost less than half a point and a quarter of the bytes",
        "dynamic quantisation; Q8BERT",
        "under 0.5 points on BERT (recalled)",
        ("trec6",),
        (
            Arm("low rank, int8", int8=True),
            Arm("low rank"),
            Arm("kronecker, int8", method="kronecker", int8=True),
            Arm("kronecker", method="kronecker"),
        ),
        (("low rank, int8", "low rank"), ("kronecker, int8", "kronecker")),
        margin=0.5,
        measured=True,
    ),
    Claim(
        20,
        "the order of sizes is not the order of latencies",
        "XtremeDistil (ACL 2020), table 16; KroneckerBERT, eq. 7",
        "words 50, units 600: 8.5 M, 10x on a CPU; words 100, units 400: 11.1 M, 13x (text)",
        ("trec6",),
        (
            untrained("words 50, units 600", lstm=(600, 50, 1)),
            untrained("words 200, units 400", lstm=(400, 200, 1)),
            untrained("kronecker", method="kronecker", knobs={"kron_out": 0.88, "kron_in": 0.88}),
            untrained("low rank", knobs={}),
        ),
        (("words 50, units 600", "words 200, units 400"), ("kronecker", "low rank")),
        (0.25,),
        seeds=1,
        measured=True,
        smaller_is_slower=True,
    ),
    Claim(
        21,
        "an LSTM taught in stages with transfer text comes within 3 points of its teacher",
        "Mukherjee and Awadallah (arXiv 1910.01769); XtremeDistil (ACL 2020)",
        "at par with the teacher, 500 labels a class (text)",
        ("sst2",),
        (
            Arm("teacher", method="teacher"),
            Arm("gradual", passes=2.0, teach=GRADUAL, **TAUGHT),
        ),
        (("gradual", "teacher"),),
        labels=500,
        margin=3.0,
    ),
    Claim(
        22,
        "half of the encoder in blocks of rows and columns stays within a point of the teacher",
        "block-structured pruning (arXiv 2009.08065)",
        "no figure at this size was read",
        ("sst2",),
        (
            Arm("teacher", method="teacher"),
            Arm("penalty", method="block", teach={**LOGITS, "penalty": 1e-4, "shrink_share": 0.5}, steps=240),
            Arm("at once", method="block", steps=240),
            Arm("uneven", method="block", allocator="marginal", steps=480),
        ),
        (("uneven", "teacher"), ("penalty", "teacher"), ("at once", "teacher")),
        (0.5,),
        margin=1.0,
    ),
)
"""Orderings that this kind of machine can decide; numbers 1 and 2 are theorems (property tests), 21 and 22 our own."""
