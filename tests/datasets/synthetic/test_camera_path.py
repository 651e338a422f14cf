"""The camera moves as a car does, and stands where it halts."""

import numpy as np

from datasets.synthetic import make_scene
from datasets.synthetic.road import LANE_OFFSET


def test_speed_and_turns_are_those_of_a_car():
    for seed in range(6):
        scene = make_scene(np.random.default_rng(seed), 80)
        steps = np.linalg.norm(np.diff(scene.world_from_camera[:, :3, 3], axis=0), axis=1)
        assert steps.max() < 1.55
        assert (np.abs(np.diff(steps)) < 0.06).all()
        standing = steps < 1e-6
        rotation = scene.world_from_camera[:, :3, :3]
        turn = np.swapaxes(rotation[:-1], 1, 2) @ rotation[1:]
        assert np.degrees(np.arccos(np.clip((np.trace(turn, axis1=1, axis2=2) - 1) / 2, -1, 1))).max() < 4
        # It keeps to its lane.
        away = np.linalg.norm(scene.road.points[None] - scene.world_from_camera[:, None, :2, 3], axis=-1).min(1)
        assert np.abs(away - LANE_OFFSET).max() < 1.3
        if standing.any():
            assert (scene.world_from_camera[:-1][standing] == scene.world_from_camera[1:][standing]).all()


def test_halts_are_static_frames_and_can_be_left_out():
    standing: list[int] = []
    for halts in (True, False):
        steps = []
        for seed in range(6):
            scene = make_scene(np.random.default_rng(seed), 80, halts=halts)
            steps.append(np.linalg.norm(np.diff(scene.world_from_camera[:, :3, 3], axis=0), axis=1))
            static = np.flatnonzero(steps[-1] < 1e-6)
            assert (scene.light[static] == scene.light[static + 1]).all()
            assert len(np.unique(scene.light)) == 80 - len(static)
        standing.append((np.concatenate(steps) < 1e-6).sum())
    assert standing[0] >= 20
    assert standing[1] == 0
    assert np.concatenate(steps).min() > 0.25


def test_a_long_drive_halts_again_and_again():
    for seed in range(3):
        scene = make_scene(np.random.default_rng(seed), 600)
        standing = np.linalg.norm(np.diff(scene.world_from_camera[:, :3, 3], axis=0), axis=1) < 1e-6
        assert 2 <= (np.diff(standing.astype(int)) == 1).sum() <= 6
        assert 0.02 < standing.mean() < 0.25
