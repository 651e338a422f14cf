"""Images and K change together: what is read out of an augmented image lies where the augmented K says.

The test images are ramps, their first two channels a pixel's own coordinates: bilinear sampling is exact on them, and
an augmented image says of each of its pixels which point of the old image it shows.
"""

import pytest
import torch

from datasets.augmentation import MAX_SCALE, augment, scale_crop_flip
from geometry.camera import crop_intrinsics, pixel_grid, project, scale_intrinsics, unproject
from geometry.pose import pose_to_matrix
from inverse_warp import inverse_warp

HEIGHT, WIDTH, BATCH = 24, 40, 16
K = torch.tensor([[23.0, 0, 18.2], [0, 22.0, 12.9], [0, 0, 1]]).double().repeat(BATCH, 1, 1)
MIRROR = torch.diag(torch.tensor([-1.0, 1, 1, 1]).double())


def ramps(length: int) -> torch.Tensor:
    """Frames [B, L, 3, H, W] whose channels are x, y and their sum."""
    x, y, _ = pixel_grid(HEIGHT, WIDTH, K).view(3, HEIGHT, WIDTH)
    return torch.stack([x, y, x + y]).expand(BATCH, length, 3, -1, -1)


def away_from_the_border(frames: torch.Tensor) -> torch.Tensor:
    """Pixels that show the inside of the old image, where nothing was clamped: bool [B, H, W]."""
    x, y = frames[:, 0, 0], frames[:, 0, 1]
    return (x > 0) & (x < WIDTH - 1) & (y > 0) & (y < HEIGHT - 1)


def new_pixels() -> torch.Tensor:
    return pixel_grid(HEIGHT, WIDTH, K)


def rays(intrinsics: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    return (torch.linalg.inv(intrinsics) @ pixels).view(BATCH, 3, HEIGHT, WIDTH)


def ray_error(frames: torch.Tensor, intrinsics: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Largest difference, in pixels, of the rays by the new K from those of the same points by the old K: [B]."""
    old = torch.cat([frames[:, 0, :2].flatten(2), torch.ones(BATCH, 1, HEIGHT * WIDTH).double()], 1)
    expected = rays(K, old)
    expected[flipped, 0] *= -1
    error = (rays(intrinsics, new_pixels()) - expected).abs().amax(1) * K[0, 0, 0]
    return (error * away_from_the_border(frames)).amax((1, 2))


def test_random_augmentation_changes_k_with_the_image():
    frames, intrinsics = augment(ramps(3), K, torch.Generator().manual_seed(3))
    flipped = frames[:, 0, 0, 0, 0] > frames[:, 0, 0, 0, -1]
    assert 2 < flipped.sum() < BATCH - 2  # some are, some are not
    assert ray_error(frames, intrinsics, flipped).max() < 1e-5
    assert torch.equal(frames[:, 0], frames[:, 1])  # all frames of a snippet change alike
    scale = (intrinsics / K)[:, [0, 1], [0, 1]]
    assert ((scale >= 1) & (scale <= MAX_SCALE)).all()
    assert scale.std(0).min() > 0.02


def test_flip_alone_keeps_the_camera_and_mirrors_it():
    frames, intrinsics = augment(ramps(3), K, torch.Generator().manual_seed(3), only_flip=True)
    flipped = frames[:, 0, 0, 0, 0] > frames[:, 0, 0, 0, -1]
    assert 2 < flipped.sum() < BATCH - 2
    assert ray_error(frames, intrinsics, flipped).max() < 1e-9
    assert torch.equal(frames[~flipped], ramps(3)[~flipped])
    assert torch.equal(frames[flipped], ramps(3)[flipped].flip(-1))
    assert torch.equal(intrinsics[:, 1, 1], K[:, 1, 1])


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
    inside &= valid[:, 0] & away_from_the_border(target_points[:, None])
    # The sample's neighbours must not be clamped, either: two pixels from the augmented image's border suffice.
    inside[:, [0, 1, -2, -1]] = False
    inside[:, :, [0, 1, -2, -1]] = False
    assert (inside.double().mean((1, 2)) > 0.4).all()
    return ((warped[:, 0, :2] - pixels).abs().amax(1) * inside).amax((1, 2))


def test_augmentation_commutes_with_warping_and_the_fields_rule_does_not():
    changes = parameters()
    pose = 0.02 * torch.randn(BATCH, 1, 6).double()
    frames, intrinsics = scale_crop_flip(ramps(2), K, *changes)
    points = frames[:, 0, :2]
    assert warp_error(frames[:, 1:], points, intrinsics, pose, changes[-1]).max() < 1e-9
    # Half a pixel in the centre cancels in a pure shift, but not in rotations and motions in depth.
    pose[:, 0] = torch.tensor([0, 0, -0.5, 0, 0, 0.1]).double()
    assert warp_error(frames[:, 1:], points, intrinsics, pose, changes[-1]).max() < 1e-9
    wrong = warp_error(frames[:, 1:], points, by_the_fields_rule(*changes), pose, changes[-1])
    assert (wrong[1::2] > 0.03).all()  # flipped: a pixel
    assert (wrong[::2] > 0.003).all()  # scaled only: up to a tenth of one


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_rays_tell_the_fields_rule_apart(flip):
    scale_x, scale_y, left, top, _ = parameters()
    flips = torch.full((BATCH,), flip).double()
    frames, intrinsics = scale_crop_flip(ramps(1), K, scale_x, scale_y, left, top, flips)
    assert ray_error(frames, intrinsics, flips > 0).max() < 1e-9
    assert (ray_error(frames, by_the_fields_rule(scale_x, scale_y, left, top, flips), flips > 0) > 0.005).all()


def test_nothing_to_do_changes_nothing():
    frames = torch.rand(2, 3, 3, 9, 11).double()
    one, zero = torch.ones(2).double(), torch.zeros(2).double()
    unchanged, intrinsics = scale_crop_flip(frames, K[:2], one, one, zero, zero, zero)
    torch.testing.assert_close(unchanged, frames, rtol=0, atol=1e-12)
    assert torch.equal(intrinsics, K[:2])
    mirrored, intrinsics = scale_crop_flip(frames, K[:2], one, one, zero, zero, one)
    torch.testing.assert_close(mirrored, frames.flip(-1), rtol=0, atol=1e-12)
    torch.testing.assert_close(intrinsics[:, 0, 2], 10 - K[:2, 0, 2])


def test_the_generator_alone_decides():
    frames = torch.rand(4, 2, 3, 8, 9)
    runs = [augment(frames, K[:4].float(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], runs[2][1])


def test_reduced_k_is_that_of_the_area_averaged_image():
    """Whole factors: the mean over a ramp's cell is its value at the cell's centre, where the scaled K has it."""
    small = torch.nn.functional.avg_pool2d(ramps(1)[:, 0], (2, 4))
    reduced = scale_intrinsics(K, 1 / 4, 1 / 2)
    old = unproject(torch.ones(BATCH, 1, HEIGHT // 2, WIDTH // 4).double(), reduced)
    torch.testing.assert_close(project(old, K), small[:, :2])
    assert (project(old, crop_intrinsics(K, 0.5, 0)) - small[:, :2]).abs().max() > 0.4
