import numpy as np
import pytest
from path import Path

from datasets.layout import write_depth, write_intrinsics, write_scene_names
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
