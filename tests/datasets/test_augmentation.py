"""Images and K change together: what is read out of an augmented image lies where the augmented K says.

The test images are ramps, their first two channels a pixel's own coordinates: bilinear sampling is exact on them, and
an augmented image says of each of its pixels which point of the old image it shows.
"""

import pytest
import torch

from datasets.augmentation import (
    AUGMENTATIONS,
    MAX_SCALE,
    augment,
    draw_augmentation,
    normalise,
    normalise_snippets,
    scale_crop_flip,
)
from datasets.loading import seeded
from geometry.camera import crop_intrinsics, pixel_grid, project, scale_intrinsics, unproject
from geometry.pose import pose_to_matrix
from geometry.snippets import Snippets
from inverse_warp import inverse_warp

HEIGHT, WIDTH, BATCH = 24, 40, 16
K = torch.tensor([[23.0, 0, 18.2], [0, 22.0, 12.9], [0, 0, 1]]).double().repeat(BATCH, 1, 1)
MIRROR = torch.diag(torch.tensor([-1.0, 1, 1, 1]).double())


def ramps(sources: int) -> Snippets:
    """Snippets of images whose channels are x, y and their sum."""
    x, y, _ = pixel_grid(HEIGHT, WIDTH, K).view(3, HEIGHT, WIDTH)
    image = torch.stack([x, y, x + y])
    return Snippets(image.expand(BATCH, 3, -1, -1), image.expand(BATCH, sources, 3, -1, -1), K)


def away_from_the_border(points: torch.Tensor) -> torch.Tensor:
    """Pixels that show the inside of the old image, where nothing was clamped: bool [B, H, W]."""
    x, y = points.unbind(1)
    return (x > 0) & (x < WIDTH - 1) & (y > 0) & (y < HEIGHT - 1)


def new_pixels() -> torch.Tensor:
    return pixel_grid(HEIGHT, WIDTH, K)


