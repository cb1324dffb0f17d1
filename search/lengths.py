"""Texts longer than the teacher can read, told from the header of its weights before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from search.backbone import resolve
from search.config import Config
from spaces.errors import UserError
from spaces.tensors import read_header

POSITIONS = re.compile(r"(position_embeddings|wpe|embed_positions)\.weight$")
"""Tables with a row for each position; a teacher with relative positions has none and no such end."""


def check_lengths(config: Config) -> None:
    """Raise UserError when texts, or the batch that is timed, are longer than the teacher's table of positions.

    Only a teacher in a local folder is looked at; a run is resumed also where its backbone is gone.
    """
    try:
        weights = Path(resolve(config.teacher.model)) / "model.safetensors"
    except UserError:  # said by who loads it
        return
    if not weights.is_file():
        return
    most = min((t.shape[0] for t in read_header(weights) if POSITIONS.search(t.name)), default=None)
    asked = {"task.max_length": config.task.max_length, "latency.sequence_length": config.latency.sequence_length}
    for key, length in asked.items():
        if most is not None and length > most:
            raise UserError(f"{key}: {length}, but the teacher {config.teacher.model} reads at most {most} tokens")
