"""paredown finds the smallest and fastest student of a fine-tuned transformer that still does the job.

    run = paredown.search("config.yaml")                # or paredown.Run("runs/my-run")
    run.pick(max_drop=1.0).recipe().save("recipe.yaml")
    student = paredown.compress(model, plan)
    model = paredown.load("model/")

Everything is imported on first use. The four packages behind this module have generic names (``spaces``,
``compressors``, ``search``, ``analysis``); at import they are checked to be ours.
"""

from __future__ import annotations

import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.compare import compare
    from analysis.run import Run
    from compressors.api import compress
    from compressors.saving import load
    from search.api import search
    from spaces.errors import UserError

    __version__: str

__all__ = ["Run", "UserError", "__version__", "compare", "compress", "load", "search"]

PACKAGES = ("spaces", "compressors", "search", "analysis")

_HOMES = {
    "Run": "analysis.run",
    "UserError": "spaces.errors",
    "compare": "analysis.compare",
    "compress": "compressors.api",
    "load": "compressors.saving",
    "search": "search.api",
}


def shadowed() -> str | None:
    """Return a sentence about the first of the four packages that is not ours, or None when all are."""
    ours = Path(__file__).resolve().parent
    for name in PACKAGES:
        found = _folder(_spec(name))
        if found is None:
            return f"paredown's package {name!r} is not installed beside {ours}; install paredown again"
        if found != ours / name:
            return (
                f"paredown's package {name!r} is hidden by {found}: "
                "uninstall the distribution that it belongs to, or start from another working directory"
            )
    return _overwritten()


def _overwritten() -> str | None:
    """Hugging Face's ``spaces`` installs into the same folder, over our files."""
    try:
        theirs = distribution("spaces")
    except PackageNotFoundError:
        return None
    return (
        f"the distribution 'spaces' {theirs.version} has the same import name as paredown's package 'spaces': "
        "uninstall it, then install paredown again"
    )


def _spec(name: str) -> ModuleSpec | None:
    loaded = sys.modules.get(name)
    return loaded.__spec__ if loaded is not None else find_spec(name)


def _folder(spec: ModuleSpec | None) -> Path | None:
    if spec is None:
        return None
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    folder = Path(places[0]).resolve() if places else None
    return folder.parent if folder is not None and folder.suffix == ".py" else folder


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("paredown")
    if name not in _HOMES:
        raise AttributeError(f"module 'paredown' has no attribute {name!r}")
    if _refusal is not None:
        raise ImportError(_refusal)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def main() -> None:
    """Run the command ``paredown``."""
    if _refusal is not None:
        print(f"error: {_refusal}", file=sys.stderr)
        sys.exit(2)
    from search.cli import main as run

    run()


_refusal = shadowed()
if _refusal is not None and __name__ != "__main__":
    # a warning and not an error, so that `paredown doctor` and __version__ still answer
    warnings.warn(_refusal, RuntimeWarning, stacklevel=2)

if __name__ == "__main__":
    main()
