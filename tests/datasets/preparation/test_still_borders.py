"""Borders that are the same in all frames: found where they are, and not found where the scene only moves little."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from datasets.formats.video import open_video, read_video
from datasets.preparation.still_borders import Borders, StillBorders, borders_of
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from files.images import read_image, resize_area

HEIGHT, WIDTH = 120, 208


def road(count=16):
    """Frames of a rough texture that grows towards the bottom, as a road does."""
    rng = np.random.default_rng(0)
    texture = gaussian_filter(rng.normal(size=(HEIGHT + 10 * count, WIDTH, 3)), (1.5, 1.5, 0))
    texture = np.interp(texture, [texture.min(), texture.max()], [30, 220]).astype(np.uint8)
    return [texture[10 * (count - n) : 10 * (count - n) + HEIGHT] for n in range(count)]


def with_bonnet(frames, share, reflection=0.0):
    """A dark bonnet with a slightly round edge over the lowest share of the frames; it may mirror them."""
    height, width = frames[0].shape[:2]
    x = np.linspace(-1, 1, width)
    inside = np.arange(height)[:, None] >= height * (1 - share + 0.03 * x**2)
    out, rng = [], np.random.default_rng(1)
    for frame in frames:
        paint = 50 + np.linspace(0, 30, height)[:, None, None] + rng.normal(0, 1.5, frame.shape)
        paint = (1 - reflection) * paint + reflection * frame[::-1]
        out.append(np.where(inside[..., None], paint.clip(0, 255).astype(np.uint8), frame))
    return out


def find(frames):
    return borders_of(map(np.ascontiguousarray, frames), len(frames))


def with_mirror(frames, share, reflection):
    """A bonnet that mirrors what is above the horizon, farther away than the road, so that it moves more slowly."""
    height = frames[0].shape[0]
    rows = np.arange(height)[:, None, None]
    edge = height * (1 - share)
    out = []
    for frame in frames:
        mirrored = frame[np.clip(0.42 * height - 1.5 * (np.arange(height) - edge), 0, height - 1).round().astype(int)]
        paint = (1 - reflection) * (40 + 0.2 * rows) + reflection * mirrored
        paint = np.where(rows < edge + 2, 0.45 * paint, paint)  # the gap below the windscreen's view
        out.append(np.where(rows >= edge, paint.clip(0, 255).astype(np.uint8), frame))
    return out


@pytest.fixture(scope="module")
def street():
    """A drive of the synthetic world."""
    options = WorldOptions(drives=3, frames=24, width=WIDTH, height=64, halts=False)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    return [renderer.image(number, drive.intrinsics, 64, WIDTH) for number in range(24)]


def test_nothing_is_found_where_everything_moves():
    assert find(road()) == Borders((0, 0, 0, 0), 0)
    assert str(find(road())) == "no border that is the same in all frames"
    assert find(with_bonnet(road(), 0.2)[:4]).margins == (0, 0, 0, 0)  # too few frames to say
    assert find([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 10).margins == (0, 0, 0, 0)


@pytest.mark.parametrize(("share", "reflection"), [(0.12, 0), (0.25, 0), (0.2, 0.3)])
def test_a_bonnet_is_cut_off_and_little_more(share, reflection):
    found = find(with_bonnet(road(), share, reflection))
    assert found.bars == (0, 0, 0, 0)
    assert 0 <= found.bonnet - share * HEIGHT <= 0.05 * HEIGHT


def test_a_bonnet_that_mirrors_the_street_is_found_by_its_motion(street):
    assert find(street).margins == (0, 0, 0, 0)
    for reflection in (0.5, 0.8):
        assert 0 <= find(with_mirror(street, 0.2, reflection)).bonnet - 0.2 * 64 <= 0.1 * 64
    still = StillBorders()
    for frame in with_mirror(street, 0.2, 0.8):  # without the motion it is not
        still.add(frame)
    assert still.find().bonnet == 0


def test_black_bars_to_the_pixel_also_around_a_bonnet():
    noise = np.random.default_rng(2).integers(0, 6, (HEIGHT + 27, WIDTH + 20, 3), dtype=np.uint8)

    def pad(frames):
        return [np.pad(frame, ((13, 14), (20, 0), (0, 0))) + noise for frame in frames]

    frames = [frame.clip(0, 240) for frame in road()]
    assert find(pad(frames)).margins == (20, 13, 0, 14)
    found = find(pad(with_bonnet(frames, 0.2)))
    assert found.bars == (20, 13, 0, 14)
    assert 0 <= found.bonnet - 0.2 * HEIGHT <= 8
    assert str(found).startswith("black bar of 20 pixels at the left, black bar of 13 pixels at the top")


def test_real_videos(shared):
    """No bonnet in three real recordings; the bonnet that is drawn into them is found."""
    video = open_video(shared / "video/motorway.mp4")
    drives = [[resize_area(f.image(), 180, 320) for f in read_video(video, 2)]]
    files = [sorted(shared.glob("kitti_raw/*/*_0000_sync/image_02/data/*.png"))[:45:4]]
    files.append(sorted(shared.glob("kitti_odometry/sequences/00/image_0/*.png"))[::16])
    drives += [[resize_area(read_image(file), 96, 320) for file in some] for some in files]
    for frames in drives:
        height = len(frames[0])
        assert find(frames).margins == (0, 0, 0, 0)
        assert 0 <= find(with_bonnet(frames, 0.2)).bonnet - 0.2 * height <= 0.06 * height


def test_a_real_drive_with_a_mirroring_bonnet(shared):
    files = sorted(shared.glob("kitti_odometry/sequences/06/image_0/*.png"))
    frames = [resize_area(read_image(file), 96, 320) for file in files]
    assert find(frames).margins == (0, 0, 0, 0)
    for reflection in (0.5, 0.8):
        assert 0 <= find(with_mirror(frames, 0.2, reflection)).bonnet - 0.2 * 96 <= 0.12 * 96
