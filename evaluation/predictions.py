"""Files of predictions: written whole, read without running code."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from path import Path

from files.atomic import atomic_write
from files.errors import InputError
from files.untrusted import StoredRows, parse_json, read_npz_rows


def default_file(checkpoint: Path, kind: str) -> Path:
    """Where predictions are saved unless told otherwise: beside the checkpoint, `best.pt` -> `best_depth.npz`."""
    return checkpoint.parent / f"{checkpoint.name.split('.')[0]}_{kind}.npz"


def describe_averages(about: Mapping[str, Any]) -> str:
    """What the predictions are means over, for the end of a protocol's line; "" for nothing, or where it is unknown.

    Figures with and without are not comparable, so each line says it.
    """
    averages = {"flip_average": "the mirrored image", "size_average": "other sizes of the image"}
    return "".join(f"; averaged with {what}" for name, what in averages.items() if about.get(name) is True)


@dataclass(frozen=True)
class Rows:
    """An array that is written row by row, as the rows are made."""

    shape: tuple[int, ...]  # [N, ...]
    dtype: type
    rows: Iterable[np.ndarray]  # N of them


class ImageDepths(Mapping[str, np.ndarray]):
    """Depth float32 or float64 [h, w] by image name. Each is read from the file when it is asked for."""

    def __init__(
        self, names: list[str], stored: StoredRows | np.ndarray, convert: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """`convert`: from a row of `stored` to depth."""
        self._places = {name: place for place, name in enumerate(names)}
        self._stored, self._convert = stored, convert

    def __getitem__(self, name: str) -> np.ndarray:
        return self._convert(self._stored[self._places[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def save_predictions(file: Path, kind: str, arrays: Mapping[str, np.ndarray | Rows], about: dict[str, Any]) -> None:
    """Write predictions as `.npz`: whole under their name, or not at all.

    Args:
        kind: what they are ("depth", "snippets"); `load_predictions` expects the same.
        arrays: by name; no Python objects.
        about: how they were made, as JSON.
    """
    content = {"about": np.array(json.dumps({"kind": kind} | about)), **arrays}
    with atomic_write(file) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in content.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(array, Rows):
                    _write_rows(member, array)
                else:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _write_rows(stream: Any, array: Rows) -> None:
    dtype = np.dtype(array.dtype)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    count = 0
    for row in array.rows:
        if row.shape != array.shape[1:]:
            raise ValueError(f"row {count}: got shape {[*row.shape]}, expected {[*array.shape[1:]]}")
        stream.write(np.ascontiguousarray(row, dtype).tobytes())
        count += 1
    if count != array.shape[0]:
        raise ValueError(f"got {count} rows, expected {array.shape[0]}")


def load_predictions(file: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `save_predictions` wrote: (arrays, about); InputError if the file is missing, damaged or something else.

    No code from the file runs, and no memory is taken for a size that only a damaged header claims.
    """
    arrays, _, about = _load(file, kind, "")
    return arrays, about


def load_depth(file: Path) -> tuple[ImageDepths, dict[str, np.ndarray], dict[str, Any]]:
    """Predicted depth [h, w] by image name, the file's other arrays, and how it was made.

    InputError unless the file holds predictions of depth. Depth stays in the file, so that memory does not grow with
    the number of images.
    """
    arrays, depth, about = _load(file, "depth", "depth")
    files = arrays.pop("files", None)
    if files is None or depth is None or files.dtype.kind != "U" or files.ndim != 1:
        found = sorted([*arrays, *(["files"] if files is not None else []), *(["depth"] if depth is not None else [])])
        raise InputError(f"{file}: expected arrays 'files' (names) and 'depth', found {', '.join(found):.200}")
    if depth.ndim != 3 or depth.dtype.kind != "f" or len(depth) != len(files) or 0 in depth.shape:
        raise InputError(f"{file}: depth is {depth.dtype} {[*depth.shape]}, expected [{len(files)}, height, width]")
    names = files.tolist()
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{file}: 'files' names {twice:.100} twice, expected one prediction of each image")
    return ImageDepths(names, depth, _widened), arrays, about


def _widened(depth: np.ndarray) -> np.ndarray:
    """Half precision as float32: its reciprocals and errors would overflow."""
    return depth.astype(np.float32) if depth.dtype == np.float16 else depth


def _load(
    file: Path, kind: str, rows: str
) -> tuple[dict[str, np.ndarray], StoredRows | np.ndarray | None, dict[str, Any]]:
    """The arrays of a file of predictions without that of the name `rows`, that one, and how they were made."""
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        arrays, stored = read_npz_rows(file, rows)
        about = parse_json(str(arrays.pop("about")))
        found = about["kind"]
    except Exception as error:  # zip, zlib, numpy and json each fail in their own ways on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a whole file of predictions ({reason:.200})") from None
    if found != kind:
        raise InputError(f"{file}: holds predictions of kind {found!r:.60}, expected {kind!r}")
    return arrays, stored, about
