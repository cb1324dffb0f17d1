"""The one error class for everything that a user can get wrong, and one for work that failed."""

from __future__ import annotations

MOST = 1200
"""Characters of a sentence: a value that is repeated in it may be a whole file."""


class UserError(Exception):
    """A mistake in what the user gave: one sentence with the file, key or line, the value, and what is allowed.

    The command line prints it without a traceback and exits with code 2. Whatever is not a ``UserError`` is a
    fault of paredown or of the machine.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


class WorkFailed(RuntimeError):
    """The input is right and the work failed for a reason that is known: one sentence, and exit code 1."""

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


def one_line(text: str, most: int = MOST) -> str:
    """Return ``text`` in one line for a terminal: no control characters, and the middle left out where it is long."""
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 3 :]}"


def did_you_mean(word: str, allowed: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed word, or an empty string when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(word[:80], allowed, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
