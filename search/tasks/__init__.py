"""What a task asks of a model: which class to load, how rows become tokens, and how its outputs are scored."""

from search.kinds import KINDS, Kind
from search.tasks.score import Score
from search.tasks.spec import TaskSpec

__all__ = ["KINDS", "Kind", "Score", "TaskSpec"]
