"""The tensors that an LSTM student of a training script begins with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from compressors.lstm import lstm_tensors
from search.hf_script.settings import STUDENT
from search.hf_script.start import Start


def state_of(start: Start) -> dict[str, Tensor]:
    """Return every tensor of the student's file: the teacher's words in fewer dimensions, and new layers."""
    student: Any = SimpleNamespace(init=STUDENT["init"])
    sizes: Any = SimpleNamespace(**STUDENT["lstm"])
    return lstm_tensors(student, sizes, start)  # type: ignore[arg-type]
