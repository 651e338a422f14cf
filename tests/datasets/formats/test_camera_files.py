"""Calibration files: each kind gives the camera that its program means; what cannot be meant is one line."""

import json
import struct

import cv2
import numpy as np
import pytest
from path import Path

from datasets.formats import colmap
from datasets.formats.camera_files import FISHEYE, PINHOLE, RADIAL_TANGENTIAL, read_calibration
from files.errors import InputError

K = np.array([[700.5, 0, 640.25], [0, 702, 360], [0, 0, 1]])
D = np.array([-0.3, 0.1, 0.001, -0.002, 0.01])


def write(folder, name, text):
    (Path(folder) / name).write_text(text)
    return Path(folder) / name


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_what_opencv_writes(tmp_path, suffix):
    file = tmp_path / f"camera.{suffix}"
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 1280)
    storage.write("image_height", 720)
    storage.write("camera_matrix", K)
    storage.write("distortion_coefficients", D[None])
    storage.release()
    found = read_calibration(file)
    np.testing.assert_allclose(found.intrinsics, K)
    np.testing.assert_allclose(found.distortion, D)
    assert (found.size, found.model) == ((1280, 720), RADIAL_TANGENTIAL)


ROS = """
image_width: 1280
image_height: 720
camera_name: front
camera_matrix:
  rows: 3
  cols: 3
  data: [700.5, 0, 640.25, 0, 702, 360, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.3, 0.1, 1e-3, -0.002, 0.01]}
"""
KALIBR = """
cam0:
  camera_model: pinhole
  intrinsics: [700.5, 702, 640.25, 360]
  distortion_model: equidistant
  distortion_coeffs: [0.1, 0.01, 0, 0]
  resolution: [1280, 720]
cam1:
  camera_model: pinhole
  intrinsics: [500, 500, 640.25, 360]
  distortion_model: radtan
  distortion_coeffs: [0.1, 0.01, 0, 0]
  resolution: [1280, 720]
"""
EUROC = """# General sensor definitions.
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
rate_hz: 20
resolution: [752, 480]
camera_model: pinhole
intrinsics: [458.654, 457.296, 367.215, 248.375] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
"""
ORB_SLAM = """%YAML:1.0
Camera.type: "PinHole"
Camera.fx: 700.5
Camera.fy: 702.0
Camera.cx: 640.25
Camera.cy: 360.0
Camera.k1: -0.3
Camera.k2: 0.1
Camera.p1: 0.001
Camera.p2: -0.002
Camera.k3: 0.01
Camera.width: 1280
Camera.height: 720
"""


def test_other_yaml(tmp_path):
    found = read_calibration(write(tmp_path, "ros.yaml", ROS))
    np.testing.assert_allclose(found.intrinsics, K)
    np.testing.assert_allclose(found.distortion, D)
    found = read_calibration(write(tmp_path, "kalibr.yaml", KALIBR))
    np.testing.assert_allclose(found.intrinsics, K)
    assert found.model == FISHEYE
    assert found.name.endswith("kalibr.yaml, cam0")
    assert read_calibration(tmp_path / "kalibr.yaml", "cam1").intrinsics[0, 0] == 500
    found = read_calibration(write(tmp_path, "sensor.yaml", EUROC))
    assert found.intrinsics[:2].tolist() == [[458.654, 0, 367.215], [0, 457.296, 248.375]]
    assert (found.size, len(found.distortion)) == ((752, 480), 4)
    found = read_calibration(write(tmp_path, "orb.yaml", ORB_SLAM))
    np.testing.assert_allclose(found.intrinsics, K)
    np.testing.assert_allclose(found.distortion, D)
    assert found.size == (1280, 720)


def test_json_of_numpy_lists(tmp_path):
    file = write(tmp_path, "c.json", json.dumps({"mtx": K.tolist(), "dist": [D.tolist()]}))
    found = read_calibration(file)
    np.testing.assert_allclose(found.intrinsics, K)
    np.testing.assert_allclose(found.distortion, D)
    assert found.size is None
    file = write(tmp_path, "c.json", json.dumps({"fx": 1, "fy": 2, "cx": 3, "cy": 4, "width": 7, "height": 9}))
    found = read_calibration(file)
    assert (found.intrinsics[:2].tolist(), found.size, found.model) == ([[1, 0, 3], [0, 2, 4]], (7, 9), PINHOLE)


def test_kitti(tmp_path):
    rows = [f"{f} 0 600 {b} 0 {f} 180 0 0 0 1 0" for f, b in ((700, 0), (701, -300), (702, 40), (703, -290))]
    file = write(tmp_path, "calib.txt", "".join(f"P{n}: {row}\n" for n, row in enumerate(rows)) + "Tr: 1 0 0\n")
    assert read_calibration(file).intrinsics[0, 0] == 702
    assert read_calibration(file, "0").intrinsics[0, 0] == 700
    text = "calib_time: 09-Jan\n" + "".join(
        f"S_rect_0{n}: 1242 375\nP_rect_0{n}: {row}\n" for n, row in enumerate(rows)
    )
    found = read_calibration(write(tmp_path, "calib_cam_to_cam.txt", text))
    assert (found.intrinsics[0, 0], found.size, found.model) == (702, (1242, 375), PINHOLE)
    with pytest.raises(InputError, match="no camera 7, it has 0, 1, 2, 3"):
        read_calibration(file, "7")
    with pytest.raises(InputError, match="line 1: got 3 numbers, expected 12"):
        read_calibration(write(tmp_path, "bad.txt", "P2: 1 2 3\n"))


