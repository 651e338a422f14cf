import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from evaluation.metrics.pose import (
    mean_odometry,
    relative_to_first_frame,
    snippet_ate,
    snippet_rotation_error,
    snippet_scale,
    snippets,
    straight_line,
)
from files.errors import InputError
from geometry.rigid import relative, to_3x4, to_homogeneous
from tests.oracles import load, motion, sources


def turn(angle):
    """Rotation about the camera's y axis (a car's turn)."""
    return np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])


def drive(positions, angles=None):
    """Poses [n, 3, 4] at positions [n, 3]."""
    positions = np.asarray(positions, float)
    rotations = [turn(angle) for angle in (angles if angles is not None else np.zeros(len(positions)))]
    return np.concatenate([np.stack(rotations), positions[..., None]], -1)


@pytest.fixture
def trajectory():
    random = np.random.default_rng(0)
    return drive(np.cumsum(random.normal([0.1, 0, 1], 0.1, (30, 3)), 0), np.cumsum(random.normal(0, 0.1, 30)))


def test_snippets_in_any_common_frame_are_brought_into_the_first():
    random = np.random.default_rng(0)
    turns = Rotation.from_rotvec(random.normal(0, 0.1, (9, 3))).as_matrix()
    world = np.concatenate([turns, random.normal(0, 5, (9, 3, 1))], -1)
    truth = snippets(world, 3)
    windows = world[np.arange(7)[:, None] + np.arange(3)]
    middle_from_frame = to_3x4(relative(to_homogeneous(windows[:, 1:2]), to_homogeneous(windows)))
    for poses in (windows, middle_from_frame):
        found = relative_to_first_frame(poses)
        np.testing.assert_allclose(found, truth, atol=1e-12)
        np.testing.assert_allclose(snippet_ate(truth, found), 0, atol=1e-12)
    still = np.tile(world[:1], (3, 1, 1))[None]
    assert (relative_to_first_frame(still)[..., 3] == 0).all()  # no rounding noise that could get a scale


def test_snippets_in_their_first_frame_keep_their_bits_and_bad_ones_are_left_to_the_scores():
    truth = np.random.default_rng(1).normal(size=(5, 3, 3, 4))  # not rotations: an inverse would change them
    truth[:, 0] = np.eye(3, 4)
    np.testing.assert_array_equal(relative_to_first_frame(truth), truth)
    truth[1, 0, 0, 0], truth[2, 2, 1, 3], truth[3, 0, :, :3] = np.nan, np.inf, 0
    np.testing.assert_array_equal(relative_to_first_frame(truth), truth)


