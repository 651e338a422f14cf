import time

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from evaluation.metrics.pose import snippets
from evaluation.metrics.trajectory import (
    ALIGNMENTS,
    align,
    associate,
    chain_snippets,
    path_lengths,
    segment_errors,
    trajectory_errors,
)
from files.errors import InputError
from geometry.pose import pose_to_matrix, snippet_poses
from geometry.rigid import compose_motions, relative, to_homogeneous
from tests import oracles
from tests.oracles import motion as motion_oracle

FIGURES = ("t_err_percent", "r_err_deg_per_100m", "ate_m", "rpe_m", "rpe_deg")


def poses(rotations, positions):
    return np.concatenate([rotations.as_matrix(), np.asarray(positions, dtype=float)[..., None]], -1)


def drive(length=400, seed=0):
    """A winding drive of about 1.5 m a frame, which begins at the identity."""
    random = np.random.default_rng(seed)
    turns = Rotation.from_euler("xyz", random.normal(0, [0.003, 0.03, 0.002], (length - 1, 3)))
    return compose_motions(poses(turns, random.normal([0, 0, 1.5], [0.02, 0.01, 0.3], (length - 1, 3))))


def disturbed(truth, seed=1):
    """The trajectory of the true motions with noise on each: it drifts."""
    motion = relative(to_homogeneous(truth[:-1]), to_homogeneous(truth[1:]))
    random = np.random.default_rng(seed)
    turns = Rotation.from_euler("xyz", random.normal(0, 0.003, (len(motion), 3)))
    noise = poses(turns, random.normal(0, 0.03, (len(motion), 3)))
    return compose_motions((motion @ to_homogeneous(noise))[:, :3])


def straight(count, metres):
    return poses(Rotation.identity(count), np.arange(count)[:, None] * [0, 0, metres])


# Chaining


def test_a_circle_of_constant_motion_composes_to_the_analytic_circle():
    radius, count = 10.0, 720
    angle = 2 * np.pi / count
    # A network's 6-vectors, float32: along the chord of the arc, and half the angle's turn into it.
    chord = 2 * radius * np.sin(angle / 2)
    motion = [chord * np.sin(angle / 2), 0, chord * np.cos(angle / 2), 0, angle, 0]
    next_from_previous = torch.linalg.inv(pose_to_matrix(torch.tensor(motion, dtype=torch.float32).double()))
    previous_from_next = torch.linalg.inv(next_from_previous)
    for sources in (2, 4):
        half = sources // 2
        steps = [*range(-half, 0), *range(1, half + 1)]
        source_from_target = torch.stack([torch.linalg.matrix_power(next_from_previous, step) for step in steps])
        snippet = snippet_poses(source_from_target)[:, :3].numpy()
        np.testing.assert_allclose(snippet[1], previous_from_next[:3], atol=1e-12)
        chained = chain_snippets(np.tile(snippet, (count + 1 - sources, 1, 1, 1)))
        turned = angle * np.arange(count + 1)
        circle = radius * np.stack([1 - np.cos(turned), 0 * turned, np.sin(turned)], -1)
        assert chained.shape == (count + 1, 3, 4)
        np.testing.assert_allclose(chained[..., 3], circle, atol=1e-5)
        expected = Rotation.from_euler("y", turned[:, None]).as_matrix()
        np.testing.assert_allclose(chained[..., :3], expected, atol=1e-5)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_true_snippets_chain_to_the_true_trajectory(frames):
    truth = drive(60)
    np.testing.assert_allclose(chain_snippets(snippets(truth, frames)), truth, atol=1e-10)


def test_a_motion_is_the_mean_of_what_the_snippets_say():
    predicted = snippets(straight(5, 1.0), 3).copy()  # motions 0-1-2, 1-2-3, 2-3-4
    predicted[1, :, 2, 3] *= 2  # the middle snippet says 2 m a frame
    np.testing.assert_allclose(chain_snippets(predicted)[:, 2, 3], [0, 1, 2.5, 4, 5])
    turned = snippets(straight(4, 1.0), 2).copy()
    turned[1, 1, :, :3] = Rotation.from_euler("y", 0.2).as_matrix()
    chained = chain_snippets(turned)
    np.testing.assert_allclose(
        chained[3], [*poses(Rotation.from_euler("y", [[0.2]]), [[np.sin(0.2), 0, 2 + np.cos(0.2)]])[0]]
    )


