"""Make3D's files are found, cropped and read as in the published evaluation; other files are refused by name."""

import io
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from path import Path
from PIL import Image

from datasets.formats.make3d import central_rows, find_photographs, read_cropped_depth, read_cropped_image
from files.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path)


def grid(seed=0):
    return np.random.default_rng(seed).uniform(1, 80, (55, 305, 4)).round(1)


def save(file, content, name="Position3DGrid", **options):
    scipy.io.savemat(file, {name: content}, **options)
    return file


def test_central_rows_as_published():
    assert central_rows(2272, 2) == slice(710, 1562)
    assert central_rows(55, 2) == slice(17, 38)
    assert central_rows(2272, 0.75) == slice(0, 2272)
    assert central_rows(55, 0.75) == slice(0, 55)
    assert central_rows(55, 3.25) == slice(21, 34)


def test_image_and_depth_show_the_same_part(folder):
    """The two crops agree to half a row of the grid, at any ratio."""
    for ratio in (0.8, 1, 2, 2.5, 3.25):
        rows, grid_rows = central_rows(2272, ratio), central_rows(55, ratio)
        assert abs(rows.start / 2272 - grid_rows.start / 55) <= 1 / 55
        assert abs(rows.stop / 2272 - grid_rows.stop / 55) <= 1 / 55


