"""Many depth maps in one file, as other code bases export them: monodepth2's gt_depths.npz and its kin."""

import io
import pickle
import zipfile
from typing import Any

import numpy as np
from path import Path

from files.errors import InputError

_LARGEST_FILE = 8 * 2**30  # bytes in memory; the 697 maps of the Eigen split at full size are 1.3 GB


def read_depth_archive(file: Path) -> list[np.ndarray]:
    """The depth maps [H, W] of a `.npy` or `.npz`, in its order: metres, 0 = unknown.

    It holds one array: of numbers [N, H, W], or of N arrays where their sizes differ. Numpy stores the latter as a
    pickle, which could run code; what is read here of a pickle is arrays of numbers and nothing else.

    InputError if the file is missing, damaged or something else.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        if zipfile.is_zipfile(file):
            maps = _read_zipped(file)
        else:
            with open(file, "rb") as stream:
                maps = _read_array(stream.read(_LARGEST_FILE))
    except Exception as error:  # zip, zlib, pickle and numpy each fail in their own ways on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a file of depth maps ({reason})") from None
    for index, depth in enumerate(maps):
        if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind != "f":
            found = f"{depth.dtype} {[*depth.shape]}" if isinstance(depth, np.ndarray) else type(depth).__name__
            raise InputError(f"{file}: depth map {index} is {found}, expected numbers [H, W]")
        if not np.isfinite(depth).all() or (depth < 0).any():
            raise InputError(f"{file}: depth map {index} has depths that are negative or not finite")
    return maps


def _read_zipped(file: Path) -> list[np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise ValueError(f"{len(members)} arrays, expected one")
        if members[0].file_size > min(_LARGEST_FILE, 1032 * file.size):  # no byte of a zip file can stand for more
            raise ValueError(f"claims {members[0].file_size} bytes")
        return _read_array(archive.read(members[0]))


def _read_array(data: bytes) -> list[np.ndarray]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read_header[version](stream)
    if dtype.hasobject:
        array = _ArraysOnly(stream).load()
        if not isinstance(array, np.ndarray) or array.ndim not in (1, 3):
            raise ValueError("expected an array of depth maps")
        return [np.asarray(depth, dtype=np.float32) if array.ndim == 3 else depth for depth in array]
    if len(shape) != 3:
        raise ValueError(f"shape {[*shape]}, expected [N, H, W]")
    count = len(data) - stream.tell()
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != count:
        raise ValueError(f"claims {[*shape]} numbers in {count} bytes")
    stream.seek(0)
    return list(np.lib.format.read_array(stream, allow_pickle=False))


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays of numbers, and knows no other name that a pickle could call."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module == "_codecs" and name == "encode":  # how Python 3 writes bytes for Python 2
            return _encode
        raise pickle.UnpicklingError(f"it holds {module}.{name}, expected arrays of numbers alone")


def _empty_array(kind: type, shape: tuple, code: bytes) -> np.ndarray:
    """What numpy's pickles begin an array with; its content, which comes after, is checked against its size."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")