def test_snippets_that_cannot_be_chained():
    predicted = snippets(drive(20), 3).copy()
    for value, message in (
        (np.nan, r"snippet 7 is not finite \(1 are not\)"),
        (5.0, "snippet 7: its 3 x 3 part is no"),
    ):
        broken = predicted.copy()
        broken[7, 1, 0, 0] = value
        with pytest.raises(InputError, match=message):
            chain_snippets(broken)
    with pytest.raises(ValueError, match="expected"):
        chain_snippets(predicted[:, :1])


# Figures


@pytest.mark.parametrize("source", oracles.sources("odometry_metrics"))
def test_figures_agree_with_the_reference(source):
    reference = oracles.load_trajectory(source, motion_oracle)
    for alignment in ALIGNMENTS:
        found = trajectory_errors(reference["truth"], reference["predicted"], alignment)
        for name, expected in reference["figures"][alignment].items():
            assert found[name] == pytest.approx(expected, rel=1e-5), (alignment, name)


def test_segments_of_a_long_drive_take_milliseconds():
    truth = drive(4541)
    predicted = disturbed(truth)
    start = time.process_time()
    segment_errors(truth, predicted)
    assert time.process_time() - start < 0.5  # 0.015 s


def test_a_scale_error_is_a_drift_in_percent_by_hand():
    """Every metre of a straight drive taken for 1.1 m."""
    found = trajectory_errors(straight(502, 1.0), straight(502, 1.1), "none")
    # A segment of 100 m ends with the first frame beyond: 101 m, of which 10.1 m are too much.
    expected = {length: 100 * 0.1 * (length + 1) / length for length in (100, 200, 300, 400, 500)}
    starts = {100: 41, 200: 31, 300: 21, 400: 11, 500: 1}  # every tenth frame that has so much way before it
    assert {length: figures["segments"] for length, figures in found["by_length"].items()} == starts
    for length, figures in found["by_length"].items():
        assert figures["t_err_percent"] == pytest.approx(expected[length])
        assert figures["r_err_deg_per_100m"] == 0
    total = sum(starts.values())
    assert found["segments"] == total
    assert found["t_err_percent"] == pytest.approx(sum(expected[n] * starts[n] for n in starts) / total)
    assert found["ate_m"] == pytest.approx(0.1 * np.sqrt(np.mean(np.arange(502.0) ** 2)))
    assert found["rpe_m"] == found["rpe_rmse_m"] == pytest.approx(0.1)
    scaled = trajectory_errors(straight(502, 1.0), straight(502, 1.1), "scale")
    assert scaled["scale"] == pytest.approx(1 / 1.1)
    assert scaled["t_err_percent"] == pytest.approx(0, abs=1e-10)


def test_a_turning_camera_is_a_rotation_error_by_hand():
    """A camera that goes straight on and is said to turn by 0.001 rad a metre, about its way: the path is right."""
    count = 202
    turned = poses(Rotation.from_euler("z", 0.001 * np.arange(count)[:, None]), straight(count, 1.0)[..., 3])
    found = trajectory_errors(straight(count, 1.0), turned, "none")
    assert found["segments"] == 11 + 1
    expected = {100: np.degrees(0.101) / 100, 200: np.degrees(0.201) / 200}
    for length, degrees in expected.items():
        assert found["by_length"][length]["r_err_deg_per_100m"] == pytest.approx(100 * degrees)
    assert found["t_err_percent"] == pytest.approx(0, abs=1e-10)
    assert found["ate_m"] == pytest.approx(0, abs=1e-12)
    assert found["rpe_deg"] == pytest.approx(np.degrees(0.001))
    assert found["rpe_rmse_deg"] == pytest.approx(np.degrees(0.001))


