"""Arrays that are too many for the memory, in a file that is gone with the process."""

import math
import os
import tempfile

import numpy as np
from path import Path

from files.errors import WriteError


class DiskArray:
    """Arrays of one shape and type in a file without a name, which ends with the process: memory stays constant."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: type) -> None:
        self._folder, self._shape, self._dtype = folder, shape, np.dtype(dtype)
        self._bytes = math.prod(shape) * self._dtype.itemsize
        self._stream = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, array: np.ndarray) -> None:
        content = memoryview(np.ascontiguousarray(array, dtype=self._dtype).tobytes())
        try:
            self._stream.seek(0, os.SEEK_END)
            while content:  # a write may take less than all before the disk is full
                content = content[self._stream.write(content) :]
        except OSError as error:
            raise WriteError(f"{self._folder}: could not be written ({error.strerror})", error.errno) from None
        self._count += 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._count:
            raise IndexError(index)
        self._stream.seek(index * self._bytes)
        return np.fromfile(self._stream, self._dtype, math.prod(self._shape)).reshape(self._shape)
