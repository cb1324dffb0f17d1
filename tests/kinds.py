"""One small student of every kind that a plan may describe."""

from __future__ import annotations

from spaces.lstm import Lstm
from spaces.plan import Choice, Structure, Student
from spaces.signature import Signature

SPARSE = {
    "unstructured": {"kept": 200},
    "n:m": {"n": 2, "m": 4},
    "rows": {"kept": 10},
    "blocks": {"kept": 5},
}
CUTS = {
    "layers": Structure(layers=1),
    "heads": Structure(heads=(2, 3)),
    "ffn": Structure(ffn=(32, 16)),
    "vocabulary": Structure(vocabulary=40),
    "all": Structure(layers=1, heads=(2,), ffn=(24,), vocabulary=40),
}


def plans(signature: Signature) -> dict[str, Student]:
    """Return students that use every method in every pattern, on matrices and on the table of words, and every cut."""
    ffn = [m.path for m in signature.modules if m.role in ("ffn_in", "ffn_out")]
    table = next(m.path for m in signature.modules if m.role == "embedding")

    def everywhere(choice: Choice, *paths: str) -> Student:
        return Student.of(signature.hash, dict.fromkeys(paths, choice))

    methods = {
        "low rank": Choice.of("lowrank", rank=8),
        "low rank + sparse": Choice.of("lowrank+sparse", rank=8, pattern="unstructured", kept=90),
        "low rank + rows": Choice.of("lowrank+sparse", rank=8, pattern="rows", kept=4),
        "pruned low rank": Choice.of("pruned-lowrank", rank=16, kept_up=150, kept_down=170),
        "Kronecker": Choice.of("kronecker", m1=4, n1=4, terms=2),
        "Kronecker, formed": Choice.of("kronecker", m1=4, n1=4, terms=16),
        "block columns": Choice.of("block", pattern="columns", size=8, kept=60),
        "block rows": Choice.of("block", pattern="rows", size=8, kept=60),
        **{f"sparse {name}": Choice.of("sparse", pattern=name, **numbers) for name, numbers in SPARSE.items()},
    }
    matrices = [m.path for m in signature.modules if m.block is not None]
    found = {"every method": Student.of(signature.hash, dict(zip(matrices, methods.values(), strict=True)))}
    found |= {name: everywhere(choice, *ffn) for name, choice in methods.items()}
    words = methods | {"Kronecker": Choice.of("kronecker", m1=15, n1=4, terms=2)}
    words["Kronecker, formed"] = Choice.of("kronecker", m1=15, n1=4, terms=9)
    found |= {f"words: {name}": everywhere(choice, table) for name, choice in words.items()}
    found |= {f"cut {name}": Student.of(signature.hash, {}, structure=cut) for name, cut in CUTS.items()}
    short = {table: Choice.of("lowrank", rank=8), ffn[0]: Choice.of("sparse", pattern="unstructured", kept=99)}
    found["cut and compressed"] = Student.of(signature.hash, short, structure=CUTS["all"])
    found["bfloat16"] = Student.of(signature.hash, {ffn[0]: Choice.of("lowrank", rank=8)}, stored_dtype="bfloat16")
    found["LSTM"] = Student.of(signature.hash, {}, lstm=Lstm(12, 16, 2))
    return found
