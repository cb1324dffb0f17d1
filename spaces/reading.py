"""Text and JSON from strangers: bounded in size, and one sentence for whatever is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spaces.errors import UserError

MAX_TEXT_BYTES = 1_000_000_000
MAX_JSON_BYTES = 100_000_000
MOST_DIGITS = 300


def _integer(digits: str) -> int:
    """Return a whole number; one that no float can hold is refused, since further code takes every number for one."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


def read_text(file: Path, most: int = MAX_TEXT_BYTES) -> str:
    """Return the text of a UTF-8 file of at most ``most`` bytes; raises UserError for anything else."""
    try:
        if not file.is_file():  # also a pipe or a device, which would never end
            raise UserError(f"{file}: {'this is no file' if file.exists() else 'there is no such file'}")
        size = file.stat().st_size
        if size > most:
            raise UserError(f"{file}: the file has {size:,} bytes; at most {most:,} are read")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def parse_json(text: str | bytes, where: str) -> Any:
    """Return the value of a JSON text; raises UserError, which names the text as ``where``, for anything else."""
    try:
        value = _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
        if "\\ud" in (text if isinstance(text, str) else text.decode("utf-8", "replace")).lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise UserError(f"{where}: not JSON that can be read: it has half a character, such as \\ud800") from None
    except RecursionError:
        raise UserError(f"{where}: not JSON that can be read: its values are nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def read_json(file: Path, most: int = MAX_JSON_BYTES) -> Any:
    """Return the value in a JSON file; raises UserError when it cannot be read or is no JSON."""
    text = read_text(file, most)
    if "\\u0000" in text:  # it would end a path in the middle
        raise UserError(f"{file}: a character \\u0000 stands in a text, which is allowed nowhere")
    return parse_json(text, str(file))


def read_mapping(file: Path, most: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file; raises UserError for anything else."""
    value = read_json(file, most)
    if not isinstance(value, dict):
        raise UserError(f"{file}: expected an object of keys and values, found {type(value).__name__}")
    return value
