import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io

from datasets.formats.matlab import read_variables

MOST = 2**20
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def saved(compressed=False, **arrays):
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays, do_compression=compressed)
    return stream.getvalue()


def only(data, most=MOST):
    (variable,) = read_variables(data, most)
    return variable


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


ZEROS = element(9, bytes(48))


def matrix(flags=6, shape=(2, 3), name=b"depth", numbers=ZEROS, shape_type=5):
    parts = element(6, struct.pack("<II", flags, 0)), element(shape_type, struct.pack(f"<{len(shape)}i", *shape))
    return HEADER + element(14, b"".join(parts) + element(1, name) + numbers)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 3, 4), (0, 3)])
def test_arrays_are_read_as_scipy_reads_them(compressed, dtype, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    data = saved(compressed, a_long_name_of_a_variable=array, b=array + 1)
    first, second = read_variables(data, MOST)
    assert (first.name, first.shape, second.name) == ("a_long_name_of_a_variable", shape, "b")
    assert first.kind == ("double" if dtype is np.float64 else "single")
    assert first.values().dtype == dtype
    np.testing.assert_array_equal(first.values(), array)
    np.testing.assert_array_equal(second.values(), scipy.io.loadmat(io.BytesIO(data))["b"])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_whole_numbers_stand_in_smaller_types(dtype):
    code = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9}[dtype]
    numbers = np.arange(6).astype(dtype)
    values = only(matrix(numbers=element(code, numbers.tobytes()))).values()
    np.testing.assert_array_equal(values, np.arange(6.0).reshape(3, 2).T)
    assert values.dtype == np.float64


def test_numbers_may_stand_in_the_tag():
    small = struct.pack("<HH4B", 2, 3, 7, 8, 9, 0)
    assert only(matrix(shape=(1, 3), numbers=small)).values().tolist() == [[7, 8, 9]]


def test_other_kinds_are_listed_and_not_read():
    data = saved(cell=np.array([["a"]], dtype=object), text="words", counts=np.arange(3))
    variables = list(read_variables(data, MOST))
    assert [(variable.name, variable.kind) for variable in variables] == [
        ("cell", "cell"),
        ("text", "char"),
        ("counts", "int64"),
    ]
    with pytest.raises(ValueError, match="cell is of kind cell, expected double or single"):
        variables[0].values()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (matrix(numbers=element(0x8000, bytes(48))), "elements of type 0x8000, expected numbers"),
        (matrix(numbers=element(14, bytes(48))), "elements of type 0xe, expected numbers"),
        (matrix(numbers=element(9, bytes(40))), "5 numbers, expected 6"),
        (matrix(numbers=element(9, bytes(44))), "buffer size"),
        (matrix(numbers=b""), "ends within an element's tag"),
        (matrix(numbers=struct.pack("<II", 9, 48)), "48 bytes too early"),
        (matrix(numbers=struct.pack("<HHI", 2, 5, 0)), "claims 5 bytes in its tag"),
        (matrix(shape=(2**31 - 1,) * 4), "expected 212"),
        (matrix(shape=(-2, -3)), "negative side"),
        (matrix(shape=()), "negative side"),
        (matrix(shape_type=0x8000), "without a shape"),
        (matrix(name=b""), "without a name"),
        (matrix(name=b"a\nb"), "without a name"),
        (matrix(flags=0x0806), "flags 0x806, expected real numbers"),
        (matrix(flags=99), "flags 0x63"),
        (HEADER + element(14, b""), "ends within"),
        (HEADER + element(0x8000, bytes(48)), "of type 0x8000, expected a matrix"),
        (HEADER + bytes(4), "ends within"),
        (HEADER + element(15, zlib.compress(bytes(2**21))), "unpacks to more"),
        (HEADER[:100], "no such header"),
    ],
)
def test_damage_is_an_error(data, message):
    with pytest.raises(ValueError, match=message):
        only(data).values()


def test_all_elements_together_are_bounded():
    packed, size = zlib.compress(matrix()[128:]), len(matrix()) - 128
    data = HEADER + 3 * (struct.pack("<II", 15, len(packed)) + packed)
    assert len(list(read_variables(data, 3 * size))) == 3
    with pytest.raises(ValueError, match="unpacks to more"):
        list(read_variables(data, 3 * size - 1))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("compressed", [False, True])
def test_no_mutation_crashes_the_process(compressed):
    """1000 mutations of the elements' tags and content, also within what is compressed."""
    random = np.random.default_rng(0)
    plain = matrix() + matrix(shape=(3, 2), name=b"other")[128:]
    whole = 0
    for _ in range(1000):
        data = bytearray(plain)
        for position in random.integers(128, len(data), random.integers(1, 4)):
            data[position] = random.choice([0, 1, 5, 9, 14, 15, 0x7F, 0x80, 0xFF, random.integers(256)])
        if random.random() < 0.2:
            del data[random.integers(len(data)) :]
        if compressed:
            packed = zlib.compress(data[128:])
            data = HEADER + struct.pack("<II", 15, len(packed)) + packed
        try:
            values = [variable.values() for variable in read_variables(bytes(data), MOST)]
        except (ValueError, zlib.error):
            continue
        assert all(array.size == 6 or array.size == 0 for array in values)
        whole += 1
    assert 50 < whole < 950
