"""Many depth maps in one file, as monodepth2 (gt_depths.npz) and related code bases export them."""

import pickle
import re
from typing import IO, Any, ClassVar

import numpy as np
from path import Path

from files.errors import InputError
from files.untrusted import check_pixels, one_line, open_zip, read_npy, read_npy_header

_LARGEST_FILE = 8 * 2**30  # bytes in memory; the 697 maps of the Eigen split at full size are 1.3 GB
_NUMBER_TYPE = re.compile("[fiu][1248]")  # NumPy's codes of floating-point numbers and integers
# What NumPy's pickles of arrays need, and nothing else: no other instruction makes objects or takes memory.
_ALLOWED_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
    *(pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.MARK, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_TUPLE),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
    *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
)
_PythonUnpickler: Any = pickle._Unpickler
_ALLOWED_CODES = {opcode[0] for opcode in _ALLOWED_OPCODES}


def read_depth_archive(file: Path) -> list[np.ndarray]:
    """The depth maps of a `.npy` or `.npz` in its order: arrays [H, W] in metres, 0 = unknown.

    The file holds one array: of numbers [N, H, W], or of N arrays where their sizes differ. NumPy stores the latter as
    a pickle, which could run code. This reader loads arrays of numbers from it, and refuses everything else.

    Raises:
        InputError: the file is missing, damaged or something else.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        with open(file, "rb") as stream:
            maps = _read_zipped(file) if stream.read(4) == b"PK\x03\x04" else _read_array(stream, file.size)
        for index, depth in enumerate(maps):
            _check_map(depth, f"depth map {index}")
    except Exception as error:  # zip, zlib, pickle and NumPy each fail in their own ways on damage
        raise InputError(f"{file}: not a file of depth maps ({one_line(error)})") from None
    return maps


def _check_map(depth: Any, name: str) -> None:
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind != "f":
        found = f"{depth.dtype} {[*depth.shape]}" if isinstance(depth, np.ndarray) else type(depth).__name__
        raise ValueError(f"{name} is {found}, expected floating-point numbers [H, W]")
    check_pixels(depth.shape[1], depth.shape[0])
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise ValueError(f"{name} has depths that are negative or not finite")


def _read_zipped(file: Path) -> list[Any]:
    with open_zip(file) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise ValueError(f"{len(members)} arrays, expected one")
        with archive.open(members[0]) as stream:
            return _read_array(stream, members[0].file_size)


def _read_array(stream: IO[bytes], size: int) -> list[Any]:
    """The maps in a `.npy` file of `size` bytes. An array of objects may hold other things than arrays."""
    if size > _LARGEST_FILE:
        raise ValueError(f"{size} bytes, expected at most {_LARGEST_FILE}")
    stream.seek(0)
    shape, dtype, _ = read_npy_header(stream)
    if dtype.hasobject:
        maps = _ArraysOnly(stream).load_maps()
        if sum(depth.nbytes for depth in maps if isinstance(depth, np.ndarray)) > size:
            raise ValueError("names the same array many times")
        return maps
    if len(shape) != 3:
        raise ValueError(f"shape {[*shape]}, expected [N, H, W]")
    stream.seek(0)
    return list(read_npy(stream, size))


class _ArraysOnly(_PythonUnpickler):
    """Unpickles arrays of numbers. A pickle can call no other name.

    The base is Python's own unpickler. The one in C takes memory for the largest index that a pickle names.
    """

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _PickledArray | _PickledType):
            raise pickle.UnpicklingError("it sets the state of something else than an array")
        self.stack[-1].__setstate__(state)

    dispatch: ClassVar[dict] = {
        code: load for code, load in _PythonUnpickler.dispatch.items() if code in _ALLOWED_CODES
    } | {pickle.BUILD[0]: load_build}

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self.encoded: dict[str, bytes] = {}

    def load_maps(self) -> list[Any]:
        try:
            array = self.load()
        except KeyError as error:
            raise pickle.UnpicklingError(f"instruction {error} of its pickle, which arrays do not need") from None
        if not isinstance(array, _PickledArray) or not isinstance(array.content, list):
            raise ValueError("expected an array of depth maps")
        if len(array.shape) == 3:  # NumPy stores the numbers of maps of one size one by one
            return list(np.fromiter(array.content, np.float32).reshape(array.shape))
        return [item.content if isinstance(item, _PickledArray) else item for item in array.content]

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
            ("numpy", "ndarray"): None,  # named in the arguments of _reconstruct, which ignores them
            ("numpy", "dtype"): _PickledType,
            ("_codecs", "encode"): self.encode,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it holds {f'{module}.{name}':.60}, expected arrays of numbers alone")
        return known[module, name]

    def encode(self, text: str, encoding: str) -> bytes:
        """How Python 3 writes bytes for Python 2. A text that the pickle names many times is encoded once."""
        if text not in self.encoded:
            self.encoded[text] = text.encode("latin1")
        return self.encoded[text]


class _PickledType:
    """An array's type in a pickle: NumPy calls it with a code, and sets its byte order as its state."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        if not _NUMBER_TYPE.fullmatch(self.code) or self.order not in ("|", "<", ">"):
            raise ValueError(f"an array of type {self.code!r:.20}, expected numbers")
        return np.dtype(self.order.replace("|", "<") + self.code)


class _PickledArray:
    """An array in a pickle: NumPy makes it empty, and sets its content as its state."""

    content: Any = None
    shape: tuple[int, ...] = ()

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, kind, is_fortran, data = state
        if isinstance(data, list):  # an array of objects
            self.content = data
        else:
            self.content = np.frombuffer(data, kind.dtype()).reshape(self.shape, order="F" if is_fortran else "C")
