import io
import pickle
import zipfile

import numpy as np
import pytest
from path import Path

from datasets.formats.depth_archive import read_depth_archive
from files.errors import InputError

MAPS = [np.array([[0, 1.5], [2, 80]], np.float32), np.array([[3, 0, 7.0]], np.float32)]


@pytest.fixture
def file(tmp_path):
    return Path(tmp_path) / "gt_depths.npz"


def of_objects(maps):
    array = np.empty(len(maps), object)
    array[:] = maps
    return array


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_maps_of_different_sizes_as_monodepth2_exports_them(file, write):
    write(file, data=of_objects(MAPS))
    for depth, expected in zip(read_depth_archive(file), MAPS, strict=True):
        np.testing.assert_array_equal(depth, expected)
        assert depth.dtype == np.float32


def test_written_for_python_2(file):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (2,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", header.getvalue() + pickle.dumps(of_objects(MAPS), protocol=2))
    np.testing.assert_array_equal(read_depth_archive(file)[1], MAPS[1])


def test_maps_of_one_size(file):
    same = np.stack([MAPS[0], 2 * MAPS[0], 3 * MAPS[0]])
    np.savez(file, data=same)
    np.testing.assert_array_equal(np.stack(read_depth_archive(file)), same)
    np.save(file.with_suffix(".npy"), same.astype(np.float64))
    np.testing.assert_array_equal(np.stack(read_depth_archive(file.with_suffix(".npy"))), same)


def test_maps_of_one_size_as_objects(file):
    same = np.stack([MAPS[0], 2 * MAPS[0], 3 * MAPS[0]])
    np.savez(file, data=same.astype(object))
    maps = read_depth_archive(file)
    assert maps[0].dtype == np.float32
    np.testing.assert_array_equal(np.stack(maps), same)


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "expected an array of depth maps"),  # an index that takes 34 GB in C
        (b"\x80\x04c_codecs\nencode\n}b.", "instruction 125 of its pickle"),  # an instruction that NumPy's pickles lack
        (b"\x80\x04c_codecs\nencode\nNb.", "sets the state of something else"),
        (b"\x80\x04\x96\xff\xff\xff\xff\0\0\0\0.", "instruction 150"),
        (b"\x80\x04cnumpy\ndtype\n\x8c\x02O8\x85R.", "expected an array of depth maps"),
    ],
)
def test_a_pickle_is_read_by_the_instructions_of_arrays(file, instructions, message):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (2,)})
    file.write_bytes(header.getvalue() + instructions)
    with pytest.raises(InputError, match=message):
        read_depth_archive(file)


def test_a_pickle_runs_no_code(file):
    class Harmful:
        def __reduce__(self):
            return (print, ("harm",))

    np.savez(file, data=of_objects([Harmful(), MAPS[0]]))
    with pytest.raises(InputError, match=r"builtins\.print, expected arrays of numbers alone"):
        read_depth_archive(file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"data": np.zeros((2, 3))}, r"shape \[2, 3\]"),
        ({"data": np.zeros((1, 2, 3), int)}, r"depth map 0 is int64 \[2, 3\]"),
        ({"data": of_objects([MAPS[0], -MAPS[1]])}, "depth map 1 has depths that are negative or not finite"),
        ({"data": of_objects([MAPS[0], "text"])}, "depth map 1 is str"),
        ({"data": np.zeros((1, 2, 3)), "other": np.zeros(1)}, "2 arrays, expected one"),
    ],
)
def test_something_else_is_named(file, content, expected):
    np.savez(file, **content)
    with pytest.raises(InputError, match=expected):
        read_depth_archive(file)


def test_damage_is_named(file):
    np.savez(file, data=of_objects(MAPS))
    whole = file.read_bytes()
    for length in range(0, len(whole), 53):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a file of depth maps"):
            read_depth_archive(file)
    with pytest.raises(InputError, match="no such file"):
        read_depth_archive(file.with_name("none.npz"))


def test_a_claimed_size_takes_no_memory(file):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (9, 10**6, 10**6)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", header.getvalue())
    with pytest.raises(InputError, match="claims 36000000000000 bytes, found 0"):
        read_depth_archive(file)
