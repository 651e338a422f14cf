"""Bundle adjustment of clips: exact on projections in float64, robust, and each clip on its own."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geometry.bundle import ClipMotion, adjust_clips, first_motion
from geometry.rigid import transform_from

K = np.array([[240.0, 0, 207.0], [0, 242, 62], [0, 0, 1]])
REFERENCE, FRAMES, POINTS = 3, 7, 80


def clip(seed=0, turn=2.0):
    """Tracks [k, n, 2] of a camera that moves forward and turns, its motion [k, 4, 4], and inverse depths [n]."""
    random = np.random.default_rng(seed)
    pixels = random.uniform([20, 10], [395, 115], (POINTS, 2))
    inverse_depth = random.uniform(1 / 60, 1 / 6, POINTS)
    points = np.column_stack([pixels, np.ones(POINTS)]) @ np.linalg.inv(K).T / inverse_depth[:, None]
    motions = np.stack(
        [
            transform_from(
                Rotation.from_euler("yx", [turn * k, 0.3 * k], degrees=True).as_matrix(),
                np.array([0.05 * k * k, 0.02 * k, -0.8 * k]),
            )
            for k in range(-REFERENCE, FRAMES - REFERENCE)
        ]
    )
    moved = np.einsum("kij,nj->kni", motions[:, :3, :3], points) + motions[:, None, :3, 3]
    tracks = moved @ K.T
    return tracks[..., :2] / tracks[..., 2:], motions, inverse_depth


def batch(*starts):
    return ClipMotion(*(np.stack(parts) for parts in zip(*starts, strict=True)))


def adjust(tracks, intrinsics, iterations=40):
    start = first_motion(tracks, intrinsics, REFERENCE)
    return adjust_clips(tracks[None], intrinsics[None], batch(start), REFERENCE, iterations)


def test_motion_and_structure_are_found_up_to_scale():
    tracks, motions, inverse_depth = clip()
    found = adjust(tracks, K)
    assert found.cost[0] < 1e-8
    scale = inverse_depth[0] / found.inverse_depth[0, 0]
    assert found.inverse_depth[0] * scale == pytest.approx(inverse_depth, rel=1e-4)
    assert found.rotation[0] == pytest.approx(motions[:, :3, :3], abs=1e-5)
    assert found.translation[0] / scale == pytest.approx(motions[:, :3, 3], abs=1e-3)


def test_lost_tracks_and_moving_things_change_little():
    tracks, motions, _ = clip()
    tracks[5:, ::3] = np.nan
    tracks[:, 1:11] += 3 * (np.arange(FRAMES) - REFERENCE)[:, None, None] * [1.0, 0.4]  # ten points move on their own
    tracks[REFERENCE, 70:] = np.nan  # not known in the reference: counts nowhere
    start = first_motion(tracks[:, :70], K, REFERENCE)
    start = start._replace(inverse_depth=np.pad(start.inverse_depth, (0, 10), constant_values=1.0))
    found = adjust_clips(tracks[None], K[None], batch(start), REFERENCE, 40)
    assert found.rotation[0] == pytest.approx(motions[:, :3, :3], abs=2e-3)


def test_a_clip_does_not_depend_on_those_beside_it():
    one, other = clip()[0], clip(1, turn=-1.0)[0]
    starts = [first_motion(tracks, K, REFERENCE) for tracks in (one, other)]
    together = adjust_clips(np.stack([one, other]), np.stack([K, 1.1 * K]), batch(*starts), REFERENCE, 6)
    alone = adjust_clips(one[None], K[None], batch(starts[0]), REFERENCE, 6)
    assert together.cost[0] == pytest.approx(alone.cost[0])
    assert together.rotation[0] == pytest.approx(alone.rotation[0])


def test_no_step_makes_it_worse():
    tracks = clip()[0]
    costs = [adjust(tracks, K, iterations).cost[0] for iterations in range(6)]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("factor", [0.7, 1.45])
def test_a_wrong_focal_length_fits_worse_where_the_camera_turns(factor):
    tracks = clip(turn=3.0)[0]
    wrong = K * [[factor, 1, 1], [1, factor, 1], [1, 1, 1]]
    assert adjust(tracks, wrong).cost[0] > 10 + adjust(tracks, K).cost[0]


def test_without_tracks_to_one_side_there_is_no_first_motion():
    tracks = clip()[0]
    tracks[:REFERENCE, 10:] = np.nan
    assert first_motion(tracks, K, REFERENCE) is None
