"""Latency as a config's section says it, in one sitting with the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.device import device_of

if TYPE_CHECKING:
    from compressors.meter import Meter, Timing
    from search.config import Latency

FIELDS = {"latency_ms": "ms", "latency_ms_p10": "p10", "latency_ms_p90": "p90"}


@dataclass(frozen=True)
class Sitting:
    """A meter whose reference is the teacher (or, ``alone``, the student itself)."""

    meter: Meter

    def against(self, student: Any) -> tuple[dict[str, float], dict[str, float]]:
        """Return the wall-clock latency columns of ``student`` and those of the teacher, measured in turns."""
        theirs, ours = self.meter.sitting({"teacher": self.meter.teacher, "student": student})
        return {**columns(ours), "latency_ratio": ours.ms / theirs.ms}, columns(theirs)

    def alone(self) -> dict[str, float]:
        """Return the latency columns of the reference."""
        return columns(self.meter.quiet())


def meter_of(reference: Any, target: Latency) -> Sitting:
    """Return a sitting with ``reference`` at the batch shape, threads and device of ``target``."""
    from compressors.meter import Meter

    device = device_of(target.device)
    return Sitting(Meter(reference, target.batch_size, target.sequence_length, target.threads, device))


def columns(timing: Timing) -> dict[str, float]:
    """Return milliseconds under their column names."""
    return {name: float(getattr(timing, field)) for name, field in FIELDS.items()}
