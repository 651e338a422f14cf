"""Files that `torch.save` wrote, read as dense tensors and plain values. No code from a file runs.

`torch.load(weights_only=True)` runs no code either, but a file of a kilobyte can make it take all memory, and it trusts
the sizes of storages. This reader knows only the instructions and names that a checkpoint of weights needs. It checks
every size against the file before it takes memory, and what it makes stays in proportion to the file.
"""

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
import torch
from path import Path
from torch import Tensor

from files.errors import InputError

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")  # NumPy's names of its types
_KEYS = (str, int, float, bool, type(None))  # types of a dict's keys
_MOST_DIMENSIONS = 64  # PyTorch's own limit
# Bytes; the names in a checkpoint of a large network take a hundredth of it. A byte makes up to 130 bytes of objects.
_LARGEST_PICKLE = 16 * 2**20
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that the older format begins with

# The instructions of a pickle that torch.save writes. BUILD, SETITEM and SETITEMS are defined below.
_INSTRUCTIONS = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BINPERSID),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINFLOAT, pickle.BINUNICODE, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
)
_PythonUnpickler: Any = pickle._Unpickler


def read_torch_file(file: Path) -> dict[str, Any]:
    """The dict in a file of `torch.save`: tensors on the CPU, numbers, strings, lists and dicts.

    Both of PyTorch's formats are read, and NumPy's numbers, which become Python's.

    Raises:
        InputError: no such file, damaged, or something else than dense tensors and plain values.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file, expected a checkpoint")
    try:
        with open(file, "rb") as stream:
            beginning = stream.read(len(_LEGACY_MAGIC))
        if beginning[:4] != b"PK\x03\x04" and beginning != _LEGACY_MAGIC:
            raise _RefusedError("it does not begin as a file of torch.save")
        content = _read_legacy(file) if beginning == _LEGACY_MAGIC else _read_zip(file)
    except _RefusedError as error:
        raise InputError(f"{file}: not a checkpoint of tensors and plain values: {error}") from None
    except Exception as error:  # damage fails in the unpickler, in zipfile or in torch in many ways
        raise InputError(f"{file}: damaged, or not a checkpoint ({type(error).__name__} while reading it)") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a checkpoint: it holds a {type(content).__name__}, expected a dict")
    return content


class _RefusedError(Exception):
    """The file holds something that is not loaded."""


def _read_zip(file: Path) -> Any:
    """PyTorch's format since version 1.6: an archive of a pickle and a member for each storage."""
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        claimed = sum(member.file_size for member in members.values())
        # torch.save compresses nothing, so its files are as large on the disk as in memory.
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members.values())
        if not stored or claimed > file.size:
            raise _RefusedError("its parts claim more than the file holds")
        (root,) = (name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl"))
        if members[f"{root}data.pkl"].file_size > _LARGEST_PICKLE:
            raise _RefusedError(f"its list of names is larger than {_LARGEST_PICKLE >> 20} MiB")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise _RefusedError("it was written on a big-endian machine")
        storages: dict[str, Tensor] = {}

        def load_storage(identity: Any) -> Tensor:
            dtype, key, count = _describe_storage(identity)
            if key not in storages:
                data = bytearray(archive.read(f"{root}data/{key}"))
                storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            return _check_storage(storages[key], dtype, count)

        return _Unpickler(BytesIO(archive.read(f"{root}data.pkl")), load_storage).load()


def _read_legacy(file: Path) -> Any:
    """PyTorch's format before version 1.6, in which the field's older checkpoints were published.

    Pickles of a magic number, the format's version, the machine, the content and the keys of the storages; then each
    storage as its number of values and the values.
    """
    storages: dict[str, Tensor] = {}
    claimed = 0  # bytes

    def load_storage(identity: Any) -> Tensor:
        nonlocal claimed
        dtype, key, count = _describe_storage(identity)
        if key not in storages:
            claimed += count * dtype.itemsize
            if claimed > file.size:
                raise _RefusedError("a storage claims more values than the file holds")
            storages[key] = torch.empty(count, dtype=dtype)
        return _check_storage(storages[key], dtype, count)

    with open(file, "rb") as stream:
        pickles = BytesIO(stream.read(_LARGEST_PICKLE))
        _, _, machine, content, keys = (_Unpickler(pickles, load_storage).load() for _ in range(5))
        if machine["little_endian"] is not True:
            raise _RefusedError("it was written on a big-endian machine")
        if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
            raise _RefusedError("its list of storages is not that of its tensors")
        stream.seek(pickles.tell())
        for key in keys:
            values = storages[key].view(torch.uint8).numpy()
            (count,) = struct.unpack("<q", stream.read(8))
            if count != len(storages[key]) or stream.readinto(values.data) != values.size:
                raise _RefusedError("a storage claims more values than the file holds")
    return content


def _describe_storage(identity: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of values of the storage that a pickle refers to."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
        raise _RefusedError("it refers to something that is no storage")
    kind, dtype, key, _, count, *view = identity
    known = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(key, str)
    if not known or type(count) is not int or count < 0 or any(part is not None for part in view):
        raise _RefusedError("it refers to something that is no storage")
    return dtype, key, count


def _check_storage(storage: Tensor, dtype: torch.dtype, count: int) -> Tensor:
    if storage.dtype != dtype or storage.numel() < count:
        raise _RefusedError("a storage claims more values than the file holds")
    return storage


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage with at most as many values. In the older format the values come later."""
    shapes = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MOST_DIMENSIONS
    if not shapes or not isinstance(storage, Tensor) or any(type(n) is not int or n < 0 for n in (offset, *size)):
        raise _RefusedError("a tensor has an impossible shape")
    if math.prod(size) > storage.numel():
        raise _RefusedError("a tensor claims more values than its storage has")
    return storage.as_strided(size, stride, offset)  # as_strided checks that it lies inside


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _empty_dict() -> OrderedDict:
    return OrderedDict()


class _NumberType:
    """The dtype of a NumPy number."""

    def __init__(self, code: str) -> None:
        self.code = code


def _number_type(code: Any, *_: Any) -> _NumberType:
    if code not in _NUMBERS:
        raise _RefusedError("it holds a NumPy value that is no number")
    return _NumberType(code)


def _number(kind: Any, data: Any) -> Any:
    """A NumPy number as Python's. Its bytes are little-endian, as on every machine that PyTorch runs on."""
    if not isinstance(kind, _NumberType) or not isinstance(data, bytes):
        raise _RefusedError("it holds a NumPy value that is no number")
    return np.frombuffer(data, "<" + kind.code, 1)[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Python 3 writes bytes in this way for Python 2. The bytes of a number are few."""
    if encoding != "latin1" or not isinstance(text, str) or len(text) > 16:
        raise _RefusedError("it holds bytes that are no number")
    return text.encode("latin1")


# Every object that a pickle may name. Each function takes memory in proportion to its arguments' size in the pickle.
_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _empty_dict,  # its items follow by SETITEMS
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("numpy", "dtype"): _number_type,
    ("_codecs", "encode"): _encode,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    **{("torch.cuda", name): dtype for name, dtype in _DTYPES.items()},
}


def _refuse_instruction(unpickler: Any) -> None:
    raise _RefusedError("its pickle has an instruction that torch.save does not write")


def _set_item(unpickler: Any) -> None:
    value, key = unpickler.stack.pop(), unpickler.stack.pop()
    _add_items(unpickler.stack[-1], [(key, value)])


def _set_items(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    _add_items(unpickler.stack[-1], zip(items[::2], items[1::2], strict=True))


def _add_items(content: Any, items: Iterable[tuple[Any, Any]]) -> None:
    """Plain keys only: the hash of nested tuples takes time without end, or crashes Python."""
    for key, value in items:
        if not isinstance(content, dict) or type(key) not in _KEYS:
            raise _RefusedError(f"it holds a key of type {type(key).__name__}, expected text or numbers")
        content[key] = value


def _ignore_state(unpickler: Any) -> None:
    """BUILD sets an object's attributes: those of an OrderedDict or of a NumPy dtype, which are not needed."""
    unpickler.stack.pop()


class _Unpickler(_PythonUnpickler):
    """Python's own unpickler with the instructions and the names of a checkpoint of weights.

    It is the one in Python and not the one in C, which takes memory for the largest index that a pickle names.
    """

    dispatch: ClassVar[dict] = (
        dict.fromkeys(range(256), _refuse_instruction)
        | {code[0]: _PythonUnpickler.dispatch[code[0]] for code in _INSTRUCTIONS}
        | {pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items, pickle.BUILD[0]: _ignore_state}
    )

    def __init__(self, stream: BytesIO, load_storage: Callable[[Any], Tensor]) -> None:
        super().__init__(stream)
        self.persistent_load = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _RefusedError(
                f"it names {f'{module}.{name}'!r:.60}; only dense tensors and plain values are loaded, since others "
                "could run code"
            )
        return _NAMES[module, name]
