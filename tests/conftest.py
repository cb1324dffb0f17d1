"""What holds for all tests: properties are tried on the same examples every time.

Whether a change passes must not depend on luck: hypothesis derives its examples from the test itself.
``HYPOTHESIS_PROFILE=random`` draws new ones, as ``make soak`` does.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