def rays(intrinsics: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    return (torch.linalg.inv(intrinsics) @ pixels).view(BATCH, 3, HEIGHT, WIDTH)


def ray_error(image: torch.Tensor, intrinsics: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Largest difference, in pixels, of the rays by the new K from those of the same points by the old K: [B]."""
    points = image[:, :2]
    old = torch.cat([points.flatten(2), torch.ones(BATCH, 1, HEIGHT * WIDTH).double()], 1)
    expected = rays(K, old)
    expected[flipped, 0] *= -1
    error = (rays(intrinsics, new_pixels()) - expected).abs().amax(1) * K[0, 0, 0]
    return (error * away_from_the_border(points)).amax((1, 2))


def draw(seed: int = 3, batch: int = BATCH) -> torch.Tensor:
    return draw_augmentation(torch.Generator().manual_seed(seed), batch)


def test_random_augmentation_changes_k_with_the_image():
    target, sources, intrinsics = augment(ramps(2), draw().double())[:3]
    flipped = target[:, 0, 0, 0] > target[:, 0, 0, -1]
    assert 2 < flipped.sum() < BATCH - 2  # some are, some are not
    assert ray_error(target, intrinsics, flipped).max() < 1e-5
    for source in sources.unbind(1):  # all frames of a snippet change alike
        assert torch.equal(source, target)
    scale = (intrinsics / K)[:, [0, 1], [0, 1]]
    assert ((scale >= 1) & (scale <= MAX_SCALE)).all()
    assert scale.std(0).min() > 0.02
    assert (target.shape, sources.shape) == ((BATCH, 3, HEIGHT, WIDTH), (BATCH, 2, 3, HEIGHT, WIDTH))


def test_flip_alone_keeps_the_camera_and_mirrors_it():
    plain = ramps(2)
    target, sources, intrinsics = augment(plain, draw(), "flip")[:3]
    flipped = target[:, 0, 0, 0] > target[:, 0, 0, -1]
    assert 2 < flipped.sum() < BATCH - 2
    assert torch.equal(flipped, augment(plain, draw())[0][:, 0, 0, 0] > augment(plain, draw())[0][:, 0, 0, -1])
    assert ray_error(target, intrinsics, flipped).max() < 1e-9
    for got, expected in ((target, plain.target), (sources, plain.sources)):
        assert torch.equal(got[~flipped], expected[~flipped])
        assert torch.equal(got[flipped], expected[flipped].flip(-1))
    assert torch.equal(intrinsics[:, 1, 1], K[:, 1, 1])


def test_no_augmentation_changes_nothing():
    plain = ramps(2)
    assert all(got is given for got, given in zip(augment(plain, draw(), "none"), plain, strict=True))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_frames_keep_their_order(kind):
    """Each frame has a value of its own."""
    values = torch.tensor([7.0, 1, 2, 3, 4]).double().view(1, 5, 1, 1, 1).expand(BATCH, 5, 3, HEIGHT, WIDTH)
    target, sources = augment(Snippets(values[:, 0], values[:, 1:], K), draw().double(), kind)[:2]
    torch.testing.assert_close(target, values[:, 0])
    torch.testing.assert_close(sources, values[:, 1:])


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="augmentation is 'rotate', expected one of all, flip, none"):
        augment(ramps(2), draw(), "rotate")


def parameters() -> tuple[torch.Tensor, ...]:
    """scale_x, scale_y, left, top of each snippet, and flip for one in two."""
    random = torch.rand(4, BATCH, dtype=torch.float64)
    scale_x, scale_y = 1.02 + 0.2 * random[:2]
    left, top = random[2] * (scale_x - 1) * WIDTH, random[3] * (scale_y - 1) * HEIGHT
    return scale_x, scale_y, left, top, torch.arange(BATCH).double() % 2


def by_the_fields_rule(scale_x, scale_y, left, top, flip):
    """K as most code bases change it: c' = c s - offset, and W - cx when flipped."""
    centred = K.clone()
    centred[:, 0, 2], centred[:, 1, 2] = K[:, 0, 2] * scale_x - left, K[:, 1, 2] * scale_y - top
    centred[:, 0, 0], centred[:, 1, 1] = K[:, 0, 0] * scale_x, K[:, 1, 1] * scale_y
    centred[:, 0, 2] = torch.where(flip > 0, WIDTH - centred[:, 0, 2], centred[:, 0, 2])
    return centred


def warp_error(sources, target_points, intrinsics, pose, flip):
    """Largest error of the warp of the augmented sources, where the target's points are known exactly: [B]."""
    source_from_target = pose_to_matrix(pose)
    depth = 4 + 0.05 * target_points[:, :1] + 0.1 * target_points[:, 1:]  # of each old pixel
    # What the target shows, without sampling: the sources are ramps of their pixels.
    old = torch.cat([target_points, torch.ones_like(depth)], 1).flatten(2)
    points = (torch.linalg.inv(K) @ old) * depth.flatten(2)
    points = source_from_target[:, 0, :3, :3] @ points + source_from_target[:, 0, :3, 3:]
    pixels = project(points, K).view(BATCH, 2, HEIGHT, WIDTH)

    mirrored = torch.where(flip[:, None, None, None] > 0, MIRROR @ source_from_target @ MIRROR, source_from_target)
    warped, valid = inverse_warp(sources, depth, mirrored, intrinsics)
    inside = (pixels[:, 0] > 1) & (pixels[:, 0] < WIDTH - 2) & (pixels[:, 1] > 1) & (pixels[:, 1] < HEIGHT - 2)
    inside &= valid[:, 0] & away_from_the_border(target_points)
    # The sample's neighbours must not be clamped, either: two pixels from the augmented image's border suffice.
    inside[:, [0, 1, -2, -1]] = False
    inside[:, :, [0, 1, -2, -1]] = False
    assert (inside.double().mean((1, 2)) > 0.4).all()
    return ((warped[:, 0, :2] - pixels).abs().amax(1) * inside).amax((1, 2))


def test_augmentation_commutes_with_warping_and_the_fields_rule_does_not():
    changes = parameters()
    pose = 0.02 * torch.randn(BATCH, 1, 6).double()
    target, sources, intrinsics = scale_crop_flip(ramps(1), *changes)[:3]
    points = target[:, :2]
    assert warp_error(sources, points, intrinsics, pose, changes[-1]).max() < 1e-9
    # Half a pixel in the centre cancels in a pure shift, but not in rotations and motions in depth.
    pose[:, 0] = torch.tensor([0, 0, -0.5, 0, 0, 0.1]).double()
    assert warp_error(sources, points, intrinsics, pose, changes[-1]).max() < 1e-9
    wrong = warp_error(sources, points, by_the_fields_rule(*changes), pose, changes[-1])
    assert (wrong[1::2] > 0.03).all()  # flipped: a pixel
    assert (wrong[::2] > 0.003).all()  # scaled only: up to a tenth of one


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_rays_tell_the_fields_rule_apart(flip):
    scale_x, scale_y, left, top, _ = parameters()
    flips = torch.full((BATCH,), flip).double()
    target, _, intrinsics = scale_crop_flip(ramps(1), scale_x, scale_y, left, top, flips)[:3]
    assert ray_error(target, intrinsics, flips > 0).max() < 1e-9
    assert (ray_error(target, by_the_fields_rule(scale_x, scale_y, left, top, flips), flips > 0) > 0.005).all()


def test_nothing_to_do_changes_nothing():
    frames = torch.rand(2, 3, 3, 9, 11).double()
    plain = Snippets(frames[:, 0], frames[:, 1:], K[:2])
    one, zero = torch.ones(2).double(), torch.zeros(2).double()
    unchanged = scale_crop_flip(plain, one, one, zero, zero, zero)
    torch.testing.assert_close(unchanged.target, plain.target, rtol=0, atol=1e-12)
    torch.testing.assert_close(unchanged.sources, plain.sources, rtol=0, atol=1e-12)
    assert torch.equal(unchanged.intrinsics, K[:2])
    mirrored = scale_crop_flip(plain, one, one, zero, zero, one)
    torch.testing.assert_close(mirrored.target, plain.target.flip(-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(mirrored.sources, plain.sources.flip(-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(mirrored.intrinsics[:, 0, 2], 10 - K[:2, 0, 2])


def test_the_generator_alone_decides():
    plain = ramps(2)
    runs = [augment(plain, draw(seed).double()) for seed in (1, 1, 2)]
    assert all(torch.equal(*pair) for pair in zip(runs[0][:3], runs[1][:3], strict=True))
    assert not torch.equal(runs[0].intrinsics, runs[2].intrinsics)


@pytest.mark.parametrize(("batch", "pieces"), [(4, 1), (2, 2), (1, 4)])
def test_a_piece_of_a_step_gets_the_numbers_that_it_has_in_the_whole(batch, pieces):
    whole = draw_augmentation(seeded(5, 1, 3), 4)
    parts = [draw_augmentation(seeded(5, 1, 3), batch, piece, pieces) for piece in range(pieces)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.shape == (4, 5)
    assert ((whole >= 0) & (whole < 1)).all()


def test_normalised_images_lie_in_minus_1_to_1():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3).expand(3, 2, 3)
    values = normalise(images)
    assert (values.dtype, values.shape) == (torch.float32, (3, 2, 3))
    torch.testing.assert_close(values[0, 0], torch.tensor([-1, -0.6, 1]))
    snippets = Snippets(images[None], images[None, None].expand(1, 2, 3, 2, 3), K[:1])
    got = normalise_snippets(snippets)
    assert torch.equal(got.target[0], values)
    assert torch.equal(got.sources[0, 1], values)
    assert got.intrinsics is snippets.intrinsics


def test_normalised_images_are_planes_in_memory():
    """The loader's images have their channels interleaved, as the decoder gives them."""
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    assert not images.is_contiguous()
    assert normalise(images).is_contiguous()


@pytest.mark.parametrize("images", [torch.zeros(3, 4, 5), torch.zeros(4, 5, 3).byte(), torch.zeros(4, 5).byte()])
def test_what_is_no_image_is_not_normalised(images):
    with pytest.raises(ValueError, match=r"got torch.* expected uint8 \[..., 3, H, W\]"):
        normalise(images)


def test_reduced_k_is_that_of_the_area_averaged_image():
    """Whole factors: the mean over a ramp's cell is its value at the cell's centre, where the scaled K has it."""
    small = torch.nn.functional.avg_pool2d(ramps(1).target, (2, 4))
    reduced = scale_intrinsics(K, 1 / 4, 1 / 2)
    old = unproject(torch.ones(BATCH, 1, HEIGHT // 2, WIDTH // 4).double(), reduced)
    torch.testing.assert_close(project(old, K), small[:, :2])
    assert (project(old, crop_intrinsics(K, 0.5, 0)) - small[:, :2]).abs().max() > 0.4
