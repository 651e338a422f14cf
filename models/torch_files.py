"""Files that `torch.save` wrote, read as tensors and plain values, whoever made them.

`torch.load(weights_only=True)` runs no code, but a file of a kilobyte can make it take all memory, and it trusts the
sizes of storages. This reader knows the few names that a checkpoint of weights needs, and checks every size against the
file before memory is taken.
"""

import pickle
import types
import zipfile
from collections import OrderedDict
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
_NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")
_LARGEST_PICKLE = 64 * 2**20  # bytes; that of the largest published checkpoint is a thousandth of it
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that the older format begins with
# Instructions of a pickle that make objects by other ways than the names below, or take memory for a claimed size.
_REFUSED_OPCODES = (
    *(pickle.BYTEARRAY8, pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2),
    *(pickle.EXT4, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
_PythonUnpickler: Any = pickle._Unpickler
_REFUSED_CODES = {opcode[0] for opcode in _REFUSED_OPCODES}


def read_torch_file(file: Path) -> dict[str, Any]:
    """The dict in a file of `torch.save`: tensors on the CPU, numbers, strings, lists and dicts.

    Both of PyTorch's formats are read, and NumPy's numbers, which become Python's. No code from the file runs.

    Raises:
        InputError: no such file, damaged, or something else than tensors and plain values.
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


class _PlainUnpickler(_PythonUnpickler):
    """Python's own unpickler without most of its instructions and with the names of `_find` alone.

    It is the one in Python and not the one in C, which takes memory for the largest index that a pickle names.
    """

    dispatch: ClassVar[dict] = {
        code: load for code, load in _PythonUnpickler.dispatch.items() if code not in _REFUSED_CODES
    }

    def find_class(self, module: str, name: str) -> Any:
        return _find(module, name)


def _find(module: str, name: str) -> Any:
    known = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("numpy.core.multiarray", "scalar"): _number,
        ("numpy._core.multiarray", "scalar"): _number,
        ("numpy", "dtype"): _NumberType,
        ("_codecs", "encode"): _latin1,
    }
    if (module, name) in known:
        return known[module, name]
    if module in ("torch", "torch.cuda") and name in _DTYPES:
        return _DTYPES[name]
    raise _RefusedError(f"it names {f'{module}.{name}':.60}; nothing else is loaded, since it could run code")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, which may not be larger than the storage. (In the older format its values come later.)"""
    storage = storage if isinstance(storage, Tensor) else _legacy_storage(storage)
    shape, strides = tuple(map(int, size)), tuple(map(int, stride))
    if int(np.prod(shape, dtype=object)) > storage.numel() or min((offset, *shape, *strides)) < 0:
        raise _RefusedError("a tensor claims more values than its storage has")
    return storage.as_strided(shape, strides, int(offset))  # as_strided checks that it lies inside


def _legacy_storage(storage: Any) -> Tensor:
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)


class _NumberType:
    """The dtype of a NumPy number."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _NUMBERS:
            raise _RefusedError("it holds a NumPy value that is no number")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment: NumPy's numbers are little-endian on every machine that PyTorch runs on."""


def _number(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _NumberType) or not isinstance(data, bytes):
        raise _RefusedError("it holds a NumPy value that is no number")
    return np.frombuffer(data, "<" + kind.code, 1)[0].item()


def _latin1(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in pickles that Python 2 can read."""
    if encoding != "latin1" or not isinstance(text, str):
        raise _RefusedError("it encodes text, which a checkpoint does not need")
    return text.encode("latin1")


def _read_zip(file: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        claimed = sum(member.file_size for member in members.values())
        # torch.save compresses nothing, so its files are as large on the disk as in memory.
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members.values())
        if not stored or claimed > file.size:
            raise _RefusedError("its parts claim more than the file holds")
        (root,) = (name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl"))
        if members[f"{root}data.pkl"].file_size > _LARGEST_PICKLE:
            raise _RefusedError("its list of names is larger than that of any checkpoint")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise _RefusedError("it was written on a big-endian machine")
        storages: dict[str, Tensor] = {}

        def load_storage(identity: Any) -> Tensor:
            _, dtype, key, _, count = identity
            if key not in storages:
                data = bytearray(archive.read(f"{root}data/{key}"))
                storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if storages[key].dtype != dtype or storages[key].numel() < count:
                raise _RefusedError("a storage claims more values than the file holds")
            return storages[key]

        unpickler: Any = _PlainUnpickler(BytesIO(archive.read(f"{root}data.pkl")), encoding="utf-8")
        unpickler.persistent_load = load_storage
        return unpickler.load()


def _read_legacy(file: Path) -> Any:
    """PyTorch's format before version 1.6, in which the field's older checkpoints were published."""

    class Unpickler(_PlainUnpickler):
        def find_class(self, module: str, name: str) -> Any:
            return _find(module, name)

        def load_binpersid(self) -> None:
            identity = self.stack[-1]
            if isinstance(identity, tuple) and identity[0] == "storage":
                _, kind, _, _, count, *_ = identity
                if kind.dtype not in _DTYPES.values():
                    raise _RefusedError(f"it holds values of type {kind.dtype}")
                if not isinstance(count, int) or count < 0 or count * kind.dtype.itemsize > file.size:
                    raise _RefusedError("a storage claims more values than the file holds")
            super().load_binpersid()

        dispatch = _PlainUnpickler.dispatch | {pickle.BINPERSID[0]: load_binpersid}

    def load(stream: Any, **options: Any) -> Any:
        return Unpickler(stream, **options).load()

    module = types.SimpleNamespace(Unpickler=Unpickler, load=load, __name__="plain_pickle")
    return torch.load(file, map_location="cpu", pickle_module=module, weights_only=False)
