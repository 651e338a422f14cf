import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from evaluation.trajectory_hints import order_hint, unit_hint

FILES = ["mine.txt", "truth.txt"]


@pytest.mark.parametrize("start", [0.0, 1.4e9])
@pytest.mark.parametrize(("unit", "per_second"), [("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)])
def test_times_in_another_unit_are_noticed_in_either_file(start, unit, per_second):
    times = start + 0.1 * np.arange(50)
    assert f"the times of mine.txt seem to be {unit}, expected seconds" in unit_hint(
        times * per_second, times, FILES, 0.01
    )
    assert f"the times of truth.txt seem to be {unit}" in unit_hint(times, times * per_second, FILES, 0.01)


def test_other_times_are_not_taken_for_another_unit():
    times = 0.1 * np.arange(50)
    assert unit_hint(times, times + 1000, FILES, 0.01) == ""  # divided by 10^9, all lie near 0
    assert unit_hint(times + 1e9, times, FILES, 0.01) == ""  # one begins at 0
    assert unit_hint(times, times[::-1].cumsum() + 77, FILES, 0.01) == ""


def drive(turn, seed=0):
    """world_from_camera [60, 3, 4]: 1 m forward a frame, with `turn` degrees to the right and some noise."""
    angles = np.zeros((60, 3))
    angles[:, 1] = np.radians(turn) * np.arange(60)
    angles += np.random.default_rng(seed).normal(0, 0.01, angles.shape)
    rotation = Rotation.from_euler("xyz", angles).as_matrix()
    return np.concatenate([rotation, np.cumsum(rotation[..., 2:], 0)], -1)


def read_as_w_last(poses):
    """What is read of a file that has the quaternions of these poses with w first."""
    quaternion = Rotation.from_matrix(poses[..., :3]).as_quat()
    rotation = Rotation.from_quat(quaternion[:, [3, 0, 1, 2]]).as_matrix()
    return np.concatenate([rotation, poses[..., 3:]], -1)


def in_another_world(poses):
    rotation = Rotation.from_euler("xyz", [1.0, -0.4, 2.0]).as_matrix()
    return 3 * np.concatenate([rotation @ poses[..., :3] / 3, rotation @ poses[..., 3:] + 5], -1)


@pytest.mark.parametrize("turn", [0.0, 0.3, 4.0])
@pytest.mark.parametrize("other_world", [False, True])
def test_quaternions_with_w_first_are_noticed(turn, other_world):
    truth, mine = drive(turn), drive(turn, seed=1)
    if other_world:
        mine = in_another_world(mine)
    assert order_hint(mine, truth, FILES) == ""
    assert "QUATERNIONS OF mine.txt SEEM TO HAVE w FIRST" in order_hint(read_as_w_last(mine), truth, FILES)
    assert "QUATERNIONS OF truth.txt SEEM TO HAVE w FIRST" in order_hint(mine, read_as_w_last(truth), FILES)
    assert order_hint(read_as_w_last(mine), truth, [None, "truth.txt"]) == ""  # a file without quaternions


def test_a_bad_trajectory_and_one_that_stands_are_not_taken_for_another_order():
    truth = drive(2.0)
    assert order_hint(drive(-5.0), truth, FILES) == ""
    assert order_hint(in_another_world(truth[::-1].copy()), truth, FILES) == ""
    standing = np.tile(np.eye(3, 4), (60, 1, 1))
    assert order_hint(standing, truth, FILES) == ""
    assert order_hint(standing, standing, FILES) == ""
