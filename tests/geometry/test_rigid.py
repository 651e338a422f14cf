import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geometry import rigid
from geometry.rigid import (
    axis_rotation,
    compose_motions,
    invert,
    is_rotation,
    nearest_rotation,
    relative,
    relative_to_first,
    rotation_angle,
    to_3x4,
    to_homogeneous,
    transform_from,
)


def random_transforms(*shape, seed=0):
    random = np.random.default_rng(seed)
    rotations = Rotation.from_quat(random.normal(size=(int(np.prod(shape)), 4))).as_matrix()
    return transform_from(rotations.reshape(*shape, 3, 3), random.normal(size=(*shape, 3)))


# Transforms


def test_a_transform_moves_a_point_by_hand():
    quarter_turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x becomes y
    a_from_b = transform_from(quarter_turn, np.array([10.0, 20, 30]))
    assert (a_from_b @ [1, 0, 0, 1]).tolist() == [10, 21, 30, 1]
    assert (invert(a_from_b) @ [10, 21, 30, 1]).tolist() == [1, 0, 0, 1]
    assert a_from_b[3].tolist() == [0, 0, 0, 1]


def test_batches_broadcast():
    transforms = transform_from(np.eye(3), np.arange(12.0).reshape(2, 2, 3))
    assert transforms.shape == (2, 2, 4, 4)
    assert transforms[1, 1, :3, 3].tolist() == [9, 10, 11]
    assert transform_from(np.tile(np.eye(3), (5, 1, 1)), np.zeros(3)).shape == (5, 4, 4)


def test_three_rows_and_four_are_the_same_pose():
    transforms = random_transforms(2, 3)
    poses = to_3x4(transforms)
    assert poses.shape == (2, 3, 3, 4)
    np.testing.assert_array_equal(to_homogeneous(poses), transforms)
    assert to_homogeneous(poses.astype(np.float32)).dtype == np.float64


def test_inverses_of_rigid_transforms():
    transforms = random_transforms(2, 3)
    np.testing.assert_allclose(invert(transforms) @ transforms, np.broadcast_to(np.eye(4), (2, 3, 4, 4)), atol=1e-15)
    np.testing.assert_array_equal(invert(invert(transforms))[..., :3, :3], transforms[..., :3, :3])
    np.testing.assert_allclose(invert(transforms), np.linalg.inv(transforms), atol=1e-14)


def test_relative_pose_takes_points_from_one_camera_to_the_other():
    world_from_a, world_from_b = random_transforms(2, seed=3)
    point = np.array([1.0, -2, 5, 1])  # in b
    in_a = relative(world_from_a, world_from_b) @ point
    np.testing.assert_allclose(world_from_a @ in_a, world_from_b @ point, atol=1e-14)


def test_the_first_pose_is_the_identity_also_where_a_file_has_few_digits():
    exact = random_transforms(6)
    rounded = np.round(exact, 5)
    for poses in (exact, rounded):
        first = relative_to_first(poses)
        np.testing.assert_allclose(first[0], np.eye(4), atol=1e-14)
        np.testing.assert_allclose(poses[0] @ first, poses, atol=1e-13)
    assert np.abs(invert(rounded[0]) @ rounded[0] - np.eye(4)).max() > 1e-6  # which R^T would not give


def test_motions_are_composed_in_order():
    motions = to_3x4(random_transforms(50))
    pose, expected = np.eye(4), [np.eye(3, 4)]
    for motion in to_homogeneous(motions):
        pose = pose @ motion
        expected.append(pose[:3])
    np.testing.assert_allclose(compose_motions(motions), expected, atol=1e-9)
    assert compose_motions(motions[:0]).shape == (1, 3, 4)


def test_motions_of_a_trajectory_compose_to_it():
    first_from_frame = relative_to_first(random_transforms(40))
    motions = relative(first_from_frame[:-1], first_from_frame[1:])
    np.testing.assert_allclose(compose_motions(to_3x4(motions)), to_3x4(first_from_frame), atol=1e-12)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (transform_from, [np.eye(4), np.zeros(3)], r"rotation: got shape \[4, 4\], expected \[..., 3, 3\]"),
        (transform_from, [np.eye(3), np.zeros(4)], r"translation: got shape \[4\], expected \[..., 3\]"),
        (to_homogeneous, [np.eye(4)], r"poses: got shape \[4, 4\], expected \[..., 3, 4\]"),
        (to_3x4, [np.eye(3, 4)], r"transforms: got shape \[3, 4\]"),
        (invert, [np.eye(3, 4)], r"transform: got shape \[3, 4\]"),
        (relative, [np.eye(4), np.eye(3)], r"world_from_b: got shape \[3, 3\]"),
        (relative_to_first, [np.eye(4)], r"world_from_frame: got shape \[4, 4\], expected \[N > 0, 4, 4\]"),
        (relative_to_first, [np.zeros((0, 4, 4))], r"got shape \[0, 4, 4\]"),
        (compose_motions, [np.eye(3, 4)], r"previous_from_frame: got shape \[3, 4\], expected \[M, 3, 4\]"),
        (compose_motions, [np.eye(4)[None]], r"poses: got shape \[1, 4, 4\]"),
        (rotation_angle, [np.zeros(3)], r"rotation: got shape \[3\]"),
        (nearest_rotation, [np.eye(4)], r"matrices: got shape \[4, 4\]"),
        (is_rotation, [np.eye(3, 4)], r"matrices: got shape \[3, 4\]"),
        (axis_rotation, [3, 0.1], "axis is 3, expected 0, 1 or 2"),
    ],
)
def test_wrong_shapes_are_a_programmers_error(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
    assert not hasattr(rigid, "InputError")


# Rotations


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axis_rotations_turn_counter_clockwise(axis):
    x, y = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
    np.testing.assert_allclose(axis_rotation(axis, np.pi / 2) @ x, y, atol=1e-15)
    angles = np.random.default_rng(0).normal(size=(2, 5))
    expected = Rotation.from_euler("xyz"[axis], angles.reshape(-1, 1)).as_matrix().reshape(2, 5, 3, 3)
    np.testing.assert_allclose(axis_rotation(axis, angles), expected, atol=1e-15)


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
