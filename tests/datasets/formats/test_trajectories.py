import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from path import Path
from scipy.spatial.transform import Rotation

from datasets.formats.trajectories import read_frame_times, read_trajectory, write_tum_trajectory
from datasets.layout import write_poses
from files.errors import InputError

KITTI_LINE = "1 0 0 0 0 1 0 0 0 0 1 0"
TUM_LINE = "0.1 1 2 3 0 0 0 1"


def random_poses(count=20):
    rotation = Rotation.from_quat(np.random.default_rng(1).normal(size=(count, 4))).as_matrix()
    return np.concatenate([rotation, np.random.default_rng(0).normal(size=(count, 3, 1)) * 100], -1)


def test_written_files_are_read_again(tmp_path):
    poses, times = random_poses(), 1e9 + 0.1 * np.arange(20)
    kitti, tum = Path(tmp_path) / "a.txt", Path(tmp_path) / "b.txt"
    write_poses(kitti, poses)
    write_tum_trajectory(tum, times, poses)
    found = read_trajectory(kitti)
    np.testing.assert_array_equal(found.world_from_camera, poses)
    assert found.times is None
    found = read_trajectory(tum)
    np.testing.assert_allclose(found.world_from_camera, poses, atol=1e-14)
    np.testing.assert_array_equal(found.times, times)
    np.testing.assert_array_equal(found.lines, np.arange(20) + 1)


def test_evo_reads_the_files_as_they_are(tmp_path):
    interface = pytest.importorskip("evo.tools.file_interface")
    poses, times = random_poses(), 0.1 * np.arange(20)
    kitti, tum = Path(tmp_path) / "a.txt", Path(tmp_path) / "b.txt"
    write_poses(kitti, poses)
    write_tum_trajectory(tum, times, poses)
    found = interface.read_kitti_poses_file(str(kitti))
    assert found.check()[0]
    np.testing.assert_array_equal(np.array(found.poses_se3)[:, :3], poses)
    found = interface.read_tum_trajectory_file(str(tum))
    assert found.check()[0]
    np.testing.assert_array_equal(found.timestamps, times)
    np.testing.assert_allclose(np.array(found.poses_se3)[:, :3], poses, atol=1e-12)


def test_files_that_evo_writes_are_read(tmp_path):
    interface = pytest.importorskip("evo.tools.file_interface")
    trajectory = pytest.importorskip("evo.core.trajectory")
    poses, times = random_poses(), 0.1 * np.arange(20)
    square = np.concatenate([poses, np.tile([[[0.0, 0, 0, 1]]], (20, 1, 1))], 1)
    stamped = trajectory.PoseTrajectory3D(poses_se3=list(square), timestamps=times)
    interface.write_kitti_poses_file(f"{tmp_path}/a.txt", stamped)
    interface.write_tum_trajectory_file(f"{tmp_path}/b.txt", stamped)
    for name, expected in (("a.txt", None), ("b.txt", times)):
        found = read_trajectory(Path(tmp_path) / name)
        np.testing.assert_allclose(found.world_from_camera, poses, atol=1e-12)
        assert (found.times is None) == (expected is None)


