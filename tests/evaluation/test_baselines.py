import os

import numpy as np
import pytest
from path import Path

from datasets.layout import write_depth, write_intrinsics, write_scene_names
from evaluation import baselines
from evaluation.baselines import mean_depth_map
from files.errors import InputError


@pytest.fixture
def prepared(tmp_path):
    """Two training scenes with three depth maps by hand, and a scene for validation that must not count."""
    root = Path(tmp_path) / "prepared"
    maps = {
        "a/0000000": [[0, 2, 4], [0, 8, 0]],
        "a/0000002": [[0, 4, 0], [0, 8, 0]],
        "b/0000000": [[0, 6, 0], [0, 2, 0]],
        "val/0000000": [[90, 90, 90], [90, 90, 90]],
    }
    for name, depth in maps.items():
        (root / name).parent.makedirs_p()
        (root / f"{name}.jpg").touch()
        write_depth(root / f"{name}.npy", np.array(depth))
    (root / "a/0000001.jpg").touch()  # a frame without depth
    for scene in ("a", "b", "val"):
        write_intrinsics(root / scene / "cam.txt", np.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]))
    write_scene_names(root / "train.txt", ["a", "b"])
    write_scene_names(root / "val.txt", ["val"])
    return root


def test_mean_map_by_hand(prepared):
    mean, count = mean_depth_map(prepared, workers=2)
    assert count == 3
    # Known pixels: (2 + 4 + 6) / 3, 4 / 1, (8 + 8 + 2) / 3. The left column and the last pixel take their neighbour's.
    np.testing.assert_allclose(mean[:, 1], [4, 6])
    assert mean[0, 2] == 4
    assert mean[:, 0].tolist() == [4, 6]
    assert mean[1, 2] in (4, 6)


def test_without_depth_or_with_damage(prepared):
    (prepared / "b/0000000.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"b/0000000\.npy: not a readable"):
        mean_depth_map(prepared, workers=1)
    write_depth(prepared / "b/0000000.npy", np.ones((3, 3)))
    with pytest.raises(InputError, match=r"b/0000000\.npy: depth of \[3, 3\], but .* has \[2, 3\]"):
        mean_depth_map(prepared, workers=1)
    for file in prepared.walkfiles("*.npy"):
        write_depth(file, np.zeros((2, 3)))
    with pytest.raises(InputError, match="not one of its 3 depth maps knows a depth"):
        mean_depth_map(prepared, workers=1)
    for file in prepared.walkfiles("*.npy"):
        file.unlink()
    with pytest.raises(InputError, match="--with-depth"):
        mean_depth_map(prepared, workers=1)
    with pytest.raises(InputError, match=r"no train\.txt"):
        mean_depth_map(prepared / "a", workers=1)


@pytest.fixture
def computed(monkeypatch):
    """A list that grows with each mean that is computed rather than read."""
    computed, mean = [], baselines._mean
    monkeypatch.setattr(baselines, "_mean", lambda *given: (computed.append(1), mean(*given))[1])
    return computed


def test_the_mean_is_kept_beside_the_data(prepared, computed):
    first = mean_depth_map(prepared, workers=1)
    again = mean_depth_map(prepared, workers=1)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[1], again[1], len(computed)) == (3, 3, 1)
    assert (prepared / "mean_depth.npz").is_file()
    assert not prepared.files("*.part*")


def test_the_mean_is_computed_anew_when_depth_maps_change(prepared, computed):
    mean_depth_map(prepared, workers=1)
    file = prepared / "b/0000000.npy"
    before = file.stat()
    write_depth(file, np.array([[0, 12, 0], [0, 2, 0]]))  # as long, and given the old time, as unpacking does
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (mean_depth_map(prepared, workers=1)[0][0, 1], len(computed)) == (6, 2)
    (prepared / "a/0000001.npy").write_bytes(file.read_bytes())
    assert (mean_depth_map(prepared, workers=1)[1], len(computed)) == (4, 3)
    (prepared / "a/0000001.npy").unlink()
    assert (mean_depth_map(prepared, workers=1)[1], len(computed)) == (3, 4)


def test_a_damaged_kept_mean_is_computed_anew(prepared, computed):
    expected, _ = mean_depth_map(prepared, workers=1)
    kept = prepared / "mean_depth.npz"
    whole = kept.read_bytes()
    damages = [whole[:-1], whole[:30], b"", b"{}", whole.replace(b"<f8", b"<f4"), b"PK" + bytes(100)]
    for position in np.random.default_rng(0).integers(0, len(whole), 20):
        damages.append(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    for damage in damages:
        kept.write_bytes(damage)
        np.testing.assert_array_equal(mean_depth_map(prepared, workers=1)[0], expected)
    arrays, about = baselines.load_predictions(kept, "mean_depth")
    count = len(computed)
    for mean in (arrays["mean"][0], -arrays["mean"], arrays["mean"] * np.nan, np.zeros((0, 3))):
        baselines.save_predictions(kept, "mean_depth", {"mean": mean}, about)
        np.testing.assert_array_equal(mean_depth_map(prepared, workers=1)[0], expected)
        count += 1
    assert len(computed) == count


def test_a_folder_that_cannot_be_written_is_no_error(prepared, computed, monkeypatch):
    def full(*given):
        raise InputError("no space left")

    monkeypatch.setattr(baselines, "save_predictions", full)
    assert mean_depth_map(prepared, workers=1)[1] == 3
    assert mean_depth_map(prepared, workers=1)[1] == 3
    assert len(computed) == 2
    monkeypatch.undo()
    (prepared / "mean_depth.npz").makedirs()
    assert mean_depth_map(prepared, workers=1)[1] == 3
