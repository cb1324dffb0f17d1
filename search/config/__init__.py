"""The config of a search: one YAML file plus dotted overrides, checked key by key before anything runs."""

from search.config.load import config_from, load_config
from search.config.models import (
    Baselines,
    Columns,
    Confirm,
    Data,
    Distillation,
    EarlyStopping,
    Fidelity,
    Final,
    FineTune,
    Latency,
    LstmStudent,
    Resources,
    Run,
    Search,
    Space,
    Structure,
    Task,
    Teacher,
)
from search.config.resume import same_run_or_difference
from search.config.root import Config

__all__ = [
    "Baselines",
    "Columns",
    "Config",
    "Confirm",
    "Data",
    "Distillation",
    "EarlyStopping",
    "Fidelity",
    "Final",
    "FineTune",
    "Latency",
    "LstmStudent",
    "Resources",
    "Run",
    "Search",
    "Space",
    "Structure",
    "Task",
    "Teacher",
    "config_from",
    "load_config",
    "same_run_or_difference",
]