def test_comments_and_lines_at_the_end_do_not_count_but_keep_their_numbers(tmp_path):
    file = Path(tmp_path) / "a.txt"
    file.write_text(f"# time x y z qx qy qz qw\n{TUM_LINE}\n# again\n0.2 0 0 0 0 0 1 0\n\n")
    found = read_trajectory(file)
    np.testing.assert_array_equal(found.lines, [2, 4])
    np.testing.assert_array_equal(found.world_from_camera[0], [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3]])
    np.testing.assert_allclose(found.world_from_camera[1, :, :3], np.diag([-1.0, -1, 1]), atol=1e-15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no poses, expected 12 numbers a line \(KITTI\) or 8"),
        ("# only this\n", "no poses"),
        ("1 2 3\n", r"line 1: got 3 numbers, expected 12 \(KITTI\) or 8"),
        (f"{KITTI_LINE}\n{KITTI_LINE} 7\n", "line 2: got 13 numbers, expected 12"),
        (f"{KITTI_LINE}\n\n{KITTI_LINE}\n", "line 2: got 0 numbers, expected 12"),
        (f"{KITTI_LINE}\n{TUM_LINE}\n", "line 2: got 8 numbers, expected 12"),
        (
            f"{KITTI_LINE}\n{KITTI_LINE}\n" + KITTI_LINE.replace("0", "nan", 1),
            "line 3: got a number that is not finite",
        ),
        (KITTI_LINE.replace("1", "x", 1), "line 1: got 'x', expected numbers: 12 .*; # begins a header line"),
        (f"{KITTI_LINE}\n" + KITTI_LINE.replace("1", "x", 1), "line 2: could not convert"),
        (f"timestamp tx ty tz qx qy qz qw\n{TUM_LINE}\n", "line 1: got 'timestamp', .* # begins a header line"),
        (f"#a header\n{TUM_LINE.replace(' ', ',')}\n", "line 2: commas between the numbers, expected blanks"),
        (KITTI_LINE.replace(" ", ", "), "line 1: commas between the numbers"),
        (TUM_LINE.replace(" ", ";"), "line 1: semicolons between the numbers"),
        (f"{KITTI_LINE}\n" + KITTI_LINE.replace("1", "-1", 1), "line 2: the 3 x 3 part is no rotation"),
        (f"{KITTI_LINE}\n" + KITTI_LINE.replace("1", "1.1", 1), "line 2: the 3 x 3 part is no rotation"),
        (f"{KITTI_LINE}\n" + KITTI_LINE.replace("0", "1e200", 2), "line 2: the 3 x 3 part is no rotation"),
        (f"{KITTI_LINE}\n1 0 0 -1e13 0 1 0 0 0 0 1 0\n", "line 2: a position farther than 1e12"),
        ("0.1 1e200 2 3 0 0 0 1\n", "line 1: a position farther than 1e12"),
        ("0 " * 12, "line 1: the 3 x 3 part is no rotation"),
        (f"# a comment\n{TUM_LINE}\n0.2 1 2 3 0 0 0 0\n", "line 3: the quaternion's length is not 1"),
        (f"{TUM_LINE}\n{TUM_LINE}\n", "line 2: the time is not later"),
        (f"{TUM_LINE}\n0.05 1 2 3 0 0 0 1\n", "line 2: the time is not later"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, text, message):
    file = Path(tmp_path) / "trajectory.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_trajectory(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_other_files(tmp_path):
    file = Path(tmp_path) / "trajectory.txt"
    with pytest.raises(InputError, match="no such file"):
        read_trajectory(file)
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_trajectory(file)


def test_frame_times(tmp_path):
    file = Path(tmp_path) / "times.txt"
    file.write_text("0\n1.0e-01\n0.2\n")
    np.testing.assert_allclose(read_frame_times(file, 3), [0, 0.1, 0.2])
    with pytest.raises(InputError, match=r"times.txt: 3 times, expected 4, one for each pose"):
        read_frame_times(file, 4)
    file.write_text("0\n0.2\n0.2\n")
    with pytest.raises(InputError, match=r"times.txt, line 3: the time is not later"):
        read_frame_times(file, 3)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_made_up_damage_is_an_error_of_ours_or_no_damage(tmp_path, data):
    """A good file with some bytes replaced, cut out or added."""
    tum = data.draw(st.booleans())
    poses = random_poses(4)
    file = Path(tmp_path) / "trajectory.txt"
    if tum:
        write_tum_trajectory(file, 0.1 * np.arange(4), poses)
    else:
        write_poses(file, poses)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(begin, min(len(content), begin + 40)))
        pieces = [b"nan", b"1e999", b"-", b" ", b"\n", b"\x00", b"\xff", b"# ", b"0x1", b"1_0", b"7" * 400, b"\xd9\xa3"]
        content[begin:end] = data.draw(st.one_of(st.sampled_from(pieces), st.binary(max_size=8), st.just(b"")))
    file.write_bytes(bytes(content))
    found, message = None, ""
    try:
        found = read_trajectory(file)
    except InputError as error:
        message = str(error)
    if found is None:
        assert message.startswith(str(file))
        assert "\n" not in message
        return
    assert np.isfinite(found.world_from_camera).all()
    rotation = found.world_from_camera[..., :3]
    assert np.abs(rotation.swapaxes(-1, -2) @ rotation - np.eye(3)).max() < 0.05
    assert found.world_from_camera.shape[1:] == (3, 4)
    assert (np.diff(found.lines) > 0).all()
