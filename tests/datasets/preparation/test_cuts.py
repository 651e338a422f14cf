"""Cuts: found between recordings, not within them, also where the bonnet is the same and the exposure changes."""

from itertools import pairwise

import numpy as np
import pytest

from datasets.formats.video import open_video, read_video
from datasets.preparation.cuts import is_cut
from datasets.preparation.static_frames import small_grey
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from files.images import read_image, resize_area

HEIGHT, WIDTH = 64, 208


@pytest.fixture(scope="module")
def drives():
    """Grey frames of three drives of the synthetic world."""
    options = WorldOptions(drives=3, frames=7, width=WIDTH, height=HEIGHT, halts=False)
    found = []
    for drive in list_drives(options):
        renderer = make_drive_renderer(options, drive)
        found.append([renderer.image(n, drive.intrinsics, HEIGHT, WIDTH) for n in range(7)])
    return found


def cut(first, second):
    return is_cut(small_grey(first), small_grey(second))


def test_drives_are_whole_and_different(drives):
    for drive in drives:
        assert not any(cut(first, second) for first, second in pairwise(drive))
    assert all(cut(drives[a][n], drives[b][n]) for a, b in ((0, 1), (1, 2), (2, 0)) for n in range(0, 7, 3))


def test_exposure_is_no_cut_and_a_bonnet_hides_none(drives):
    first, second = drives[0][3], drives[0][4]
    assert not cut(first, (second * 0.5 + 60).astype(np.uint8))
    for n in range(0, 7, 3):
        pair = [drives[0][n].copy(), drives[1][n].copy()]
        for frame in pair:
            frame[-16:] = drives[2][0][-16:] // 2
        assert cut(*pair)


def test_real_recordings(shared):
    """At 10 frames a second no cut within three recordings, and one between them."""
    video = [f.image() for f in read_video(open_video(shared / "video/motorway.mp4"), 10)][::15]
    neighbours = [f.image() for f in read_video(open_video(shared / "video/motorway.mp4"), 10)][1::15]
    pairs = list(zip(video, neighbours, strict=False))
    kept = [resize_area(pairs[0][0], 128, 416)]
    for pattern in ("kitti_raw/*/*_0000_sync/image_02/data/*.png", "kitti_odometry/sequences/06/image_0/*.png"):
        files = sorted(shared.glob(pattern))
        images = [resize_area(read_image(files[n + k]), 128, 416) for n in range(0, 50, 16) for k in (0, 1)]
        pairs += list(zip(images[::2], images[1::2], strict=True))
        kept.append(images[2])
    assert not any(cut(*(resize_area(image, 128, 416) for image in pair)) for pair in pairs)
    assert all(cut(kept[a], kept[b]) for a in range(3) for b in range(3) if a != b)
