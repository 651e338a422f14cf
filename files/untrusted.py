"""Reading files that may be damaged or crafted: each size that a file claims is checked before memory is taken for it.

`InputError` comes from the functions that are given a file. The others are given content and raise `ValueError`; their
callers name the file.
"""

import io
import json
import math
import re
import struct
import zipfile
from typing import IO, Any

import numpy as np
from path import Path

from files.errors import InputError

# 8K video has 7680 x 4320 = 2^25 pixels. A decoded image of twice that takes 200 MB, and reading it below 1 GB.
MOST_PIXELS = 2**26
_LONGEST_JSON = 16 * 2**20  # characters; Python takes up to 25 bytes for each
_DEEPEST_JSON = 32  # nested lists and objects; the project's own files have at most 6
_LONGEST_NPY_HEADER = 10_000  # bytes; NumPy's own limit
# DEFLATE reaches 1032 : 1 on zeros. Depth maps of a LiDAR, of which 95 % of the pixels are unknown, reach about 25 : 1.
_MOST_UNPACKED_PER_BYTE = 100
_ALWAYS_UNPACKED = 256 * 2**20  # bytes that a small archive may unpack to, whatever its ratio
_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def read_bounded(file: Path, most: int, kind: str) -> bytes:
    """The content of a file of at most `most` bytes.

    Args:
        kind: what the file should be, for the error: "an image".

    Raises:
        InputError: no such file, or a larger one.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.size > most:
        raise InputError(f"{file}: {file.size >> 20} MiB, expected {kind} of at most {most >> 20} MiB")
    with open(file, "rb") as stream:
        return stream.read(file.size or most)  # not `most`: Python takes the memory first. Some files claim no size.


def one_line(error: Exception) -> str:
    """The reason that an exception gives, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def check_pixels(width: int, height: int) -> None:
    """ValueError for an image or a depth map of more than `MOST_PIXELS`, or of none."""
    if not 1 <= width * height <= MOST_PIXELS:
        raise ValueError(
            f"{width} x {height} pixels, expected at most {MOST_PIXELS} (twice an 8K video frame); make it smaller"
        )


def parse_json(text: str, allow_nan: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        allow_nan: take NaN and Infinity, which Python writes and JSON does not know.

    Raises:
        ValueError: a damaged text, or one that is long or deeply nested.
    """
    if len(text) > _LONGEST_JSON:
        raise ValueError(f"{len(text)} characters of JSON, expected at most {_LONGEST_JSON}")
    depth = 0
    for token in _JSON_TOKEN.finditer(
        text
    ):  # before Python's parser, which recurses, and crashes where stacks are small
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > _DEEPEST_JSON:
            raise ValueError(f"more than {_DEEPEST_JSON} nested lists and objects")
    return json.loads(text, parse_constant=None if allow_nan else _refuse_constant)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def open_zip(file: Path) -> zipfile.ZipFile:
    """A zip file (`.npz`), open, whose members unpack to a plausible number of bytes.

    Raises:
        ValueError: the members claim more, or are packed otherwise than NumPy does.
        zipfile.BadZipFile: no zip file, or a damaged one.
    """
    archive = zipfile.ZipFile(file)
    try:
        members = archive.infolist()
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise ValueError("packed otherwise than NumPy's .npz")
        claimed, packed = sum(member.file_size for member in members), Path(file).size
        if claimed > max(_ALWAYS_UNPACKED, _MOST_UNPACKED_PER_BYTE * packed):
            raise ValueError(
                f"claims {claimed} bytes in {packed}, expected at most {_MOST_UNPACKED_PER_BYTE} times as many; "
                "store it without compression (np.savez)"
            )
    except BaseException:
        archive.close()
        raise
    return archive


class StoredRows:
    """An array [N, ...] that stays in its file: a row is read when it is asked for, so memory does not grow with N.

    Threads may read at once.
    """

    def __init__(self, file: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """The values begin at byte `offset`, in C order."""
        self.shape, self.dtype = shape, dtype
        self._file, self._offset = file, offset

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(number)
        count = math.prod(self.shape[1:])
        place = self._offset + number * count * self.dtype.itemsize
        values = np.fromfile(self._file, self.dtype, count, offset=place)
        if len(values) < count:
            raise InputError(f"{self._file}: became shorter while it was read")
        return values.reshape(self.shape[1:])


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and length in bytes of the header of a `.npy` file. Leaves the stream behind the header.

    ValueError for a damaged header, and for one of an unknown version.
    """
    return _read_header(stream)[:3]


def read_npy(stream: IO[bytes], size: int) -> np.ndarray:
    """The array in a `.npy` file of `size` bytes: numbers or text, never Python objects.

    Args:
        stream: seekable, at the beginning of the file.

    Raises:
        ValueError: damaged, or the array has another size than the header claims.
    """
    _read_fitting_header(stream, size)
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def read_npy_rows(file: Path) -> StoredRows | np.ndarray:
    """The array in a `.npy` file, as `read_npy`; where its rows lie one after another, they stay in the file."""
    with open(file, "rb") as stream:
        shape, dtype, header, fortran = _read_fitting_header(stream, file.size)
    if shape and not fortran and not dtype.hasobject:
        return StoredRows(file, header, shape, dtype)
    with open(file, "rb") as stream:
        return read_npy(stream, file.size)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int, bool]:
    """What `read_npy_header` returns, and whether the array is in Fortran's order."""
    start = io.BytesIO(stream.read(_LONGEST_NPY_HEADER))
    version = np.lib.format.read_magic(start)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(start)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(start)
    else:
        raise ValueError(f"version {version[0]}.{version[1]} of .npy, expected 1.0 or 2.0")
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {[*shape]}")
    stream.seek(start.tell())
    return shape, dtype, start.tell(), fortran