def test_ate_and_rpe_of_one_wrong_position_by_hand():
    truth, predicted = straight(5, 2.0), straight(5, 2.0)
    predicted[2, 0, 3] = 3.0
    found = trajectory_errors(truth, predicted, "none")
    assert found["ate_m"] == pytest.approx(3 / np.sqrt(5))
    assert found["rpe_m"] == pytest.approx(3 * 2 / 4)
    assert found["rpe_rmse_m"] == pytest.approx(np.sqrt(2 * 9 / 4))
    assert found["t_err_percent"] is None  # 8 m: not one segment
    assert found["segments"] == 0
    assert found["by_length"] == {}
    # The best factor from the first camera on: true 2 4 6 8 forward, predicted the same and 3 aside once.
    assert align(truth, predicted, "scale").scale == pytest.approx(120 / 129)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_ground_truth_as_its_own_prediction_is_perfect(alignment):
    found = trajectory_errors(drive(), drive(), alignment)
    for name in (*FIGURES, "rpe_rmse_m", "rpe_rmse_deg"):
        assert found[name] == pytest.approx(0, abs=1e-5 if "deg" in name else 1e-10), name
    assert found["scale"] == pytest.approx(1)
    assert found["segments"] > 50


@pytest.mark.parametrize("alignment", ["scale", "7dof"])
def test_a_factor_of_seven_changes_nothing_where_a_scale_is_fitted(alignment):
    truth = drive()
    predicted = disturbed(truth)
    larger = predicted * [1, 1, 1, 7]
    found, of_larger = (trajectory_errors(truth, p, alignment) for p in (predicted, larger))
    for name in (*FIGURES, "rpe_rmse_m", "rpe_rmse_deg"):
        assert found[name] > 1e-3
        assert of_larger[name] == pytest.approx(found[name], rel=1e-9), name
    assert of_larger["scale"] == pytest.approx(found["scale"] / 7)


def test_alignments_undo_what_they_are_for():
    truth = drive()
    turn, shift = Rotation.from_euler("xyz", [0.5, -2, 1]).as_matrix(), np.array([10.0, -20, 30])
    moved = np.concatenate([turn @ truth[..., :3], (truth[..., 3] @ turn.T + shift)[..., None]], -1)
    assert trajectory_errors(truth, moved, "none")["ate_m"] > 10
    found = trajectory_errors(truth, moved, "6dof")
    assert found["ate_m"] < 1e-10
    shrunk = moved * [1, 1, 1, 0.25]
    assert trajectory_errors(truth, shrunk, "6dof")["ate_m"] > 10
    similarity = align(truth, shrunk, "7dof")
    assert similarity.scale == pytest.approx(4)
    np.testing.assert_allclose(similarity.apply(shrunk), truth, atol=1e-9)
    # From the first camera on, also where neither trajectory begins at the identity.
    np.testing.assert_allclose(
        align(moved, truth * [1, 1, 1, 0.25], "scale").apply(truth * [1, 1, 1, 0.25]), moved, atol=1e-9
    )


def test_alignment_is_never_a_mirror_and_is_the_best_one():
    truth = drive(100)
    flat = truth.copy()
    flat[:, 1, 3] = 0
    mirrored = flat * np.array([-1, 1, 1])[:, None]
    similarity = align(flat, mirrored, "7dof")
    assert np.linalg.det(similarity.rotation) == pytest.approx(1)
    similarity = align(truth, disturbed(truth), "7dof")
    best = np.linalg.norm(similarity.apply(disturbed(truth))[..., 3] - truth[..., 3])
    random = np.random.default_rng(0)
    for _ in range(50):  # no similarity near it is better
        turn = Rotation.from_rotvec(random.normal(0, 0.01, 3)).as_matrix()
        scale = similarity.scale * random.normal(1, 0.01)
        other = scale * disturbed(truth)[..., 3] @ (turn @ similarity.rotation).T
        other += (truth[..., 3] - other).mean(0)
        assert np.linalg.norm(other - truth[..., 3]) >= best


def test_a_prediction_that_stands_still_has_no_scale():
    truth = drive(30)
    still = np.tile(np.eye(3, 4), (30, 1, 1))
    for alignment in ALIGNMENTS:
        found = trajectory_errors(truth, still, alignment)
        assert np.isfinite([found[name] for name in ("ate_m", "rpe_m", "rpe_deg", "scale")]).all()
        assert found["ate_m"] > 1
    assert align(truth, still, "7dof").scale == align(truth, still, "scale").scale == 0


