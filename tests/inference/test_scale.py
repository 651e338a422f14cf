import numpy as np
import pytest
from path import Path

from files.disk_array import DiskArray
from files.errors import InputError
from inference.clip import PredictedClip
from inference.scale import scale_from_distance, scale_from_height, scale_from_speed
from tests.street import HEIGHT, WIDTH, K, frames_of, road
from tests.street import drive as drive_street


def clip_of(folder, maps, times=None):
    array = DiskArray(Path(folder), maps[0].shape, np.float32)
    for one in maps:
        array.append(one)
    times = list(np.arange(len(maps)) / 10) if times is None else times
    names = [f"{number:07d}" for number in range(len(maps))]
    return PredictedClip(names, times, array, None, None, np.zeros(2000, np.int64), 1.0)


def test_scale_over_a_clip(tmp_path):
    wall = np.full((HEIGHT, WIDTH), 0.1, np.float32)
    maps = [road(0.5 * factor) for factor in (0.95, 1.0, 1.0, 1.05, 1.0)] + [wall] * 3
    scale = scale_from_height(clip_of(tmp_path, maps), None, K, 1.65)
    assert scale.metric
    assert scale.value == pytest.approx(3.3, rel=1e-4)
    assert scale.frames_used == pytest.approx(5 / 8)
    with pytest.raises(InputError, match="0 of 3 frames show a ground plane"):
        scale_from_height(clip_of(tmp_path, [wall] * 3), None, K, 1.65)


def test_the_height_gives_depth_and_motion_their_factors(tmp_path):
    """Depth in a third of a metre, translations in a quarter, and a predicted road that is tilted does not matter."""
    poses = drive_street([0.6, 0.7, 0.8, 0.7, 0.6, 0.5], pitch=1.0, turn=0.5)
    grey, disparity = frames_of(Path(tmp_path), poses, 1.65)
    clip = clip_of(tmp_path, [disparity[number] / 3 for number in range(len(poses))])
    clip.grey = grey
    predicted = poses[:, :3].copy()
    predicted[..., 3] *= 4
    scale = scale_from_height(clip, predicted, K, 1.65)
    assert scale.value == pytest.approx(1 / 3, rel=0.03)
    assert scale.motion == pytest.approx(1 / 4, rel=0.03)
    np.testing.assert_allclose(
        scale.value * scale.in_unit_of_depth(predicted)[..., 3], scale.motion * predicted[..., 3]
    )
    assert "by the motion in the images" in scale.source
    assert scale.frames_used > 0.8
    assert scale.spread < 0.1
    assert scale_from_height(clip, None, K, 1.65).motion is None


def test_a_clip_that_stands_falls_back_to_the_predicted_plane(tmp_path):
    grey, disparity = frames_of(Path(tmp_path), drive_street([0.0] * 4), 1.65)
    clip = clip_of(tmp_path, [disparity[number] / 3 for number in range(5)])
    clip.grey = grey
    scale = scale_from_height(clip, drive([0.0] * 4), K, 1.65)
    assert scale.value == pytest.approx(1 / 3, rel=0.005)
    assert scale.motion is None
    assert "above a plane fitted to the predicted depth, pitch" in scale.source
    assert scale.source.endswith("; too few frames show motion over a road")


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
