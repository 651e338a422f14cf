"""Arrays of numbers in MATLAB 5 files (`.mat`).

SciPy's reader crashes the process where two bytes of such a file are damaged (the type of an element), and takes memory
for whatever an element claims. This one reads plain arrays of floating-point numbers, and checks each size first.

The format is that of The MathWorks' "MAT-File Format". A header of 128 bytes is followed by elements. An element is a
tag (type and size, 4 bytes each) and its content. A matrix is an element of elements: flags, shape, name and numbers,
each padded to 8 bytes. Content of up to 4 bytes may stand in the tag. A compressed element holds a matrix.
"""

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_HEADER = 128  # bytes
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15  # types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_KINDS = ("cell", "struct", "object", "char", "sparse", "double", "single", "int8", "uint8", "int16", "uint16") + (
    *("int32", "uint32", "int64", "uint64"),
)  # classes of matrices, from 1 on
_FLOATING = {"double": np.float64, "single": np.float32}
_COMPLEX = 0x0800  # a matrix's flag
_NAME = re.compile(r"[A-Za-z]\w{0,62}", re.ASCII)


@dataclass(frozen=True)
class Variable:
    """A matrix in a file. Its numbers are not read before `values`."""

    name: str
    shape: tuple[int, ...]
    kind: str  # MATLAB's class: "double", "single", "int32", "cell", ...
    byte_order: str  # "<" or ">"
    content: bytes  # the elements behind the name

    def values(self) -> np.ndarray:
        """The array: float64 of a double, float32 of a single.

        Raises:
            ValueError: a matrix of another kind, or damaged.
        """
        if self.kind not in _FLOATING:
            raise ValueError(f"{self.name} is of kind {self.kind}, expected double or single")
        kind, data, _ = _read_element(self.content, 0, self.byte_order)
        if kind not in _NUMBERS:  # MATLAB stores whole numbers in the smallest type that holds them
            raise ValueError(f"{self.name} has elements of type {kind:#x}, expected numbers")
        numbers = np.frombuffer(data, self.byte_order + _NUMBERS[kind])
        if numbers.size != math.prod(self.shape):
            raise ValueError(f"{self.name} has {numbers.size} numbers, expected {math.prod(self.shape)}")
        with np.errstate(all="ignore"):  # of a damaged file; nothing that MATLAB wrote overflows
            return numbers.reshape(self.shape, order="F").astype(_FLOATING[self.kind])


def read_variables(data: bytes, most: int) -> Iterator[Variable]:
    """The matrices of a MATLAB 5 file in its order.

    Args:
        data: the file's content.
        most: bytes that all compressed elements may unpack to.

    Raises:
        ValueError: no such file, damaged, or it unpacks to more.
        zlib.error: a compressed element is damaged.
    """
    if data.startswith(b"MATLAB 7.3"):
        raise ValueError("it is of version 7.3, which is HDF5; save it by MATLAB's save -v7")
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("no such header")
    order = "<" if data[126:128] == b"IM" else ">"
    position = _HEADER
    while position < len(data):
        kind, element, position = _read_element(data, position, order, padded=False)
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(element, most + 1)
            most -= len(unpacked)
            if most < 0:
                raise ValueError("it unpacks to more than its kind of file needs")
            kind, element, _ = _read_element(
                unpacked, 0, order
            )  # MATLAB reads it with bytes to spare behind the matrix
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind:#x}, expected a matrix")
        yield _read_variable(element, order)


def _read_element(data: bytes, position: int, order: str, padded: bool = True) -> tuple[int, bytes, int]:
    """(type, content, position of the next element) of the element at a position; ValueError if it exceeds `data`."""
    if position + 8 > len(data):
        raise ValueError("it ends within an element's tag")
    kind, size = struct.unpack_from(f"{order}II", data, position)
    if kind >> 16:  # up to 4 bytes of content in the tag itself
        kind, size, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        if size > 4:
            raise ValueError(f"an element claims {size} bytes in its tag")
    else:
        start = position + 8
        end = start + size + (-size % 8 if padded else 0)
        if start + size > len(data):
            raise ValueError(f"it ends {start + size - len(data)} bytes too early")
    return kind, data[start : start + size], end


def _read_variable(matrix: bytes, order: str) -> Variable:
    kind, flags, position = _read_element(matrix, 0, order)
    if kind != _UINT32 or len(flags) != 8:
        raise ValueError("a matrix without flags")
    word = struct.unpack_from(f"{order}I", flags)[0]
    if word & _COMPLEX or not 1 <= word & 0xFF <= len(_KINDS):
        raise ValueError(f"a matrix with the flags {word:#x}, expected real numbers")
    kind, shape, position = _read_element(matrix, position, order)
    if kind != _INT32 or len(shape) % 4:
        raise ValueError("a matrix without a shape")
    sides = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    kind, name, position = _read_element(matrix, position, order)
    text = name.decode("latin1")
    if kind != _INT8 or not _NAME.fullmatch(text) or min(sides, default=-1) < 0:
        raise ValueError("a matrix without a name or with a negative side")
    return Variable(text, sides, _KINDS[(word & 0xFF) - 1], order, matrix[position:])
