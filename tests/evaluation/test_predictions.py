import io
import zipfile

import numpy as np
import pytest
from path import Path

from evaluation.predictions import (
    Rows,
    default_file,
    load_depth,
    load_predictions,
    save_predictions,
)
from files.errors import InputError


@pytest.fixture
def saved(tmp_path):
    file = Path(tmp_path) / "p.npz"
    save_predictions(
        file, "depth", {"depth": np.arange(600.0).reshape(6, 10, 10), "files": np.array(["a", "ä"])}, {"step": 3}
    )
    return file


def test_round_trip(saved):
    arrays, about = load_predictions(saved, "depth")
    np.testing.assert_array_equal(arrays["depth"], np.arange(600.0).reshape(6, 10, 10))
    assert arrays["files"].tolist() == ["a", "ä"]
    assert about == {"kind": "depth", "step": 3}
    assert sorted(saved.parent.files()) == [saved]


def test_another_kind_is_refused(saved):
    with pytest.raises(InputError, match="kind 'depth', expected 'snippets'"):
        load_predictions(saved, "snippets")


def test_truncated_anywhere_is_an_input_error(saved):
    whole = saved.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        saved.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a whole file of predictions"):
            load_predictions(saved, "depth")


def test_flipped_bytes_are_found_or_harmless(saved):
    whole = bytearray(saved.read_bytes())
    random = np.random.default_rng(0)
    for position in random.integers(0, len(whole), 200):
        damaged = whole.copy()
        damaged[position] ^= 0x55
        saved.write_bytes(bytes(damaged))
        try:
            arrays, _ = load_predictions(saved, "depth")
        except InputError:
            continue
        for name, array in arrays.items():  # what is still read has passed the zip's checksum
            assert array.nbytes < 10_000, name


def test_a_claimed_size_takes_no_memory(tmp_path):
    file = Path(tmp_path) / "p.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("depth.npy", header.getvalue())
    with pytest.raises(InputError, match="claims 4000000000000 bytes"):
        load_predictions(file, "depth")


def test_objects_are_not_loaded(tmp_path):
    file = Path(tmp_path) / "p.npz"
    np.savez(file, depth=np.array([print], dtype=object), about=np.array('{"kind": "depth"}'))
    with pytest.raises(InputError, match="not a whole file"):
        load_predictions(file, "depth")


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(stream, array, **options):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(InputError, match="could not be written"):
        save_predictions(saved, "depth", {}, {})
    assert saved.read_bytes() == before
    assert saved.parent.files() == [saved]


def test_default_file_lies_beside_the_checkpoint():
    assert default_file(Path("runs/a/best.pt"), "depth") == "runs/a/best_depth.npz"
    assert default_file(Path("dispnet_model_best.pth.tar"), "depth") == "dispnet_model_best_depth.npz"


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_depth_of_any_floating_type(tmp_path, kind):
    file, depth = Path(tmp_path) / "d.npz", np.full((1, 2, 3), 1e-4, kind)
    save_predictions(file, "depth", {"files": np.array(["a"]), "depth": depth}, {})
    found, _, _ = load_depth(file)
    np.testing.assert_array_equal(found["a"], depth[0])
    assert found["a"].dtype == (np.float64 if kind is np.float64 else np.float32)


@pytest.mark.parametrize("shape", [(1, 2, 0), (1, 0, 3), (1, 0, 0), (1, 2), (2, 2, 3)])
def test_depth_of_another_shape_is_refused(tmp_path, shape):
    file = Path(tmp_path) / "d.npz"
    save_predictions(file, "depth", {"files": np.array(["a"]), "depth": np.ones(shape)}, {})
    with pytest.raises(InputError, match=r"d\.npz: (depth is float64 .*, expected \[1, height|not a whole file)"):
        load_depth(file)


def test_an_image_that_is_predicted_twice_is_named(tmp_path):
    file = Path(tmp_path) / "d.npz"
    save_predictions(file, "depth", {"files": np.array(["a", "b", "a"]), "depth": np.ones((3, 2, 2))}, {})
    with pytest.raises(InputError, match=r"d\.npz: 'files' names a twice"):
        load_depth(file)


def test_rows_are_written_as_they_are_made_and_read_when_they_are_asked_for(tmp_path):
    file, made = Path(tmp_path) / "d.npz", []

    def rows():
        for number in range(3):
            made.append(number)
            yield np.full((2, 4), number)

    arrays = {"files": np.array(["a", "b", "c"]), "depth": Rows((3, 2, 4), np.float32, rows()), "more": np.arange(2)}
    save_predictions(file, "depth", arrays, {"step": 1})
    assert made == [0, 1, 2]
    with np.load(file) as stored:  # an ordinary .npz
        np.testing.assert_array_equal(stored["depth"], np.repeat([0, 1, 2], 8).reshape(3, 2, 4).astype(np.float32))
    depth, others, about = load_depth(file)
    assert (list(depth), others["more"].tolist(), about["step"]) == (["a", "b", "c"], [0, 1], 1)
    assert (depth["c"] == 2).all()
    assert depth["c"].shape == (2, 4)
    with pytest.raises(KeyError):
        depth["d"]
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="became shorter while it was read"):
        depth["c"]


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_rows_leaves_no_file(tmp_path, count):
    file = Path(tmp_path) / "d.npz"
    rows = Rows((3, 2), np.float32, (np.zeros(2) for _ in range(count)))
    with pytest.raises(ValueError, match=f"got {count} rows, expected 3"):
        save_predictions(file, "depth", {"depth": rows}, {})
    assert Path(tmp_path).files() == []


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_that_numpy_writes(tmp_path, save, order):
    """Compressed arrays, and those in Fortran's order, are read whole; the result is the same."""
    file, values = Path(tmp_path) / "d.npz", np.random.default_rng(0).random((3, 4, 5))
    about = np.array('{"kind": "depth"}')
    save(file, about=about, files=np.array(["a", "b", "c"]), depth=np.asarray(values, order=order))
    depth, _, _ = load_depth(file)
    assert all(np.array_equal(depth[name], value) for name, value in zip("abc", values, strict=True))


def test_a_changed_byte_of_the_depth_is_found_before_it_is_used(tmp_path):
    file = Path(tmp_path) / "d.npz"
    save_predictions(file, "depth", {"files": np.array(["a"]), "depth": np.ones((1, 30, 30))}, {})
    content = bytearray(file.read_bytes())
    content[content.index(np.float64(1).tobytes() * 5) + 16] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="not a whole file of predictions"):
        load_depth(file)
