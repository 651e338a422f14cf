import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from datasets.preparation.image_motion import measure_pair, rotation_residual
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer

HEIGHT, WIDTH = 64, 208
K_OF_KITTI = np.array([[0.58 * WIDTH, 0, 0.49 * WIDTH], [0, 0.58 * WIDTH, 0.46 * HEIGHT], [0, 0, 1]])


def test_a_rotation_is_found_to_a_hundredth_of_a_pixel_also_with_a_third_of_outliers():
    random = np.random.default_rng(0)
    corners = random.uniform([0, 0], [WIDTH - 1, HEIGHT - 1], (120, 2))
    rotation = Rotation.from_euler("yxz", [4, 1, 2], degrees=True).as_matrix()
    rays = np.column_stack([corners, np.ones(120)]) @ np.linalg.inv(K_OF_KITTI).T @ rotation.T @ K_OF_KITTI.T
    places = rays[:, :2] / rays[:, 2:]
    places[:40] += random.uniform(1, 5, (40, 2))
    residual = rotation_residual(corners, places, K_OF_KITTI)
    assert residual[40:].max() < 0.01
    assert residual[:40].min() > 0.9


def test_motion_is_measured_in_pixels_of_the_images():
    options = WorldOptions(drives=2, frames=3, width=416, height=128)
    drive = list_drives(options)[1]
    image = make_drive_renderer(options, drive).image(0, drive.intrinsics, 128, 416)
    pair = measure_pair(image[:, 6:], image[:, :-6], K_OF_KITTI * 2)
    assert pair.pixels == pytest.approx(6, abs=0.2)
    assert pair.followed > 0.8
