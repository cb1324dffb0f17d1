"""The entry point: runs a command and turns every failure into one sentence and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from typing import TYPE_CHECKING

from spaces.errors import UserError, WorkFailed, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, FAILED, WRONG_INPUT = 0, 1, 2

REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says of a place that the user has to change, whichever code came upon it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``paredown`` with ``arguments`` (default: those of the process) and exit.

    Exit code 0: done; 1: the work failed; 2: the user's input is wrong. ``--debug`` shows tracebacks.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    sys.exit(_run([word for word in given if word != "--debug"], debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    from search.cli.app import app
    from search.quiet import quiet

    quiet()
    try:
        app(arguments, prog_name="paredown")  # exits by itself, also with 2 for words that it does not understand
    except UserError as error:
        return _say(error, WRONG_INPUT, debug=debug)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; Python would complain about it at exit
        return FAILED
    except Exception as error:
        return _failed(error, debug=debug)
    return DONE


def _failed(error: Exception, *, debug: bool) -> int:
    """Say in one sentence what failed; only what the code did not foresee needs its traceback, in a file."""
    from analysis.pick import NothingFits
    from search.workers.memory import is_out_of_memory

    if isinstance(error, NothingFits | WorkFailed):
        return _say(error, FAILED, debug=debug)
    if is_out_of_memory(error):
        what = one_line(str(error), 200) or "no amount named"
        return _say(f"there is too little memory ({what}); take a smaller batch or model", FAILED, debug=debug)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"the disk is full ({error.filename or 'no file named'})"
        return _say(f"{what}; free some space and give the same command again", FAILED, debug=debug)
    if isinstance(error, OSError) and error.errno in REFUSED and error.filename is not None:
        return _say(
            one_line(f"{error.filename}: cannot be read or written ({error.strerror})"), WRONG_INPUT, debug=debug
        )
    where = "" if debug else f" ({_write_log(error)}--debug shows the traceback)"
    return _say(f"{one_line(f'{type(error).__name__}: {error}', 400)}{where}", FAILED, debug=debug)


def _say(error: object, code: int, *, debug: bool) -> int:
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    return code


def _write_log(error: Exception) -> str:
    """Keep the traceback and say where; nothing where the cache cannot be written."""
    from search.paths import cache_folder

    try:
        file = cache_folder() / "last-error.log"
        file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except (OSError, UserError):
        return ""
    return f"the traceback is in {file}; "