COLMAP = {
    1: ("SIMPLE_PINHOLE", [500, 320, 240]),
    2: ("PINHOLE", [500, 510, 320, 240]),
    3: ("SIMPLE_RADIAL", [500, 320, 240, 0.1]),
    4: ("RADIAL", [500, 320, 240, 0.1, 0.2]),
    5: ("OPENCV", [500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4]),
    6: ("FULL_OPENCV", [500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
    7: ("OPENCV_FISHEYE", [500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4]),
    8: ("SIMPLE_RADIAL_FISHEYE", [500, 320, 240, 0.1]),
    9: ("RADIAL_FISHEYE", [500, 320, 240, 0.1, 0.2]),
    10: ("FOV", [500, 510, 320, 240, 0.9]),
}
IDS = {name: number for number, (name, _) in enumerate(colmap._MODELS)}


@pytest.fixture(params=["txt", "bin"])
def cameras(request, tmp_path):
    """COLMAP's cameras of all models."""
    file = tmp_path / f"cameras.{request.param}"
    if request.param == "txt":
        lines = [f"{n} {model} 640 480 {' '.join(map(str, p))}" for n, (model, p) in COLMAP.items()]
        file.write_text("# Camera list\n" + "\n".join(lines) + "\n")
    else:
        parts = [
            struct.pack("<iiQQ", n, IDS[m], 640, 480) + struct.pack(f"<{len(p)}d", *p) for n, (m, p) in COLMAP.items()
        ]
        file.write_bytes(struct.pack("<Q", len(parts)) + b"".join(parts))
    return Path(file)


def test_colmap(cameras):
    for number, (model, p) in COLMAP.items():
        if model == "FOV":
            with pytest.raises(InputError, match="the model FOV is not undone"):
                read_calibration(cameras, str(number))
            continue
        found = read_calibration(cameras, str(number))
        fy = 510 if p[1] == 510 else 500
        assert found.intrinsics.tolist() == [[500, 0, 319.5], [0, fy, 239.5], [0, 0, 1]]
        rest = p[4:] if fy == 510 else p[3:]
        assert found.size == (640, 480)
        if model.endswith("PINHOLE"):
            assert (found.model, len(found.distortion)) == (PINHOLE, 0)
        else:
            assert found.model == (FISHEYE if "FISHEYE" in model else RADIAL_TANGENTIAL)
            assert found.distortion.tolist() == (rest + [0, 0, 0])[: max(4, len(rest))]
    with pytest.raises(InputError, match="expected one; choose by --calibration-camera"):
        read_calibration(cameras)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "camera_matrix: [1, 2", "not readable as YAML"),
        ("a.yaml", "- 1\n- 2\n", "holds a list"),
        ("a.yaml", "a: &a [1]\ncamera_matrix: *a\n", "an alias"),
        ("a.yaml", "camera_matrix: !!python/object/apply:os.system ['true']\n", "not readable as YAML"),
        ("a.yaml", "camera_matrix: [1, 2, 3]\n", "a camera matrix of 3 numbers"),
        ("a.yaml", "camera_matrix: [1, 0, x, 0, 1, 3, 0, 0, 1]\n", "expected numbers"),
        ("a.yaml", "camera_matrix: [-1, 0, 2, 0, 1, 3, 0, 0, 1]\n", "fx, fy > 0"),
        ("a.yaml", "camera_matrix: [.nan, 0, 2, 0, 1, 3, 0, 0, 1]\n", "finite numbers"),
        ("a.yaml", "camera_matrix: [9, 0, 2, 0, 9, 3, 0, 0, 1]\ndist_coeffs: [1, 2, 3, 4, 5, 6, 7]\n", "7 distortion"),
        ("a.json", "[" * 5000, "not readable"),
        ("a.yaml", "[" * 5000, "not readable"),
        ("a.json", "{}", "no camera matrix"),
        ("a.xml", "<opencv_storage/>", "XML, expected"),
        ("a.txt", "hello\n", "not a calibration that is known"),
        ("a.txt", "1 PINHOLE 640 480 1 2 3\n", "got 3 numbers, expected 4"),
        ("a.txt", "1 ODD_MODEL 640 480 1 2 3\n", "ODD_MODEL is not known"),
        ("a.bin", "\x01\x00\x00\x00\x00\x00\x00\x00", "claims 1 items"),
        ("a.bin", "\xff", "ends early"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        read_calibration(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_calibration(tmp_path / "missing.yaml")
