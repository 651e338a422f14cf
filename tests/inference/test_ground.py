import numpy as np
import pytest
from path import Path

from geometry.rigid import axis_rotation, relative
from geometry.two_view import structure_from_tracks
from inference.ground import find_ground, height_over_distance, metric_views, pitch_of_motion
from tests.street import HEIGHT, WIDTH, K, drive, frames_of, road


@pytest.mark.parametrize(("height", "pitch", "roll"), [(1.65, 0, 0), (0.3, 3, -2), (2.0, -4, 1.5)])
def test_the_height_over_a_tilted_plane_is_exact(height, pitch, roll):
    ground = find_ground(road(height, pitch, roll, far=1e6), K)
    assert ground.height == pytest.approx(height, rel=1e-5)
    down = axis_rotation(0, np.radians(pitch)) @ axis_rotation(2, np.radians(roll)) @ [0, 1, 0]
    np.testing.assert_allclose(ground.normal, down, atol=1e-5)


def test_with_a_known_pitch_a_bent_road_does_not_matter():
    """A road that is seen a degree too steep: the height that is found with the tilt is 7 % off."""
    pitch = 2.0
    disparity, truth = road(1.65, pitch + 1), road(1.65, pitch)
    y = slice(int(0.6 * HEIGHT), int(0.97 * HEIGHT))
    disparity *= np.median(truth[y] / disparity[y])
    free, known = find_ground(disparity, K), find_ground(disparity, K, pitch)
    assert abs(known.height / 1.65 - 1) < 0.02 < abs(free.height / 1.65 - 1)
    assert find_ground(truth, K, pitch).height == pytest.approx(1.65, rel=1e-3)
    np.testing.assert_allclose(known.normal, [0, np.cos(np.radians(2)), np.sin(np.radians(2))], atol=1e-9)


def test_a_car_on_the_road_and_noise_do_not_matter():
    disparity = road(1.65) * np.random.default_rng(0).normal(1, 0.02, (HEIGHT, WIDTH)).astype(np.float32)
    disparity[20:60, 60:110] = 1 / 6  # the back of a car: 45 % of the area that is looked at
    assert find_ground(disparity, K).height == pytest.approx(1.65, rel=0.02)


def test_a_wall_is_no_ground():
    assert find_ground(np.full((HEIGHT, WIDTH), 0.1, np.float32), K) is None


def tracks_of(pose, height, pitch):
    """Pixels of points on a road and on posts beside it, in two views with this motion (metres)."""
    rng = np.random.default_rng(1)
    on_road = np.column_stack([rng.uniform(-2, 2, 80), np.full(80, height), rng.uniform(6, 20, 80)])
    posts = np.column_stack([rng.choice([-4.0, 4.0], 80), rng.uniform(-3, height, 80), rng.uniform(8, 40, 80)])
    points = np.concatenate([on_road, posts]) @ axis_rotation(0, np.radians(-pitch))  # world to camera
    moved = (points - pose[:3, 3]) @ pose[:3, :3]
    return tuple((seen / seen[:, 2:] @ K.T)[:, :2] for seen in (points, moved))


@pytest.mark.parametrize("pitch", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("turn", [0.0, 4.0])
def test_pitch_and_height_by_exact_tracks(pitch, turn):
    first, second = drive([0.9], pitch, turn)
    target, source = tracks_of(relative(first, second), 1.65, pitch)
    views = structure_from_tracks(target, source, K)
    assert pitch_of_motion([views]) == pytest.approx(pitch, abs=0.01)
    assert height_over_distance(views, K, pitch) == pytest.approx(1.65 / 0.9, rel=1e-3)


@pytest.mark.parametrize(("pitch", "turn", "height"), [(0.0, 0.0, 1.65), (2.0, 1.5, 1.2)])
def test_points_and_motion_of_a_drive_in_metres(tmp_path, pitch, turn, height):
    poses = drive(np.linspace(0.5, 0.8, 8), pitch, turn)
    grey, _ = frames_of(Path(tmp_path), poses, height)
    views, tried, found = metric_views(grey, K, height)
    assert tried == 9
    assert len(views) >= 7
    assert found == pytest.approx(pitch, abs=0.15)
    ratios = [view.distance / np.linalg.norm(poses[view.other, :3, 3] - poses[view.frame, :3, 3]) for view in views]
    assert np.median(ratios) == pytest.approx(1, abs=0.025)
    np.testing.assert_allclose(ratios, 1, atol=0.1)  # a pair's corners are found to a tenth of a pixel
    assert metric_views(grey, K, height, 0.5)[2] == 0.5


def test_frames_that_stand_show_no_motion(tmp_path):
    grey, _ = frames_of(Path(tmp_path), drive([0.0] * 3), 1.65)
    assert metric_views(grey, K, 1.65) == ([], 4, None)


def test_a_pavement_beside_the_lane_does_not_count():
    """Most points lie on ground that is 0.2 m higher, beyond 2.5 m to the side."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(-2, 2, 40), rng.uniform(2.6, 5, 120) * rng.choice([-1, 1], 120)])
    points = np.column_stack([x, np.where(np.abs(x) < 2.5, 1.65, 1.45), rng.uniform(5, 18, 160)])
    far = np.column_stack([rng.uniform(-9, 9, 60), rng.uniform(-4, 1, 60), rng.uniform(15, 60, 60)])
    points = np.concatenate([points, far])
    target, source = ((seen / seen[:, 2:] @ K.T)[:, :2] for seen in (points, points - [0, 0, 0.8]))
    views = structure_from_tracks(target, source, K)
    assert height_over_distance(views, K, 0.0) == pytest.approx(1.65 / 0.8, rel=1e-3)


def test_points_that_disagree_are_no_road():
    rng = np.random.default_rng(3)
    below = np.exp(rng.uniform(np.log(0.5), np.log(6), 200))  # heights that no band of 15 % holds many of
    points = np.column_stack([rng.uniform(-1.4, 1.4, 200), np.ones(200), rng.uniform(3, 9, 200)]) * below[:, None]
    target, source = ((seen / seen[:, 2:] @ K.T)[:, :2] for seen in (points, points - [0, 0, 0.8]))
    views = structure_from_tracks(target, source, K)
    assert views.problem is None
    assert height_over_distance(views, K, 0.0) is None
