import numpy as np
import pytest
from path import Path

from files.disk_array import DiskArray
from files.errors import InputError
from geometry.rigid import axis_rotation
from inference.clip import PredictedClip
from inference.scale import find_ground, scale_from_distance, scale_from_height, scale_from_speed

HEIGHT, WIDTH = 64, 208
K = np.array([[120, 0, 103.5], [0, 130, 30.0], [0, 0, 1.0]])


def rays():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T


def road(height, pitch=0.0, roll=0.0, far=200.0):
    """Disparity of a road that a camera at this height, pitched and rolled by degrees, sees below a wall."""
    down = axis_rotation(0, np.radians(pitch)) @ axis_rotation(2, np.radians(roll)) @ [0, 1, 0]
    return np.maximum(rays() @ down / height, 1 / far).astype(np.float32)


def clip_of(folder, maps, times=None):
    array = DiskArray(Path(folder), maps[0].shape, np.float32)
    for one in maps:
        array.append(one)
    times = list(np.arange(len(maps)) / 10) if times is None else times
    names = [f"{number:07d}" for number in range(len(maps))]
    return PredictedClip(names, times, array, None, None, np.zeros(2000, np.int64), 1.0)


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


def test_scale_over_a_clip(tmp_path):
    wall = np.full((HEIGHT, WIDTH), 0.1, np.float32)
    maps = [road(0.5 * factor) for factor in (0.95, 1.0, 1.0, 1.05, 1.0)] + [wall] * 3
    scale = scale_from_height(clip_of(tmp_path, maps), K, 1.65)
    assert scale.metric
    assert scale.value == pytest.approx(3.3, rel=1e-4)
    assert scale.frames_used == pytest.approx(5 / 8)
    with pytest.raises(InputError, match="0 of 3 frames show a ground plane"):
        scale_from_height(clip_of(tmp_path, [wall] * 3), K, 1.65)


def drive(steps):
    poses = np.tile(np.eye(3, 4), (len(steps) + 1, 1, 1))
    poses[1:, 2, 3] = np.cumsum(steps)
    return poses


def test_scale_from_speed(tmp_path):
    """10 m/s for 2 s, then standing: steps of 1 m that the network takes for 0.25, and noise while standing."""
    clip = clip_of(tmp_path, [road(1)] * 41)
    poses = drive([0.25] * 20 + [0.01] * 20)
    file = Path(tmp_path) / "speed.txt"
    file.write_text("0 10\n2 10\n2.0001 0\n4 0\n")
    scale = scale_from_speed(clip, poses, file, True)
    assert scale.value == pytest.approx(4, rel=0.03)
    assert scale.spread < 0.05
    assert 0.45 < scale.frames_used < 0.55
    file.write_text("0 0\n4 0\n")
    with pytest.raises(InputError, match="never faster than 1 m/s"):
        scale_from_speed(clip, poses, file, True)
    file.write_text("0 5\n1 5\n")
    with pytest.raises(InputError, match="speeds from 0 to 1 s, but the clip lasts from 0 to 4 s"):
        scale_from_speed(clip, poses, file, True)
    with pytest.raises(InputError, match="--fps says"):
        scale_from_speed(clip, poses, file, False)


def test_scale_from_oxts(tmp_path):
    folder = Path(tmp_path) / "oxts"
    (folder / "data").makedirs_p()
    stamps = []
    for number in range(5):
        packet = np.zeros(30)
        packet[8:11] = [6, 8, 0]
        (folder / "data" / f"{number:010d}.txt").write_text(" ".join(map(str, packet)) + "\n")
        stamps.append(f"2011-09-26 13:00:00.{number}00000000\n")
    (folder / "timestamps.txt").write_text("".join(stamps))
    scale = scale_from_speed(clip_of(tmp_path, [road(1)] * 5), drive([0.5] * 4), folder, False)
    assert scale.value == pytest.approx(2)
    with pytest.raises(InputError, match="no packet for frame 5"):
        scale_from_speed(clip_of(tmp_path, [road(1)] * 6), drive([0.5] * 5), folder, False)


def test_scale_from_a_distance(tmp_path):
    clip = clip_of(tmp_path, [np.full((HEIGHT, WIDTH), 0.5, np.float32)])  # a wall at depth 2
    big = np.diag([2, 2, 1]) @ K  # the input has twice the size
    scale = scale_from_distance(clip, big, (10, 20), (130, 20), 5.0, (2 * HEIGHT, 2 * WIDTH))
    assert scale.value == pytest.approx(5 / (2 * 120 / 240))
    with pytest.raises(InputError, match="lies outside"):
        scale_from_distance(clip, big, (10, 20), (500, 20), 5.0, (2 * HEIGHT, 2 * WIDTH))
