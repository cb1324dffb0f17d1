"""The forecast: what a search of a config would find, cost and reach, told without training anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.backbone import resolve
from search.config import Config
from search.data import TaskData, load_data
from search.forecast.limits import check_limits
from search.proposing.warm import check_sources
from search.quiet import quiet
from search.tasks import TaskSpec
from search.teacher.folder import ends_once, label_order
from search.workers.finish import PRESET_SHARES, UNIFORM_BUDGETS
from spaces.cost import Cost, cost, teacher_cost
from spaces.curves import Curves
from spaces.groups import find_groups, find_ungrouped, free_groups
from spaces.lstm_space import LstmSpace
from spaces.space import Space

if TYPE_CHECKING:
    from search.forecast.rehearse import Pace
    from spaces.signature import Signature

STARTING_S = 30.0
"""What a search does once besides training: starting Ray, calibrating, measuring teacher and front in quiet."""


@dataclass(frozen=True)
class Forecast:
    """What a search would be. Sizes in MB (10^6 bytes), times in seconds.

    ``groups`` and ``excluded`` count groups by kind, ``ungrouped`` says what has none; ``lstm`` has the sizes of LSTM
    students, which have no groups;
    ``constraints`` says of each whether it can be met; ``teacher_s`` is the fine-tuning that is still to be done.
    """

    teacher: str
    teacher_mb: float
    groups: dict[str, int]
    excluded: dict[str, int]
    ungrouped: str
    lstm: dict[str, tuple[int, ...]]
    smallest_mb: float
    largest_mb: float
    constraints: dict[str, str]
    trials: int
    baselines: int
    trial_s: float
    concurrent: int
    teacher_s: float
    measured: bool
    disk_mb: float

    @property
    def total_s(self) -> float:
        """Seconds of the whole search, baselines included, if no trial is stopped early."""
        rounds = -(-(self.trials + self.baselines) // self.concurrent)
        return STARTING_S + self.teacher_s + rounds * self.trial_s

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**asdict(self), "total_s": self.total_s}

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of a table."""
        how = "measured in two training steps" if self.measured else "estimated from FLOPs"
        first = f" (with {duration(self.teacher_s)} for the teacher)" if self.teacher_s else ""
        return [
            ("teacher", f"{self.teacher}, {self.teacher_mb:.2f} MB"),
            *self._kind_rows(),
            ("smallest student", f"{self.smallest_mb:.2f} MB"),
            ("largest student", f"{self.largest_mb:.2f} MB"),
            *((f"constraint {name}", text) for name, text in self.constraints.items()),
            ("trials", f"{self.trials} x about {duration(self.trial_s)} ({how}), {self.concurrent} at a time"),
            ("time", f"at most about {duration(self.total_s)}{first}; weak trials stop early"),
            ("disk", f"up to about {self.disk_mb:,.0f} MB in run and cache"),
        ]

    def _kind_rows(self) -> list[tuple[str, str]]:
        if self.lstm:
            ends = {name: f"{s[0]} to {s[-1]}" if len(s) > 1 else f"{s[0]}" for name, s in self.lstm.items()}
            return [("student", f"bidirectional LSTM: {', '.join(f'{name} {text}' for name, text in ends.items())}")]
        return [
            ("groups", f"{sum(self.groups.values())} to compress: {_counted(self.groups)}"),
            ("left dense", _counted(self.excluded) or "none"),
            *([("without a group", self.ungrouped)] if self.ungrouped else []),
        ]