def _read_fitting_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype, int, bool]:
    """The header of a `.npy` file of `size` bytes; ValueError if its array has another size."""
    shape, dtype, header, fortran = _read_header(stream)
    claimed = math.prod(shape) * dtype.itemsize
    if header + claimed != size:
        raise ValueError(f"the header claims {claimed} bytes, found {max(0, size - header)}")
    if claimed == 0 and shape and shape[0] > 0:  # [10^9, 0] takes no bytes, but a list of its rows takes 8 GB
        raise ValueError(f"shape {[*shape]} of type {dtype} holds no values")
    return shape, dtype, header, fortran


def read_npz_rows(file: Path, name: str) -> tuple[dict[str, np.ndarray], StoredRows | np.ndarray | None]:
    """The arrays in a `.npz` file without the one of this name, and that one, which stays in the file.

    All are numbers or text, never Python objects. A compressed array is read whole. Checksums are compared in all
    cases.

    Raises:
        ValueError: an array has another size than it claims, or the file claims implausibly much (see `open_zip`).
        Exception: zipfile, zlib and NumPy fail on damage each in their own ways.
    """
    arrays: dict[str, np.ndarray] = {}
    rows: StoredRows | np.ndarray | None = None
    with open_zip(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                shape, dtype, header, fortran = _read_fitting_header(stream, member.file_size)
            wanted = member.filename.removesuffix(".npy") == name
            # Opened again: some versions of Python compare no checksum after a step back.
            with archive.open(member) as stream:
                if wanted and shape and not (fortran or dtype.hasobject) and member.compress_type == zipfile.ZIP_STORED:
                    while stream.read(2**20):  # the checksum is compared at the end
                        pass
                    rows = StoredRows(file, _offset_of(archive, member) + header, shape, dtype)
                    continue
                array = np.lib.format.read_array(stream, allow_pickle=False)
            if wanted:
                rows = array
            else:
                arrays[member.filename.removesuffix(".npy")] = array
    return arrays, rows


def _offset_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The byte of the file at which a stored member's content begins: behind its own header, name and extra field."""
    with open(str(archive.filename), "rb") as stream:
        stream.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", stream.read(4))
    return member.header_offset + 30 + name + extra
