import io
import os
import zipfile

import numpy as np
import pytest
from path import Path
from PIL import Image

from evaluation.predictions import (
    check_outputs,
    check_writable,
    default_file,
    load_depth,
    load_predictions,
    save_predictions,
)
from files.errors import InputError
from visualization.depth_sheet import write_sheet


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

    def full_disk(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(InputError, match="could not be written"):
        save_predictions(saved, "depth", {}, {})
    assert saved.read_bytes() == before
    assert saved.parent.files() == [saved]


def test_default_file_lies_beside_the_checkpoint():
    assert default_file(Path("runs/a/best.pt"), "depth") == "runs/a/best_depth.npz"
    assert default_file(Path("dispnet_model_best.pth.tar"), "depth") == "dispnet_model_best_depth.npz"


def test_check_writable(tmp_path):
    check_writable(Path(tmp_path) / "new.npz", "--save")
    with pytest.raises(InputError, match=r"--save .*no such folder"):
        check_writable(Path(tmp_path) / "no/new.npz", "--save")
    with pytest.raises(InputError, match="is a folder"):
        check_writable(Path(tmp_path), "--save")


@pytest.fixture
def folder(tmp_path):
    """Files of a user: a checkpoint, a list, and earlier outputs."""
    folder = Path(tmp_path)
    (folder / "last.pt").write_bytes(b"PK\x03\x04 weights")
    (folder / "list.txt").write_text("a/0.png\n")
    (folder / "old.json").write_text('{\n  "protocols": {}}\n')
    (folder / "config.json").write_text('{"seed": 0}\n')
    (folder / "table.csv").write_text("name,price\n")
    (folder / "damaged.npz").write_bytes(b"PK\x05\x06" + bytes(18))
    Image.new("RGB", (4, 3)).save(folder / "photograph.png")
    write_sheet(folder / "old.png", "", ["a"], [[np.zeros((4, 8, 3), np.uint8)] * 4])
    (folder / "old.csv").write_text("image,abs_rel\n")
    save_predictions(folder / "old.npz", "depth", {"depth": np.zeros(1)}, {})
    return folder


@pytest.mark.parametrize(
    ("flag", "name", "message"),
    [
        ("--json", "last.pt", "is an input of this command"),
        ("--save", "last.pt", "is an input of this command"),
        ("--csv", "list.txt", "is an input of this command"),
        ("--json", "link", "is an input of this command"),
        ("--json", "old.csv", "a file of another kind, which would be lost"),
        ("--csv", "old.json", "a file of another kind"),
        ("--save", "old.json", "a file of another kind"),
        ("--pictures", "old.json", "a file of another kind"),
        ("--json", "config.json", "a file of another kind"),
        ("--csv", "table.csv", "a file of another kind"),
        ("--save", "damaged.npz", "a file of another kind"),
        ("--pictures", "photograph.png", "a file of another kind"),
        ("--json", "nowhere/a.json", "no such folder"),
    ],
)
def test_an_output_that_would_destroy_something_is_refused(folder, flag, name, message):
    os.symlink(folder / "last.pt", folder / "link")
    with pytest.raises(InputError, match=message):
        check_outputs({flag: folder / name}, [folder / "last.pt", folder / "list.txt", None])


def test_new_files_and_earlier_outputs_are_written(folder):
    names = {"--json": "old.json", "--csv": "old.csv", "--save": "old.npz", "--pictures": "old.png"}
    check_outputs({flag: folder / f"new_{name}" for flag, name in names.items()}, [folder / "last.pt"])
    check_outputs({flag: folder / name for flag, name in names.items()} | {"--other": None}, [folder / "last.pt"])


def test_two_outputs_in_one_file_are_refused(folder):
    with pytest.raises(InputError, match=r"--csv .*: --json writes the same file"):
        check_outputs({"--json": folder / "a", "--csv": folder / "a"}, [])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_depth_of_any_floating_type(tmp_path, kind):
    file, depth = Path(tmp_path) / "d.npz", np.full((1, 2, 3), 1e-4, kind)
    save_predictions(file, "depth", {"files": np.array(["a"]), "depth": depth}, {})
    found, _ = load_depth(file)
    np.testing.assert_array_equal(found["a"], depth[0])
    assert found["a"].dtype == (np.float64 if kind is np.float64 else np.float32)


@pytest.mark.parametrize("shape", [(1, 2, 0), (1, 0, 3), (1, 0, 0), (1, 2), (2, 2, 3)])
def test_depth_of_another_shape_is_refused(tmp_path, shape):
    file = Path(tmp_path) / "d.npz"
    save_predictions(file, "depth", {"files": np.array(["a"]), "depth": np.ones(shape)}, {})
    with pytest.raises(InputError, match=r"d\.npz: (depth is float64 .*, expected \[1, height|not a whole file)"):
        load_depth(file)
