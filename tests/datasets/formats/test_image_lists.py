"""TUM RGB-D, EuRoC and COLMAP folders: images in order of time, with the poses and the camera that the files state."""

import struct

import numpy as np
import pytest
from path import Path
from scipy.spatial.transform import Rotation

from datasets.formats.image_lists import find_recording, read_colmap
from datasets.formats.video import Reading
from datasets.preparation.video_inputs import find_inputs
from files.errors import InputError
from files.images import write_jpeg

POSES = np.tile(np.eye(4), (4, 1, 1))
POSES[:, :3, :3] = Rotation.from_euler("xyz", [[0, 10 * n, 5] for n in range(4)], degrees=True).as_matrix()
POSES[:, :3, 3] = [[n, 0.1 * n, 2] for n in range(4)]
XYZW = Rotation.from_matrix(POSES[:, :3, :3]).as_quat()


def write_images(folder, names):
    for name in names:
        (folder / name).parent.makedirs_p()
        write_jpeg(folder / name, np.zeros((48, 64, 3), np.uint8))


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path)


def test_tum(folder):
    names = [f"rgb/{n}.jpg" for n in range(4)]
    write_images(folder, names)
    lines = [f"{1.5 + 0.1 * n} {names[n]}" for n in (2, 0, 1, 3)]
    (folder / "rgb.txt").write_text("# color images\n# timestamp filename\n" + "\n".join(lines) + "\n")
    rows = [(1.505 + 0.1 * n, *POSES[n, :3, 3], *XYZW[n]) for n in range(3)]
    (folder / "groundtruth.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    found = find_recording(folder)
    assert [file.name for file in found.images] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert found.times == [1.5, 1.6, 1.7, pytest.approx(1.8)]
    for n in range(3):
        np.testing.assert_allclose(found.poses[str(folder / names[n])], POSES[n], atol=1e-9)
    assert str(folder / names[3]) not in found.poses  # 0.1 s from the nearest pose
    (source,), _ = find_inputs([folder])
    frames = list(source.frames(5, Reading(), 1))
    assert [(frame.number, frame.pose is not None) for frame in frames] == [(0, True), (1, True)]


def test_euroc(folder):
    root = folder / "mav0"
    names = [f"{1_000_000_000 + 50_000_000 * n}.png" for n in range(4)]
    write_images(root / "cam0/data", names)
    (root / "cam0/data.csv").write_text("#timestamp [ns],filename\r\n" + "".join(f"{n[:-4]},{n}\r\n" for n in names))
    body_from_camera = np.eye(4)
    body_from_camera[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    body_from_camera[:3, 3] = [0.1, 0.2, 0.3]
    (root / "cam0/sensor.yaml").write_text(
        f"T_BS:\n  cols: 4\n  rows: 4\n  data: {body_from_camera.ravel().tolist()}\nresolution: [64, 48]\n"
        "intrinsics: [50, 51, 32, 24]\ndistortion_model: radial-tangential\n"
        "distortion_coefficients: [-0.2, 0.07, 0.0001, 1.7e-05]\n"
    )
    (root / "state_groundtruth_estimate0").makedirs_p()
    rows = [f"{names[n][:-4]},{','.join(map(str, [*POSES[n, :3, 3], XYZW[n, 3], *XYZW[n, :3]]))},0,0" for n in range(4)]
    (root / "state_groundtruth_estimate0/data.csv").write_text("#timestamp,p,q\n" + "\n".join(rows) + "\n")
    found = find_recording(folder)
    assert found.calibration.intrinsics[0, 0] == 50
    np.testing.assert_allclose(np.diff(found.times), 0.05)
    for n in range(4):
        np.testing.assert_allclose(found.poses[str(found.images[n])], POSES[n] @ body_from_camera, atol=1e-9)
    (root / "cam0/sensor.yaml").write_text("T_BS: 3\n")
    with pytest.raises(InputError, match="no T_BS of 16 numbers"):
        find_recording(folder)


@pytest.mark.parametrize("suffix", ["txt", "bin"])
def test_colmap(folder, suffix):
    names = ["b10.jpg", "b9.jpg", "b12.jpg"]
    write_images(folder / "images", [*names, "b11.jpg", "b13.jpg"])
    model = (folder / "sparse/0").makedirs_p()
    camera_from_world = np.linalg.inv(POSES)
    quaternions = Rotation.from_matrix(camera_from_world[:, :3, :3]).as_quat()[:, [3, 0, 1, 2]]
    poses = [[*q, *pose[:3, 3]] for q, pose in zip(quaternions, camera_from_world, strict=True)]
    if suffix == "txt":
        (model / "cameras.txt").write_text("# cameras\n3 SIMPLE_RADIAL 64 48 50 32 24 0.01\n")
        lines = [f"{n} {' '.join(map(str, poses[n]))} 3 {names[n]}\n{'1 2 -1' if n else ''}\n" for n in range(3)]
        (model / "images.txt").write_text("# images\n#\n" + "".join(lines))
    else:
        (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 3, 2, 64, 48, 50, 32, 24, 0.01))
        content = b"".join(
            struct.pack("<i7di", n, *poses[n], 3) + names[n].encode() + b"\0" + struct.pack("<Qddq", 1, 5, 6, -1)
            for n in range(3)
        )
        (model / "images.bin").write_bytes(struct.pack("<Q", 3) + content)
    found = read_colmap(folder)
    for n in range(3):
        np.testing.assert_allclose(found.poses[str(folder / "images" / names[n])], POSES[n], atol=1e-9)
    assert found.calibration.intrinsics.tolist() == [[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]
    (source,), _ = find_inputs([folder], from_colmap=True)
    reading = Reading()
    frames = list(source.frames(10, reading, 1))
    assert [frame.file.name for frame in frames] == ["b9.jpg", "b10.jpg", "b12.jpg"]
    assert [frame.after_gap for frame in frames] == [False, False, True]
    assert reading.problems == ["2 images without a pose are left out"]
    if suffix == "bin":
        whole = (model / "images.bin").read_bytes()
        for length in range(0, len(whole), 7):
            (model / "images.bin").write_bytes(whole[:length])
            with pytest.raises(InputError):
                read_colmap(folder)


def test_lists_that_lead_elsewhere_or_are_damaged(folder):
    (folder / "rgb.txt").write_text("1.0 ../../etc/passwd\n")
    with pytest.raises(InputError, match="leads out of its folder"):
        find_recording(folder)
    (folder / "rgb.txt").write_text("x rgb/0.png\n")
    with pytest.raises(InputError, match="line 1: could not convert"):
        find_recording(folder)
    with pytest.raises(InputError, match="no COLMAP model"):
        read_colmap(folder)