@pytest.mark.parametrize("size", [(1704, 2272), (300, 400)])
def test_image_is_cropped_to_its_central_rows(folder, size):
    rows = np.arange(size[1]) * 255 // size[1]
    Image.fromarray(np.broadcast_to(rows[:, None, None], (*size[::-1], 3)).astype(np.uint8)).save(folder / "a.jpg")
    image = read_cropped_image(folder / "a.jpg", 2)
    assert image.shape == (size[0] // 2, size[0], 3)
    assert image[0].mean() == pytest.approx(0.3125 * 255, abs=2)
    assert image[-1].mean() == pytest.approx(0.6875 * 255, abs=2)


def test_a_landscape_is_refused(folder):
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(folder / "a.jpg")
    with pytest.raises(InputError, match=r"a.jpg: 400 x 300 pixels, expected a portrait"):
        read_cropped_image(folder / "a.jpg", 2)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_depth_is_the_fourth_channel(folder, compressed, kind):
    content = grid().astype(kind)
    save(folder / "a.mat", content, do_compression=compressed)
    depth = read_cropped_depth(folder / "a.mat", 2)
    assert depth.dtype == np.float64
    np.testing.assert_array_equal(depth, content[17:38, :, 3])


def test_what_is_no_distance_is_unknown(folder):
    content = grid()
    content[20, :4, 3] = [np.nan, np.inf, -1, 0]
    depth = read_cropped_depth(save(folder / "a.mat", content), 2)
    assert depth[3, :5].tolist() == [0, 0, 0, 0, content[20, 4, 3]]


def test_big_endian_files_are_read(folder):
    """A file as MATLAB wrote it on an old Mac, built by hand."""
    content = grid()

    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    matrix = (
        element(6, struct.pack(">II", 6, 0))
        + element(5, struct.pack(">3i", *content.shape))
        + element(1, b"Position3DGrid")
        + element(9, content.astype(">f8").tobytes(order="F"))
    )
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    (folder / "a.mat").write_bytes(header + element(14, matrix))
    np.testing.assert_array_equal(read_cropped_depth(folder / "a.mat", 2), content[17:38, :, 3])


def test_bytes_to_spare_behind_a_compressed_matrix_do_not_matter(folder):
    """SciPy's reader refuses such a file; MATLAB reads it."""
    save(folder / "a.mat", grid())
    data = (folder / "a.mat").read_bytes()
    packed = zlib.compress(data[128:] + bytes(16))
    (folder / "b.mat").write_bytes(data[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(ValueError, match="Did not fully consume"):
        scipy.io.loadmat(folder / "b.mat")
    np.testing.assert_array_equal(read_cropped_depth(folder / "b.mat", 2), read_cropped_depth(folder / "a.mat", 2))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (
            grid()[:54],
            "Position3DGrid",
            r"holds Position3DGrid \[54, 305, 4\] double; expected Position3DGrid \[55, 305",
        ),
        (grid()[..., 0], "Position3DGrid", r"\[55, 305\] double"),
        (grid().astype(np.int32), "Position3DGrid", "int32"),
        (grid(), "Depth", r"holds Depth \[55, 305, 4\] double"),
        (np.array([["a"]], dtype=object), "Position3DGrid", "cell"),
    ],
)
def test_other_content_is_refused(folder, content, name, message):
    save(folder / "a.mat", content, name)
    with pytest.raises(InputError, match=rf"a\.mat: .*{message}"):
        read_cropped_depth(folder / "a.mat", 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no such header"),
        (b"\x89PNG" + bytes(200), "no such header"),
        (b"MATLAB 7.3 MAT-file, Platform".ljust(512), "version 7.3, which is HDF5; save it by MATLAB's save -v7"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM", "holds nothing"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(3), "not a whole MATLAB 5 file"),
    ],
)
def test_other_files_are_refused(folder, data, message):
    (folder / "a.mat").write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.mat: .*{message}"):
        read_cropped_depth(folder / "a.mat", 2)


def test_a_missing_and_a_huge_file(folder):
    with pytest.raises(InputError, match=r"a\.mat: no such file"):
        read_cropped_depth(folder / "a.mat", 2)
    with open(folder / "a.mat", "wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(InputError, match=r"a\.mat: 100 MiB, expected"):
        read_cropped_depth(folder / "a.mat", 2)


def _cell_of(count):
    """A matrix element that claims a cell array of so many entries."""
    body = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, count)
    body += struct.pack("<II", 1, 14) + b"Position3DGrid".ljust(16, b"\0")
    return struct.pack("<II", 14, len(body)) + body


@pytest.mark.parametrize(
    "element",
    [
        zlib.compress(bytes(500 * 2**20), 9),  # 500 MB of zeros in 0.5 MB
        zlib.compress(struct.pack("<II", 14, 2**31) + bytes(100)),
        zlib.compress(_cell_of(2**30)),
    ],
    ids=["bomb", "matrix", "cell"],
)
def test_a_file_takes_no_memory_for_what_it_claims(folder, element):
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (folder / "a.mat").write_bytes(header + struct.pack("<II", 15, len(element)) + element)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.mat: "):
        read_cropped_depth(folder / "a.mat", 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


_WHOLE = io.BytesIO()
scipy.io.savemat(_WHOLE, {"Position3DGrid": np.ones((55, 305, 4))}, do_compression=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_an_error_or_a_grid(folder, data):
    content = bytearray(_WHOLE.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.mat").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(InputError):
        assert read_cropped_depth(folder / "a.mat", 2).shape == (21, 305)


# Finding the files


def test_found_by_name_wherever_they_lie(folder):
    for name in ("b", "a", "op2-p-015t000"):
        for file in (f"Test134/img-{name}.jpg", f"Test134Depth/Gridlaserdata/depth_sph_corr-{name}.mat"):
            (folder / file).parent.makedirs_p()
            (folder / file).touch()
    (folder / "Train400Img").makedirs()
    (folder / "Train400Img/img-c.jpg").touch()
    (folder / "Test134/._img-a.jpg").touch()
    (folder / "Test134Depth/Gridlaserdata/depth_sph_corr-b.mat").remove()
    photographs = find_photographs(folder)
    assert [photo.name for photo in photographs] == ["a", "b", "op2-p-015t000"]
    assert photographs[0].depth_file == folder / "Test134Depth/Gridlaserdata/depth_sph_corr-a.mat"
    assert photographs[1].depth_file == folder / "Test134Depth/Gridlaserdata/depth_sph_corr-b.mat"


def test_nothing_found(folder):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_photographs(folder / "nowhere")
    with pytest.raises(InputError, match="no Make3D images, expected Test134"):
        find_photographs(folder)
    (folder / "img-a.jpg").touch()
    with pytest.raises(InputError, match="no Make3D depth, expected Gridlaserdata"):
        find_photographs(folder)


def test_the_same_image_twice(folder):
    for place in ("one", "two"):
        (folder / place).makedirs()
        (folder / place / "img-a.jpg").touch()
    with pytest.raises(InputError, match="the same image twice"):
        find_photographs(folder)
