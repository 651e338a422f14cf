"""The one way to write a file: whole under its name, or not at all."""

import csv
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from path import Path

from files.errors import InputError, WriteError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.part")
_LONGEST_STEM = 58  # characters of up to 4 bytes
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def atomic_write(file: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing; it appears under its name when the block ends without an error.

    The bytes go to a new file with a random name beside it, which is then renamed. A link under the file's own name is
    replaced, never followed. Something that is no regular file, such as /dev/stdout, is written to directly.

    Args:
        durable: the file and its name are on the disk when the block has ended.

    Raises:
        WriteError: the file could not be written; names the file and the system's reason. The file before it is
            untouched.
    """
    file = Path(file)
    if file.exists() and not file.is_file():
        with _explain(file), open(file, "wb") as stream:
            yield stream
        return
    part = _new_part(file)
    try:
        with _explain(file):
            with os.fdopen(os.open(part, _FLAGS, 0o666), "wb") as stream:
                yield stream
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.replace(part, file)
            if durable:
                _sync_folder(file.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


@contextmanager
def atomic_path(file: Path) -> Iterator[Path]:
    """Give a library that opens files by itself a new name to write to; see `atomic_write`.

    The file appears under its name when the block ends without an error.

    Raises:
        WriteError: the file could not be written; names the file and the system's reason.
    """
    file = Path(file)
    part = _new_part(file)
    try:
        with _explain(file):
            yield part
            os.replace(part, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def is_leftover(name: str) -> bool:
    """Whether a file's name is that of an unfinished write, which a killed process leaves behind."""
    return _LEFTOVER.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished writes of killed processes, while the folder's lock is held."""
    for name in os.listdir(folder):
        if is_leftover(name):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file, see `atomic_write`."""
    with atomic_write(file) as stream:
        stream.write(content)


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8, see `atomic_write`. Names that are no UTF-8 are written with backslashes."""
    write_bytes(file, text.encode("utf-8", "backslashreplace"))


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a result as JSON with numbers in full precision, see `atomic_write`."""
    write_text(file, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with the same keys as CSV, the keys as headings, numbers in full precision; see `atomic_write`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())


def keep_copy(file: Path, copy: Path) -> None:
    """Keep a file under a second name: by a hard link, which costs nothing, else by a copy. Replaces the name."""
    part = _new_part(Path(copy))
    try:
        os.link(file, part)
    except OSError:
        with atomic_write(copy, durable=True) as target, open(file, "rb") as source:
            shutil.copyfileobj(source, target)
        return
    try:
        with _explain(copy):
            os.replace(part, copy)
            _sync_folder(Path(copy).parent)
    finally:
        with suppress(OSError):
            os.unlink(part)  # renaming removes it, unless both names are links to one file already


def _new_part(file: Path) -> Path:
    """A new name beside a file. The file's own name is cut: a name may have 255 bytes."""
    return file.parent / f".{file.name[:_LONGEST_STEM]}.{secrets.token_hex(6)}.part"


@contextmanager
def _explain(file: Path) -> Iterator[None]:
    """Turn a failed write into a WriteError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as a RuntimeError
        cause = _system_error(error)
        if cause is None:
            raise
        raise WriteError(f"{file}: could not be written ({cause.strerror or cause})", cause.errno) from None


def _system_error(error: BaseException) -> OSError | None:
    """The operating system's error (no space left), which a library may hide behind its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a renamed file is not before."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
