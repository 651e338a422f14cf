"""Writing the files of a world, so that an error of the system (a full disk) names the file that it concerns."""

import contextlib
import os
from collections.abc import Iterator

from path import Path

from datasets import layout


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file, with its folders. OSError with the file's name if that fails."""
    with _named(file):
        file.parent.makedirs_p()
        file.write_bytes(content)


def write_text(file: Path, text: str) -> None:
    """Write a text file, whole or not at all, unless it has this text already. OSError with the file's name."""
    with _named(file):
        if not file.exists() or file.read_text() != text:
            file.parent.makedirs_p()
            layout.write_text(file, text)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    # The system names a file that cannot be opened, but not one that cannot be written to its end.
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(file)) from None
