import numpy as np
import pytest

from datasets.preparation.image_motion import measure_pair
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer

HEIGHT, WIDTH = 64, 208
K_OF_KITTI = np.array([[0.58 * WIDTH, 0, 0.49 * WIDTH], [0, 0.58 * WIDTH, 0.46 * HEIGHT], [0, 0, 1]])


def test_motion_is_measured_in_pixels_of_the_images():
    options = WorldOptions(drives=2, frames=3, width=416, height=128)
    drive = list_drives(options)[1]
    image = make_drive_renderer(options, drive).image(0, drive.intrinsics, 128, 416)
    pair = measure_pair(image[:, 6:], image[:, :-6], K_OF_KITTI * 2)
    assert pair.pixels == pytest.approx(6, abs=0.2)
    assert pair.followed > 0.8