@pytest.mark.parametrize("position", [[0.1, -0.3, 0.7], [512345.6, 5412345.7, 113.2]])
def test_standing_still_elsewhere_but_for_rounding_has_no_scale(position):
    truth = drive(3000)
    still = np.concatenate([truth[..., :3], np.broadcast_to(np.array(position)[:, None], (3000, 3, 1))], -1)
    noisy = still.copy()
    noisy[::2, :, 3] *= 1 + 2e-16
    noisy[::3, :, 3] *= 1 - 2e-16
    assert (noisy != still).any()
    for predicted in (still, noisy):
        for kind in ("scale", "7dof"):
            assert align(truth, predicted, kind).scale == 0
        assert align(truth, predicted, "6dof").scale == 1
    moving = still.copy()
    moving[..., 3] += 1e-6 * truth[..., 3]  # as much as float64 can tell beside millions of metres
    assert align(truth, moving, "7dof").scale == pytest.approx(1e6, rel=0.01)


def test_rigid_alignment_does_not_change_relative_errors():
    truth = drive(800)
    predicted = disturbed(truth)
    none, rigid = (trajectory_errors(truth, predicted, alignment) for alignment in ("none", "6dof"))
    for name in ("t_err_percent", "r_err_deg_per_100m", "rpe_m", "rpe_deg"):
        assert rigid[name] == pytest.approx(none[name], rel=1e-9)
    assert rigid["ate_m"] < none["ate_m"]


def test_the_published_angle_is_coarse_where_digits_are_few():
    """Why evo's rotation part of RPE is another than KITTI's: 7 digits in a file are 3e-4 of angle by arccos."""
    truth = drive(200)
    rounded = disturbed(truth).round(6)
    found = trajectory_errors(truth, rounded, "none")
    exact = trajectory_errors(truth, disturbed(truth), "none")
    assert found["rpe_rmse_deg"] == pytest.approx(exact["rpe_rmse_deg"], rel=1e-4)
    assert found["rpe_deg"] != pytest.approx(exact["rpe_deg"], rel=1e-4)
    assert found["rpe_deg"] == pytest.approx(exact["rpe_deg"], rel=0.05)


def test_poses_that_cannot_be_scored_are_named():
    truth = drive(20)
    for which, index, value, message in (
        (0, 3, np.inf, "true pose 3 is not finite"),
        (1, 4, np.nan, "predicted pose 4 is not finite"),
        (1, 5, 3.0, "predicted pose 5: its 3 x 3 part is no rotation"),
    ):
        pair = [truth.copy(), truth.copy()]
        pair[which][index, 0, 0] = value
        with pytest.raises(InputError, match=message):
            trajectory_errors(*pair, "7dof")
    for wrong in (truth[:5], truth[..., :3]):
        with pytest.raises(ValueError, match="trajectories: got shapes"):
            align(truth, wrong, "none")
    with pytest.raises(ValueError, match="alignment: got '5dof'"):
        align(truth, truth, "5dof")


def test_path_lengths():
    np.testing.assert_allclose(path_lengths(straight(4, 1.5)), [0, 1.5, 3, 4.5])


# Association by time


@pytest.mark.parametrize("seed", range(20))
def test_association_by_time_is_evos(seed):
    sync = pytest.importorskip("evo.core.sync")
    trajectory = pytest.importorskip("evo.core.trajectory")
    random = np.random.default_rng(seed)
    times, true_times = (
        np.unique(np.round(random.uniform(0, 3, random.integers(1, 60)), 2)) for _ in range(2)
    )  # rounded: many pairs are equally near
    difference = float(random.choice([0.01, 0.03, 0.2]))

    def numbered(stamps):
        numbers = np.arange(len(stamps), dtype=float)[:, None]
        return trajectory.PoseTrajectory3D(numbers * [1, 0, 0], np.tile([1.0, 0, 0, 0], (len(stamps), 1)), stamps)

    found = associate(times, true_times, difference)
    try:
        true_part, part = sync.associate_trajectories(numbered(true_times), numbered(times), max_diff=difference)
    except sync.SyncException:
        assert len(found[0]) == len(found[1]) == 0
        return
    np.testing.assert_array_equal(found[0], part.positions_xyz[:, 0])
    np.testing.assert_array_equal(found[1], true_part.positions_xyz[:, 0])


def test_association_by_hand():
    found = associate(np.array([0.0, 0.1, 0.2, 0.3, 0.4]), np.array([-1.0, 0.104, 0.25, 0.39]), 0.02)
    np.testing.assert_array_equal(found[0], [1, 4])
    np.testing.assert_array_equal(found[1], [1, 3])
