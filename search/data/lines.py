"""A text file as a sequence of its lines, of any size: only where each line begins is kept in memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from spaces.errors import UserError


class Lines(Sequence[str]):
    """The lines of a UTF-8 file that are not empty, without outer spaces; 8 bytes of memory a line.

    Raises UserError for a file that cannot be read or is not UTF-8. The file must not change while it is in use.
    """

    def __init__(self, file: Path) -> None:
        if not os.path.isfile(file):
            raise UserError(f"{file}: there is no such file")
        self.file, self.starts = file, array("q")
        place = 0
        try:
            with file.open("rb") as stream:
                for line in stream:
                    if self._text(line, place):
                        self.starts.append(place)
                    place += len(line)
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: byte {place + error.start} is not UTF-8 text; save the file as UTF-8") from None
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[str]:
        with self.file.open("rb") as stream:
            yield from filter(None, (self._text(line, number) for number, line in enumerate(stream)))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start = self.starts[index]
        with self.file.open("rb") as stream:
            stream.seek(start)
            return self._text(stream.readline(), start)

    @staticmethod
    def _text(line: bytes, place: int) -> str:
        """Return the text of a line; the first one may begin with a byte order mark."""
        return line.decode("utf-8" if place else "utf-8-sig").strip()
