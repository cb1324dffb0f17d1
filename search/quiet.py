"""Silence for libraries: their progress bars and load reports say nothing to who runs our commands.

Our own warnings go through ``warnings`` or standard error and stay.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def quiet() -> None:
    """Silence transformers, datasets and the hub in this process and those that it starts.

    Called at the start of a command and of a worker. What the user has set in the environment stays in force; nothing
    is imported.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for library in ("transformers", "datasets"):
        module = sys.modules.get(library)
        if module is not None:  # imported before: it has read its variables already
            logging = module.utils.logging
            if os.environ[f"{library.upper()}_VERBOSITY"] == "error":
                logging.set_verbosity_error()
            logging.disable_progress_bar()
