"""A run folder from a stranger, with markup wherever it can hold text."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'


def put_markup(folder: Path) -> Path:
    """Put markup wherever a stranger's run can hold text."""
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    for row in rows:
        row.update(reason=HOSTILE, host=HOSTILE, device=HOSTILE, **{"p.qkv.method": HOSTILE})
    rows[0]["state"] = "FAIL"
    (folder / "trials.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "importance.json").write_text(json.dumps({HOSTILE: 1.0, "qkv.method": 0.5, "budget": 0.1}))
    pd.DataFrame(
        {"name": [HOSTILE], "kind": ["x"], "accuracy": [0.5], "size_mb": [1.0], "latency_ms": [1.0]}
    ).to_parquet(folder / "baselines.parquet")
    info = json.loads((folder / "run.json").read_text())
    info.update(host={"name": HOSTILE}, data={HOSTILE: {"rows": 3, "hash": HOSTILE}}, started=HOSTILE)
    (folder / "run.json").write_text(json.dumps(info))
    return folder