def test_snippets_by_hand():
    # A quarter turn at the origin of the second frame: from then on the world's x lies ahead (z).
    poses = drive([[0, 0, 0], [0, 0, 1], [2, 0, 1]], [0, math.pi / 2, math.pi / 2])
    result = snippets(poses, 2)
    assert result.shape == (2, 2, 3, 4)
    np.testing.assert_allclose(result[:, 0], [np.eye(3, 4)] * 2, atol=1e-12)
    np.testing.assert_allclose(result[0, 1], np.c_[turn(math.pi / 2), [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(result[1, 1], np.c_[np.eye(3), [0, 0, 2]], atol=1e-12)


def test_snippets_do_not_depend_on_the_world_frame(trajectory):
    other_from_world = np.c_[turn(0.7), [5, -3, 100]]
    moved = other_from_world[:, :3] @ trajectory
    moved[..., 3] += other_from_world[:, 3]
    np.testing.assert_allclose(snippets(moved, 5), snippets(trajectory, 5), atol=1e-12)


def test_ate_by_hand():
    # Truth 0, 1, 2 m ahead; prediction 0, (1, 0, 1), (0, 0, 2): scale (1 + 4) / (2 + 4) = 5 / 6.
    truth = drive([[0, 0, 0], [0, 0, 1], [0, 0, 2]])[None]
    predicted = drive([[0, 0, 0], [1, 0, 1], [0, 0, 2]])[None]
    assert snippet_scale(truth, predicted) == pytest.approx([5 / 6])
    # Differences (5/6, 0, -1/6) and (0, 0, -1/3): squares 25/36 + 1/36 + 4/36 = 30/36, norm / 3 frames.
    assert snippet_ate(truth, predicted) == pytest.approx([math.sqrt(30 / 36) / 3])


def test_rotation_error_by_hand():
    truth = drive(np.zeros((3, 3)), [0, 0.1, 0.2])[None]
    predicted = drive(np.zeros((3, 3)), [0, 0.4, -0.4])[None]
    assert snippet_rotation_error(truth, predicted) == pytest.approx([(0 + 0.3 + 0.6) / 3])
    half_turn = drive(np.zeros((2, 3)), [0, math.pi])[None]
    assert snippet_rotation_error(half_turn, drive(np.zeros((2, 3)))[None]) == pytest.approx([math.pi / 2])


@pytest.mark.parametrize("frames", [3, 5])
def test_ground_truth_times_three_is_perfect(trajectory, frames):
    truth = snippets(trajectory, frames)
    predicted = truth.copy()
    predicted[..., 3] *= 3
    assert np.abs(snippet_ate(truth, predicted)).max() < 1e-12
    assert snippet_rotation_error(truth, predicted).max() < 1e-7
    assert snippet_scale(truth, predicted) == pytest.approx(np.full(len(truth), 1 / 3))


def test_each_snippet_has_its_own_scale(trajectory):
    truth = snippets(trajectory, 5)
    predicted = truth.copy()
    predicted[..., 3] *= np.arange(1, len(truth) + 1)[:, None, None]
    assert snippet_ate(truth, predicted).max() < 1e-12


def test_straight_line_is_exact_for_a_straight_drive_and_only_for_that(trajectory):
    straight = snippets(drive([[0, 0, 2.5 * frame] for frame in range(8)]), 5)
    assert snippet_ate(straight, straight_line(4, 5)).max() < 1e-12
    truth = snippets(trajectory, 5)
    assert snippet_ate(truth, straight_line(len(truth), 5)).min() > 1e-3


def test_a_prediction_that_stands_still_is_off_by_the_whole_way():
    truth = drive([[0, 0, 0], [0, 0, 3], [0, 0, 4]])[None]
    assert snippet_ate(truth, drive(np.zeros((3, 3)))[None]) == pytest.approx([5 / 3])
    assert snippet_ate(drive(np.zeros((3, 3)))[None], truth) == pytest.approx([0])  # the true car stands: scale 0


def test_predictions_that_are_not_finite_are_named(trajectory):
    truth = snippets(trajectory, 5)
    predicted = truth.copy()
    predicted[6, 2, 1, 3] = np.nan
    for metric in (snippet_ate, snippet_rotation_error):
        with pytest.raises(InputError, match=r"predicted poses: 1 of 26 .* snippet 6"):
            metric(truth, predicted)


@pytest.mark.parametrize("bad", ["zero", "singular", "mirror"])
def test_rotations_that_are_none_are_named(trajectory, bad):
    truth = snippets(trajectory, 5)
    predicted = truth.copy()
    rotation = predicted[6, 2, :, :3]
    if bad == "zero":
        rotation[:] = 0
    elif bad == "singular":
        rotation[1] = rotation[0]
    else:
        rotation[:, 0] *= -1
    with pytest.raises(InputError, match=r"snippet 6: its 3 x 3 part is no rotation"):
        snippet_rotation_error(truth, predicted)


def test_shapes_are_checked(trajectory):
    with pytest.raises(InputError, match="30 poses has no snippet of 31"):
        snippets(trajectory, 31)
    with pytest.raises(ValueError, match="expected \\[N, n, 3, 4\\]"):
        snippet_ate(snippets(trajectory, 5), snippets(trajectory, 3))
    with pytest.raises(ValueError, match="expected \\[F, 3, 4\\]"):
        snippets(trajectory.reshape(-1, 12), 5)


@pytest.mark.parametrize("source", sources("pose_snippets"))
@pytest.mark.parametrize("sequence", ["09", "10"])
def test_published_figures(source, sequence):
    reference = load("pose_snippets", source, motion)
    predicted = reference[f"{sequence}_predicted_snippets"]
    truth = snippets(reference[f"{sequence}_poses"], 5)
    for name, errors in (
        ("ate", snippet_ate(truth, predicted)),
        ("rotation_error", snippet_rotation_error(truth, predicted)),
        ("straight_line_ate", snippet_ate(truth, straight_line(len(truth), 5))),
    ):
        assert [errors.mean(), errors.std()] == pytest.approx(reference[f"{sequence}_{name}_mean_std"], abs=1e-6)


def test_mean_odometry_by_hand():
    # One snippet turns by 0.1 and goes 1 m ahead, the other turns by 0.3 and goes 3 m ahead and 1 m aside.
    first = drive([[0, 0, 0], [0, 0, 1]], [0, 0.1])
    second = drive([[0, 0, 0], [1, 0, 3]], [0, 0.3])
    mean = mean_odometry(np.stack([first, second]))
    np.testing.assert_allclose(mean, drive([[0, 0, 0], [0.5, 0, 2]], [0, 0.2]), atol=1e-12)


@pytest.mark.parametrize("frames", [3, 5])
def test_a_factor_of_seven_changes_nothing(trajectory, frames):
    truth = snippets(trajectory, frames)
    noisy = trajectory + np.random.default_rng(1).normal(0, 0.1, (30, 3, 1)) * [0, 0, 0, 1]
    predicted = snippets(noisy, frames)
    larger = predicted * [1, 1, 1, 7]
    assert (snippet_ate(truth, predicted) > 1e-3).all()
    np.testing.assert_allclose(snippet_ate(truth, larger), snippet_ate(truth, predicted), rtol=1e-9)
    np.testing.assert_allclose(snippet_scale(truth, larger), snippet_scale(truth, predicted) / 7, rtol=1e-9)
    np.testing.assert_array_equal(snippet_rotation_error(truth, larger), snippet_rotation_error(truth, predicted))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e200])
def test_what_is_too_large_to_be_squared_is_named(trajectory, value):
    truth = snippets(trajectory, 3)
    predicted = truth.copy()
    predicted[4, 2, 0, 3] = value
    with pytest.raises(InputError, match="1 of 28 snippets are not finite, the first is snippet 4"):
        snippet_ate(truth, predicted)
