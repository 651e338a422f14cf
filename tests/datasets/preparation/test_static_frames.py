"""Static frames by the images alone: copies go, motion stays, whatever else moves in the picture."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, shift, zoom

from datasets.formats.kitti import read_poses
from datasets.preparation.static_frames import find_static_frames
from files.images import read_image, resize_area

HEIGHT, WIDTH = 128, 416


def texture(height, width, seed=0):
    """Grey levels 0 to 255 with detail at several scales, as float."""
    rng = np.random.default_rng(seed)
    layers = [gaussian_filter(rng.normal(size=(height, width)), s, mode="wrap") * s for s in (1, 3, 8)]
    return np.interp(sum(layers), [-3, 3], [0, 255])


def as_image(grey):
    return grey.clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def through_jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def drive(step, count, seed=0):
    """A camera that approaches the picture: it grows by a factor of 1 + step a frame, and sways a little."""
    base = texture(HEIGHT * 2, WIDTH * 2, seed)
    images = []
    for i in range(count):
        scale = (1 + step) ** i
        grown = zoom(base, scale, order=1)
        top, left = (grown.shape[0] - HEIGHT) // 2, (grown.shape[1] - WIDTH) // 2
        images.append(as_image(grown[top : top + HEIGHT, left : left + WIDTH]))
    return images


@pytest.mark.parametrize("quality", [None, 95, 60])
def test_of_doubled_frames_all_copies_go_and_all_moving_frames_stay(quality):
    moving = drive(0.01, 8)
    doubled = [image for image in moving for _ in range(2)]
    if quality:  # each copy coded again, from pixels with noise of its own
        rng = np.random.default_rng(0)
        doubled = [
            through_jpeg((i + rng.normal(0, 2, i.shape)).clip(0, 255).astype(np.uint8), quality) for i in doubled
        ]
    assert find_static_frames(doubled) == [False, True] * 8


def test_any_number_of_copies_leaves_one():
    first, second = drive(0.02, 2)
    assert find_static_frames([first] * 5 + [second] * 3) == [False] + [True] * 4 + [False] + [True] * 2


def test_slow_driving_stays():
    assert not any(find_static_frames(drive(0.004, 8)))  # a wall 10 m ahead, 4 cm a frame


def test_creeping_adds_up():
    base = texture(HEIGHT, WIDTH)
    images = [as_image(shift(base, (0, 0.08 * i), order=1, mode="wrap")) for i in range(40)]
    static = find_static_frames(images)
    kept = static.count(False)
    assert 10 <= kept <= 25  # two frames at least for a step that shows


def test_standing_while_others_move():
    background = texture(HEIGHT, WIDTH, 1)
    images = []
    for i in range(8):
        view = background.copy()
        car = texture(100, 230, 2)
        view[20:120, 5 + 20 * i : 235 + 20 * i] = car  # more than 40 % of the picture, 20 pixels a frame
        images.append(through_jpeg(as_image(view), 90))
    assert find_static_frames(images) == [False] + [True] * 7


def test_a_change_of_light_is_no_motion():
    image = texture(HEIGHT, WIDTH)
    assert find_static_frames([as_image(image * 0.8 + 20), as_image(image * 0.8 + 28)]) == [False, True]


def test_small_images_and_flat_ones():
    assert find_static_frames([np.full((1, 3, 3), 7, np.uint8)] * 3) == [False, True, True]
    small = [resize_area(image, 32, 64) for image in drive(0.03, 4)]
    assert find_static_frames([image for image in small for _ in range(2)]) == [False, True] * 4
    assert find_static_frames([]) == []


def test_real_drive_that_comes_to_a_stop(shared):
    files = sorted((shared / "kitti_raw/2011_09_26/2011_09_26_drive_0000_sync/image_02/data").files("*.png"))
    files = files[40:]
    static = find_static_frames(resize_area(read_image(file), HEIGHT, WIDTH) for file in files)
    moving = [40 + i for i, still in enumerate(static) if not still]
    assert moving[:10] == list(range(40, 50))  # it rolls
    assert not [frame for frame in moving if frame >= 70]  # it stands, and cars ahead move


def test_real_moving_frames_stay_among_their_copies(shared):
    odometry = shared / "kitti_odometry"
    speed = np.linalg.norm(np.diff(read_poses(odometry / "poses/00.txt")[120:160, :, 3], axis=0), axis=1)
    assert speed.min() > 0.3  # metres a frame: it never stands there
    files = sorted((odometry / "sequences/00/image_0").files("*.png"))[120:160:2]
    images = [resize_area(read_image(file), HEIGHT, WIDTH) for file in files]
    doubled = [copy for image in images for copy in (through_jpeg(image, 95), through_jpeg(image, 75))]
    assert find_static_frames(doubled) == [False, True] * len(images)
