"""The one error class for everything that a user can get wrong."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: one sentence with the file, key or line, the value, and what is allowed.

    The command line prints it without a traceback and exits with code 2. Whatever is not a ``UserError`` is a
    fault of paredown or of the machine.
    """


def did_you_mean(word: str, allowed: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed word, or an empty string when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
