import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geometry.rigid import is_rotation, nearest_rotation, rotation_angle


def test_angles_are_exact_also_where_they_are_tiny():
    axis = np.array([1.0, -2.0, 2.0]) / 3
    angles = np.array([0, 1e-12, 1e-8, 1e-3, 1.0, 3.1])
    np.testing.assert_allclose(
        rotation_angle(Rotation.from_rotvec(angles[:, None] * axis).as_matrix()), angles, rtol=1e-7
    )


def test_what_is_a_rotation():
    turn = Rotation.from_euler("xyz", [0.3, -1, 2]).as_matrix()
    mirror = np.diag([1.0, 1, -1])
    cases = {True: (turn, np.eye(3), turn.round(4)), False: (mirror, 1.1 * turn, np.zeros((3, 3)), 1e200 * turn)}
    for expected, matrices in cases.items():
        assert (is_rotation(np.stack(matrices)) == expected).all()


def test_the_nearest_rotation_of_a_mean_lies_in_the_middle():
    two = Rotation.from_euler("y", [[0.1], [0.5]]).as_matrix()
    np.testing.assert_allclose(nearest_rotation(two.mean(0)), Rotation.from_euler("y", 0.3).as_matrix(), atol=1e-12)
    random = np.random.default_rng(0).normal(size=(50, 3, 3))
    found = nearest_rotation(random)
    assert is_rotation(found).all()
    for other in Rotation.from_quat(
        np.random.default_rng(1).normal(size=(200, 4))
    ).as_matrix():  # none of many other rotations is nearer
        assert (
            np.linalg.norm(random - found, axis=(1, 2)) <= np.linalg.norm(random - other, axis=(1, 2)) + 1e-12
        ).all()


def test_a_rotation_is_its_own_nearest():
    turn = Rotation.from_quat(np.random.default_rng(2).normal(size=(5, 4))).as_matrix()
    np.testing.assert_allclose(nearest_rotation(3 * turn), turn, atol=1e-12)
    assert nearest_rotation(turn).shape == turn.shape == (5, 3, 3)
    with pytest.raises(np.linalg.LinAlgError):
        nearest_rotation(np.full((3, 3), np.nan))
