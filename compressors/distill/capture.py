"""What the query, key and value projections of a model put out, caught by forward hooks.

Models return attention after the softmax, or nothing at all under fused attention kernels; scores and relations are
made from the projections. The modules are found by the signature's roles, so that any family works whose roles do. A
compressed layer at the same path is caught like the dense one. Rotary positions are applied later and are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from spaces.errors import UserError
from spaces.signature import Signature

PARTS = ("q", "k", "v")
_LETTER = re.compile(r"(?:^|_)(q|k|v)(?:uery|ey|alue)?(?:_?(?:lin|proj|layer))?$", re.IGNORECASE)


def blocks_of(model: nn.Module, signature: Signature) -> int:
    """Return how many of the teacher's blocks ``model`` has, counted from the first."""
    present = {m.block for m in signature.modules if m.block is not None and find(model, m.path) is not None}
    return next(n for n in range(signature.layers + 1) if n not in present)


@contextmanager
def capture(
    model: nn.Module, signature: Signature, names: Collection[str], batch: tuple[int, ...]
) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that a forward pass fills with the outputs named like ``q.3``: [B, T, width], block from 0.

    ``batch`` is (B, T); what a projection is applied to besides the tokens (DeBERTa's distances) is not kept, and of a
    block that runs several times over (ALBERT's) the last is.
    """
    caught: dict[str, Tensor] = {}
    handles = []
    try:
        for block in sorted({int(name.split(".")[1]) for name in names}):
            for path, parts in projections(signature, block).items():
                module = find(model, path)
                wanted = [part for part in parts if f"{part}.{block}" in names]
                if module is None and wanted:
                    raise UserError(f"distillation: the model has no module {path!r} to read {wanted} from")
                if module is not None and wanted:
                    hook = partial(_keep, caught, path, parts, block, signature.head_size, tuple(batch))
                    handles.append(module.register_forward_hook(hook))
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def check_projections(signature: Signature, names: Collection[str]) -> None:
    """Raise UserError where what ``names`` ask for, outputs like ``q.3``, cannot be found in this architecture."""
    for block in sorted({int(name.split(".")[1]) for name in names if name[0] in "qkv"}):
        projections(signature, block)


def projections(signature: Signature, block: int) -> dict[str, tuple[str, ...]]:
    """Return the paths of a block's projections and which of q, k, v each puts out: three of one, or one of three."""
    paths = [m.path for m in signature.modules if m.block == block and m.role == "qkv"]
    if len(paths) == 1:
        return {paths[0]: PARTS}
    found: dict[str, tuple[str, ...]] = {
        path: (match[1].lower(),) for path in paths if (match := _LETTER.search(path.rsplit(".", 1)[-1]))
    }
    if sorted(part for parts in found.values() for part in parts) != sorted(PARTS):
        raise UserError(
            f"distillation.objective: query, key and value of block {block} of {signature.architecture} cannot be told "
            f"apart among {[path.rpartition('.')[2] for path in paths]}; allowed objectives: labels, teacher-labels, "
            "logits, logits+hidden"
        )
    return found


def find(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a path of the teacher; a student holds the same paths under ``model.``."""
    for name in (path, f"model.{path}"):
        try:
            return model.get_submodule(name)
        except AttributeError:
            continue
    return None


def _keep(
    caught: dict[str, Tensor],
    path: str,
    parts: tuple[str, ...],
    block: int,
    head_size: int,
    batch: tuple[int, ...],
    *call: Any,
) -> None:
    output: Tensor = call[-1]
    if tuple(output.shape[:-1]) != batch:
        return
    if len(parts) == 1:
        caught[f"{parts[0]}.{block}"] = output
        return
    if output.shape[-1] % 3:
        raise UserError(f"distillation: {path!r} does not put out query, key and value of one width")
    # BLOOM and GPT-NeoX lay a fused projection out as [heads, 3, size]; everyone else as [3, heads x size].
    if path.endswith("query_key_value"):
        heads = output.reshape(*output.shape[:-1], -1, 3, head_size)
        pieces = tuple(piece.flatten(-2) for piece in heads.unbind(-2))
    else:
        pieces = output.chunk(3, dim=-1)
    for part, piece in zip(parts, pieces, strict=True):
        caught[f"{part}.{block}"] = piece