def forecast(config: Config) -> Forecast:
    """Return the forecast of ``config``; nothing is trained.

    Data come first, so that their mistakes are said before anything heavy is imported. Raises UserError for what the
    user has to mend, also for a limit on size, FLOPs or parameters that no student of the space can meet.
    """
    check_sources(config)
    data = load_data(config.task, label_order(config.teacher))
    spec = TaskSpec.of(config.task, data.labels, one_end=ends_once(resolve(config.teacher.model)))
    quiet()
    from search.forecast.rehearse import expected_teacher, rehearse, word_count
    from search.workspace import check_teaching, make_space

    teacher = expected_teacher(config, spec, data)
    check_teaching(config, teacher.signature)
    curves = Curves.flat(teacher.signature, word_count(config, spec, data, teacher))
    unbounded = make_space(config.model_copy(update={"constraints": {}}), teacher.signature, curves)
    check_limits(unbounded, config.constraints, config.latency.sequence_length)
    space = make_space(config, teacher.signature, curves)
    smallest, largest = (_cost_at(space, share, config) for share in (0.0, 1.0))
    pace = rehearse(config, spec, data, teacher, space)
    groups = find_groups(teacher.signature) if isinstance(space, Space) else []
    free = {group.name for group in free_groups(groups, config.space.exclude)} if groups else set()
    concurrent = concurrent_trials(config)
    return Forecast(
        teacher=f"{teacher.signature.architecture} from {_name(config)}",
        teacher_mb=teacher_cost(teacher.signature, sequence_length=1).size_mb,
        groups=dict(Counter(group.kind for group in groups if group.name in free)),
        excluded=dict(Counter(group.kind for group in groups if group.name not in free)),
        ungrouped=find_ungrouped(teacher.signature).sentence() if isinstance(space, Space) else "",
        lstm=space.offered if isinstance(space, LstmSpace) else {},
        smallest_mb=smallest.size_mb,
        largest_mb=largest.size_mb,
        constraints=_verdicts(config),
        trials=config.search.trials,
        baselines=len(UNIFORM_BUDGETS) + len(PRESET_SHARES) * len(config.baselines.presets),
        trial_s=pace.trial_s,
        concurrent=concurrent,
        teacher_s=pace.teacher_s,
        measured=pace.measured,
        disk_mb=_disk_mb(config, data, teacher.signature, (smallest, largest), concurrent, pace),
    )


def concurrent_trials(config: Config) -> int:
    """Return how many trials this machine runs at a time."""
    from search.forecast.rehearse import cores

    fitting = max(1, int(cores() / config.resources.cpu))
    if config.resources.gpu:
        import torch

        fitting = min(fitting, max(1, int(torch.cuda.device_count() / config.resources.gpu)))
    wanted = config.search.max_concurrent
    return min(fitting if wanted == "auto" else wanted, fitting, config.search.trials)


def duration(seconds: float) -> str:
    """Return a time as people say it: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cost_at(space: Space | LstmSpace, share: float, config: Config) -> Cost:
    return cost(space.student_at(share), space.signature, sequence_length=config.latency.sequence_length)


def _verdicts(config: Config) -> dict[str, str]:
    known = ("size_mb", "params", "flops")
    return {
        name: f"{bound:g}: {'can be met' if name in known else 'known only by measuring'}"
        for name, bound in config.constraints.items()
    }


def _disk_mb(
    config: Config, data: TaskData, signature: Signature, costs: tuple[Cost, Cost], concurrent: int, pace: Pace
) -> float:
    """Return what run and cache take at the end: teachers, factors, teacher outputs, the front and what runs.

    Full-length factors of a matrix take up to twice its size; a running trial keeps weights, averages and moments.
    """
    teacher = teacher_cost(signature, sequence_length=1).size_mb
    middle: float = (costs[0].size_mb * costs[1].size_mb) ** 0.5
    names = {name for names in (config.space.methods, *config.space.own_methods.values()) for name in names}
    decomposed = sum("sparse" not in name or "lowrank" in name for name in names - {"dense"})
    front = min(config.search.trials, 20) * middle
    return teacher * (1 + 2 * max(decomposed, 1)) + front + 4 * middle * concurrent + pace.targets_mb


def _name(config: Config) -> str:
    name = config.teacher.model
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
