import io
import json
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from path import Path

from files.errors import InputError
from files.untrusted import (
    MOST_PIXELS,
    check_pixels,
    one_line,
    open_zip,
    parse_json,
    read_bounded,
    read_npy,
    read_npy_header,
    read_npz_rows,
)

ROOT = Path(__file__).absolute().parent.parent.parent


@pytest.fixture
def file(tmp_path):
    return Path(tmp_path) / "file"


def npy(array, version=(1, 0)):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def npy_header(shape, descr="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


# Files, pixels, reasons


def test_a_file_is_read_up_to_its_limit(file):
    file.write_bytes(b"12345")
    assert read_bounded(file, 5, "a note") == b"12345"
    with pytest.raises(InputError, match=r"file: 0 MiB, expected a note of at most 0 MiB"):
        read_bounded(file, 4, "a note")
    for missing in (file.parent, file.parent / "none"):
        with pytest.raises(InputError, match="no such file"):
            read_bounded(missing, 5, "a note")


def test_an_8k_frame_is_no_crafted_size():
    check_pixels(7680, 4320)
    check_pixels(MOST_PIXELS, 1)
    for size in ((13300, 13300), (0, 5), (MOST_PIXELS + 1, 1)):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels, expected at most"):
            check_pixels(*size)


def test_a_reason_is_one_short_line():
    assert one_line(ValueError("a\n b")) == "a b"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 10**6))) == 200


# JSON


@pytest.mark.parametrize(
    "value", [{"a": [1, {"b": [2.5, None]}]}, [], "]]][[[", 'a "quoted" \\ [', {"[" * 99: "{" * 99}]
)
def test_json_comes_back(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "more than 32 nested"),
        ('{"a":' * 100_000, "more than 32 nested"),
        ('["\\"", ' + "[" * 33, "more than 32 nested"),
        ("[NaN]", "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ("9" * 5000, "digits"),
        ("", "Expecting value"),
        ('"' + '\\"' * 10**6, "Unterminated string"),  # a scan that restarts at each quote would take hours
        (" " * (2**24 + 1), "characters of JSON"),
    ],
    ids=lambda text: text[:12],
)
def test_json_that_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


# .npy


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.array("text"),
    np.array(["a", "ä"]),
    np.zeros((0, 4)),
    np.asfortranarray(np.eye(3)),
]


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_arrays_come_back(array, version):
    content = npy(array, version)
    np.testing.assert_array_equal(read_npy(io.BytesIO(content), len(content)), array)
    stream = io.BytesIO(content)
    shape, dtype, length = read_npy_header(stream)
    assert (shape, dtype) == (array.shape, array.dtype)
    assert length == stream.tell() == len(content) - array.nbytes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_header((10**6, 10**6)), "claims 4000000000000 bytes, found 0"),
        (npy_header((2, 3)) + bytes(23), "claims 24 bytes, found 23"),
        (npy_header((2, 3)) + bytes(25), "claims 24 bytes, found 25"),
        (npy_header((-2, -3)) + bytes(24), r"shape \[-2, -3\]"),
        (npy_header((900_000_000, 0, 5)), "holds no values"),
        (npy_header((900_000_000,), "<U0"), "holds no values"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{" + bytes(100), "array header"),
        (b"\x93NUMPY\x03\0" + bytes(100), r"version 3\.0"),
        (b"no array", "magic"),
    ],
)
def test_arrays_that_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_npy(io.BytesIO(content), len(content))


def test_objects_are_refused():
    stream = io.BytesIO()
    np.save(stream, np.array([None, print]), allow_pickle=True)
    stream.seek(0)
    with pytest.raises(ValueError):
        read_npy(stream, len(stream.getvalue()))


# .npz


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_archives_come_back(file, write):
    arrays = {"depth": np.arange(6.0).reshape(2, 3), "about": np.array("{}")}
    with open(file, "wb") as stream:
        write(stream, **arrays)
    found, _ = read_npz_rows(file, "")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_constant_maps_may_be_compressed(file):
    with open(file, "wb") as stream:
        np.savez_compressed(stream, depth=np.full((4, 375, 1242), 7.0))
    assert read_npz_rows(file, "")[0]["depth"].max() == 7


