"""Arrays that are costly to make, kept on disk for as long as what they were made from stays as it was."""

import json
import math
import os
import threading
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from types import ModuleType
from typing import Any

import numpy as np
from path import Path

_MAGIC = b"cached arrays 1\n"
_BEGIN = len(_MAGIC) + 9  # of what the checksum is of


def default_cache() -> Path:
    """The user's own folder for such things: $XDG_CACHE_HOME/sfmlearner, or ~/.cache/sfmlearner."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "sfmlearner"


def cached(
    folder: Path | None, name: str, key: dict[str, Any], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays by name that `make()` gives, or gave before from the same `key`.

    Args:
        folder: of the cache; None makes them anew and keeps nothing.
        name: what the arrays are of; there is one file for each name, replaced when its key is no longer this one.
        key: all that the arrays depend on, as JSON: `file_states`, `code_state`, settings.

    A damaged file of the cache counts as none. Where the cache can't be written, nothing is kept, and nothing else
    happens: the disk of a home folder may be full while an evaluation could go on.
    """
    if folder is None:
        return make()
    file = folder / f"{sha256(name.encode()).hexdigest()[:32]}.arrays"
    stamp = sha256(json.dumps([name, key], sort_keys=True).encode()).hexdigest()
    arrays = _read(file, stamp)
    if arrays is None:
        arrays = make()
        _write(file, stamp, arrays)
    return arrays


def file_states(files: Iterable[Path]) -> list[list]:
    """What changes when a file does: its path, size, and times of change.

    Unpacking an archive sets the modification time back to that of the archive; the other time can't be set.
    """
    states: list[list] = []
    for file in files:
        status = os.stat(file)
        states.append([str(Path(file).absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    return states


def code_state(*modules: ModuleType) -> str:
    """A hash of the modules' source: what other code made is not taken for what this would make."""
    return sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()


def _read(file: Path, stamp: str) -> dict[str, np.ndarray] | None:
    """The arrays of a file of the cache; None unless it is whole and has this stamp."""
    try:
        data = file.read_bytes()
        if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : _BEGIN] != _checksum(data[_BEGIN:]):
            return None
        end = data.index(b"\n", _BEGIN)
        header = json.loads(data[_BEGIN:end])
        if header["stamp"] != stamp:
            return None
        arrays, start = {}, end + 1
        for name, dtype, shape in header["arrays"]:
            arrays[name] = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
            start += arrays[name].nbytes
        return arrays
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, stamp: str, arrays: dict[str, np.ndarray]) -> None:
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    shapes = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    body = json.dumps({"stamp": stamp, "arrays": shapes}).encode() + b"\n" + content
    part = Path(f"{file}.{os.getpid()}-{threading.get_ident()}.part")  # threads and other runs may make the same
    try:
        file.parent.makedirs_p()
        part.write_bytes(_MAGIC + _checksum(body) + body)
        part.rename(file)
    except OSError:
        with suppress(OSError):
            part.unlink_p()


def _checksum(body: bytes) -> bytes:
    return b"%08x\n" % zlib.crc32(body)
