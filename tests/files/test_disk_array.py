import numpy as np
import pytest
from path import Path

from files.disk_array import DiskArray


def test_disk_array(tmp_path):
    array = DiskArray(Path(tmp_path), (2, 3), np.float32)
    values = np.random.default_rng(0).random((5, 2, 3)).astype(np.float32)
    for value in values:
        array.append(value)
    np.testing.assert_array_equal(array[3], values[3])
    assert len(array) == 5
    assert list(Path(tmp_path).files()) == []  # nothing to be left behind
    with pytest.raises(IndexError):
        array[5]
