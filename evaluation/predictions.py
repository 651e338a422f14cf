"""Files of predictions: written whole, read without running code."""

import json
import math
import os
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from path import Path

from files.atomic import atomic_write
from files.errors import InputError

_DEFLATE_LIMIT = 1032  # no byte of a zip file can stand for more

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = 32
) -> Iterator[Result]:
    """`function(item)` of all items in their order, computed by `workers` threads, at most `ahead` items ahead.

    An error comes where its item would have come. (Decoding and numpy's large operations run side by side in threads.)
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def default_file(checkpoint: Path, kind: str) -> Path:
    """Where predictions are saved unless told otherwise: beside the checkpoint, `best.pt` -> `best_depth.npz`."""
    return checkpoint.parent / f"{checkpoint.name.split('.')[0]}_{kind}.npz"


def check_writable(file: Path, flag: str) -> None:
    """InputError if `file` cannot be written: better known before an hour's work than after it."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{flag} {file}: no such folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: no permission to write there; choose another place with {flag} FILE")
    if file.is_dir():
        raise InputError(f"{flag} {file}: is a folder, expected a file's name")


def save_predictions(file: Path, kind: str, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write predictions as `.npz`: whole under their name, or not at all.

    Args:
        kind: what they are ("depth", "snippets"); `load_predictions` expects the same.
        arrays: by name; no Python objects.
        about: how they were made, as JSON.
    """
    content: dict[str, Any] = {"about": np.array(json.dumps({"kind": kind} | about)), **arrays}
    with atomic_write(file) as stream:
        np.savez(stream, **content)


def load_predictions(file: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `save_predictions` wrote: (arrays, about); InputError if the file is missing, damaged or something else.

    No code from the file runs, and no memory is taken for a size that only a damaged header claims.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        with zipfile.ZipFile(file) as archive:
            arrays = {
                member.filename.removesuffix(".npy"): _read_array(archive, member, file.size)
                for member in archive.infolist()
            }
        about = json.loads(str(arrays.pop("about")), parse_constant=_refuse)
        found = about["kind"]
    except Exception as error:  # zip, zlib, numpy and json each fail in their own ways on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a whole file of predictions ({reason:.200})") from None
    if found != kind:
        raise InputError(f"{file}: holds predictions of kind {found!r}, expected {kind!r}")
    return arrays, about


def load_depth(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Predicted depth [h, w] by image name, and how it was made; InputError unless the file holds that."""
    arrays, about = load_predictions(file, "depth")
    return depth_by_name(arrays, file), about


def depth_by_name(arrays: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """The depth [h, w] of each image, from the arrays of a file of predictions of depth; InputError if they aren't."""
    files, depth = arrays.get("files"), arrays.get("depth")
    if files is None or depth is None or files.dtype.kind != "U" or files.ndim != 1:
        raise InputError(f"{file}: expected arrays 'files' (names) and 'depth', found {', '.join(sorted(arrays))}")
    if depth.ndim != 3 or depth.dtype.kind != "f" or len(depth) != len(files):
        raise InputError(f"{file}: depth is {depth.dtype} {[*depth.shape]}, expected [{len(files)}, height, width]")
    return dict(zip(files.tolist(), depth, strict=True))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")  # Python's reader would take it, and no writer of ours


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, archive_size: int) -> np.ndarray:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](stream)
        claimed = math.prod(shape) * dtype.itemsize
        if stream.tell() + claimed != member.file_size or member.file_size > _DEFLATE_LIMIT * archive_size:
            raise ValueError(f"{member.filename} claims {claimed} bytes and has {member.file_size}")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
