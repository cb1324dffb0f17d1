"""What holds for all tests: properties are tried on the same examples every time.

Whether a change passes must not depend on luck: hypothesis derives its examples from the test itself.
``HYPOTHESIS_PROFILE=random`` draws new ones, as ``make soak`` does. ``--regenerate`` writes anew what the tests
otherwise compare with: ``tests/golden`` and ``docs/errors.md``.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write golden files instead of comparing with them")


@pytest.fixture(scope="session")
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are written."""
    return bool(request.config.getoption("--regenerate"))
