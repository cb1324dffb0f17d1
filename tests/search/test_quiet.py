"""Libraries are silent, what the user asked for stays, and nothing heavy is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from search.quiet import VARIABLES

QUIET = "from search.quiet import quiet\nquiet()\n"


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**kept, **variables})


def test_loading_and_saving_a_model_says_nothing(backbone: Path, tmp_path: Path) -> None:
    importing = "from transformers import AutoModelForSequenceClassification as A\n"
    loading = f"A.from_pretrained({str(backbone)!r}).save_pretrained({str(tmp_path)!r})\n"
    done = run(QUIET + importing + loading)
    assert done.stdout + done.stderr == ""
    mark = "import sys; print('@', file=sys.stderr)\n"
    before, after = run(importing + loading + QUIET + mark + loading).stderr.split("@")
    assert "MISSING" in before
    assert after.strip() == ""


def test_what_the_user_set_stays_and_nothing_is_imported() -> None:
    shown = "print(os.environ['TRANSFORMERS_VERBOSITY'], {'transformers', 'torch', 'datasets'} & set(sys.modules))"
    code = f"import os, sys\n{QUIET}{shown}"
    assert run(code, TRANSFORMERS_VERBOSITY="info").stdout == "info set()\n"