def test_an_archive_that_unpacks_to_more_than_its_bytes_can_mean(file):
    member = npy_header((75, 2**20)) + bytes(300 * 2**20)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", member)
    with pytest.raises(ValueError, match=rf"claims {len(member)} bytes in \d+, expected at most 100 times as many"):
        open_zip(file)


def test_an_archive_that_is_packed_otherwise(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("depth.npy", npy(np.zeros(3)))
    with pytest.raises(ValueError, match="packed otherwise"):
        open_zip(file)


# Memory that a reader takes for a file with large claims, measured in a process of its own

MEASURE = """
import resource, sys
from path import Path
from {module} import {reader} as read
from files.errors import InputError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
try:
    read(Path(sys.argv[1]))
except InputError as error:
    print(error)
print((peak() - before) // 1024)
"""


def measure(reader, file):
    """The lines of MEASURE for a reader ("module.function"): its error, if any, and the memory that it took in MiB."""
    module, _, name = reader.rpartition(".")
    code = MEASURE.format(module=module, reader=name)
    result = subprocess.run([sys.executable, "-c", code, file], cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def png(width, height, depth, colour, content, padding=0):
    """A PNG whose pixels unpack to `content` bytes of zeros, with a comment of `padding` bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"tEXt", b"a\0" + bytes(padding)) + chunk(b"IDAT", zlib.compress(bytes(content)))
    )
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def zipped(member):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", member)
    return stream.getvalue()


def pickled(array):
    header = npy_header((array.size,), "|O")
    return header + pickle.dumps(array, protocol=4)


def many_names_of_one_map():
    maps = np.empty(10**6, object)
    maps[:] = [np.zeros((100, 100), np.float32)] * maps.size
    return pickled(maps)


def a_view_without_bytes():
    class View:
        def __reduce__(self):
            return np.ndarray, ((60_000, 60_000), "f4", b"1234", 0, (0, 0))

    maps = np.empty(2, object)
    maps[:] = [View(), View()]
    return pickled(maps)


DEPTH, ARCHIVE = "datasets.layout.read_depth", "datasets.formats.depth_archive.read_depth_archive"
CLAIMS = {  # reader, content, message, MiB
    "a depth map of no columns": (DEPTH, lambda: npy_header((900_000_000, 0)), "900000000 pixels", 32),
    "a depth map of 7.2 GB": (DEPTH, lambda: npy_header((30_000, 60_000)), "60000 x 30000 pixels", 32),
    "many depth maps of no rows": (ARCHIVE, lambda: npy_header((900_000_000, 0, 5)), "holds no values", 32),
    "many names of one map": (ARCHIVE, many_names_of_one_map, "many times", 200),
    "a view of four bytes": (ARCHIVE, a_view_without_bytes, "not a file of depth maps", 32),
    "a zip of 0.4 GB": (
        ARCHIVE,
        lambda: zipped(npy_header((200, 1000, 500)) + bytes(400_000_000)),
        r"claims 4000001\d\d bytes in .* expected at most 100 times as many",
        32,
    ),
    "a PNG of 13300 x 13300": (
        "files.images.read_image",
        lambda: png(13_300, 13_300, 8, 2, 2**20, padding=172_000),
        "13300 x 13300 pixels, expected at most",
        32,
    ),
    "a depth PNG of 13300 x 13300": (
        "files.images.read_depth_picture",
        lambda: png(13_300, 13_300, 16, 0, 2**20, padding=172_000),
        "13300 x 13300 pixels, expected at most",
        32,
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux gives the peak in kB")
@pytest.mark.parametrize("name", CLAIMS)
def test_memory_is_not_taken_for_a_claim(file, name):
    reader, content, message, most = CLAIMS[name]
    file.write_bytes(content())
    error, taken = measure(reader, file)
    assert str(file) in error
    assert re.search(message, error)
    assert int(taken) < most


@pytest.mark.skipif(sys.platform != "linux", reason="Linux gives the peak in kB")
def test_the_largest_image_takes_less_than_a_gigabyte(file):
    file.write_bytes(png(8192, 8192, 8, 2, 8192 * 24_577))
    assert int(measure("files.images.read_image", file)[-1]) < 1024
