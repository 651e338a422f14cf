"""Training on a synthetic world, guided by its true depth and motion: how the weights in weights/ are made.

The depth network learns the true depth, up to a scale for each image. The pose network learns the motion by where it
moves the pixels. Neither sees anything real.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from path import Path
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from datasets.augmentation import scale_crop_flip
from datasets.formats.kitti import read_raw_calibration
from datasets.loading import seeded
from datasets.synthetic.drive_files import make_drive_scene
from datasets.synthetic.options import list_drives, read_options
from files.errors import InputError
from files.images import read_depth_picture, read_image
from geometry.camera import project, scale_intrinsics, unproject
from geometry.snippets import Snippets
from models import SfMLearner
from models.layers import rounded_size

UNIT = 10.0  # metres: the networks' unit of depth
# Metres: largest depth that is learned. Anything beyond it only has to be predicted farther than this.
FAR = 80.0
SCALE_WEIGHT, SKY_WEIGHT = 0.1, 0.2  # of an image's common scale, and of the sky
SKY = 500.0  # metres: the depth of the sky for the motion
NEAREST = 0.05  # in `UNIT`
SCALES = 3  # of the predicted disparities, the finest first
MOTION_WEIGHT = 20.0  # of an image motion that is wrong by the image's width
MOTION_STRIDE = 4  # the motion is compared at every fourth pixel of every fourth row
MOST_ENLARGED = 1.5
GREY_SHARE = 0.3  # of the snippets become grey
# Image size of a batch relative to the world's images, drawn from this list and rounded to 16 pixels.
SIZES = (0.65, 0.65, 0.65, 1.0)


@dataclass(frozen=True)
class WorldDrive:
    """A drive of a synthetic world with all its frames in memory."""

    images: np.ndarray  # uint8 [N, 3, H, W]
    depths: np.ndarray  # float32 [N, H, W], metres; 0 where there is nothing
    intrinsics: np.ndarray  # float32 [3, 3]
    world_from_camera: np.ndarray  # float64 [N, 4, 4], metres


class Truth(NamedTuple):
    """What a batch of snippets shows."""

    depth: Tensor  # [B, 1, H, W] of the target, metres; 0 where there is nothing
    source_from_target: Tensor  # [B, N, 4, 4], in units of `UNIT`

    def to(self, device: torch.device) -> "Truth":
        return Truth(*(tensor.to(device) for tensor in self))


def read_world(world: Path) -> list[WorldDrive]:
    """The drives of a world that was rendered with dense depth, in order of their names.

    Raises:
        InputError: a file is missing or damaged, or there is no drive of 3 frames.
    """
    options = read_options(world / "world.json")
    drives = []
    for drive in tqdm(list_drives(options), desc="reading the world", unit="drive", leave=False):
        folder = world / "raw" / drive.name
        files = sorted((folder / "image_02/data").files("*.png"))
        if len(files) < 3:
            continue
        truths = [folder / "proj_depth/groundtruth/image_02" / file.name for file in files]
        camera = read_raw_calibration(folder.parent, "02")["P_rect_02"][:, :3]
        drives.append(
            WorldDrive(
                np.stack([read_image(file) for file in files]).transpose(0, 3, 1, 2),
                np.stack([read_depth_picture(file) for file in truths]).astype(np.float32),
                camera.astype(np.float32),
                make_drive_scene(options, drive).world_from_camera,
            )
        )
    if not drives:
        raise InputError(f"{world}: no drive of 3 frames, expected a world that data/make_world.py has rendered")
    return drives


def draw_batches(drives: list[WorldDrive], size: int, seed: int) -> Iterator[tuple[Snippets, Truth]]:
    """Augmented snippets of 3 frames in [-1, 1] and what they show, without an end."""
    places = [(drive, middle) for drive in drives for middle in range(1, len(drive.images) - 1)]
    if len(places) < size:
        raise InputError(f"the world has {len(places)} snippets of 3 frames, expected {size} or more, those of a batch")
    order: list[int] = []
    step = 0
    while True:
        generator = seeded(seed, 3, step)
        if len(order) < size:
            order += torch.randperm(len(places), generator=generator).tolist()
        chosen, order = [places[number] for number in order[:size]], order[size:]
        frames = np.stack([drive.images[[middle, middle - 1, middle + 1]] for drive, middle in chosen])
        images = torch.from_numpy(frames).float() / 255
        intrinsics = torch.from_numpy(np.stack([drive.intrinsics for drive, _ in chosen]))
        depth = torch.from_numpy(np.stack([drive.depths[middle] for drive, middle in chosen]))[:, None]
        motion = np.stack([true_motion(drive.world_from_camera, middle) for drive, middle in chosen])
        truth = Truth(depth, torch.from_numpy(motion).float())
        snippets, truth = resize(Snippets(images[:, 0], images[:, 1:], intrinsics), truth, draw_share(generator))
        snippets, truth = enlarge_and_flip(snippets, truth, generator)
        yield change_colours(snippets, generator), truth
        step += 1


def true_motion(world_from_camera: np.ndarray, middle: int) -> np.ndarray:
    """source_from_target [2, 4, 4] of the frames before and after the middle one, translations in `UNIT`."""
    motion = np.linalg.inv(world_from_camera[[middle - 1, middle + 1]]) @ world_from_camera[middle]
    motion[:, :3, 3] /= UNIT
    return motion


def draw_share(generator: torch.Generator) -> float:
    """One of `SIZES`."""
    return SIZES[int(torch.randint(len(SIZES), (1,), generator=generator))]


def resize(snippets: Snippets, truth: Truth, share: float) -> tuple[Snippets, Truth]:
    """Snippets at a share of their size, rounded to a multiple of 16 pixels; depth takes the nearest pixel's value."""
    old = snippets.target.shape[2:]
    height, width = rounded_size(old, share)
    if (height, width) == old:
        return snippets, truth
    images = torch.cat([snippets.target[:, None], snippets.sources], 1)
    small = functional.interpolate(images.flatten(0, 1), (height, width), mode="bilinear", antialias=True)
    small = small.unflatten(0, images.shape[:2])
    intrinsics = scale_intrinsics(snippets.intrinsics, width / old[1], height / old[0])
    depth = functional.interpolate(truth.depth, (height, width), mode="nearest-exact")
    return Snippets(small[:, 0], small[:, 1:], intrinsics), truth._replace(depth=depth)


def enlarge_and_flip(snippets: Snippets, truth: Truth, generator: torch.Generator) -> tuple[Snippets, Truth]:
    """Enlarge each snippet, crop it to the old size, and flip one in two; depth and motion with it.

    Depth takes the nearest pixel's value, since a mean of two depths belongs to neither thing. It stays in metres: an
    enlarged image shows the same things by a longer focal length. A mirror image has the mirrored motion.
    """
    batch, _, height, width = snippets.target.shape
    random = torch.rand(5, batch, generator=generator)
    scale_x = MOST_ENLARGED ** random[0]
    scale_y = (scale_x * torch.exp(0.16 * random[1] - 0.08)).clamp(min=1)
    left, top = random[2] * (scale_x - 1) * width, random[3] * (scale_y - 1) * height
    flip = (random[4] < 0.5).float()
    x, y = torch.arange(width).float().expand(batch, width), torch.arange(height).float().expand(batch, height)
    x = torch.where(flip[:, None] > 0, width - 1 - x, x)
    columns = ((x + left[:, None] + 0.5) / scale_x[:, None] - 0.5).round().long().clamp(0, width - 1)
    rows = ((y + top[:, None] + 0.5) / scale_y[:, None] - 0.5).round().long().clamp(0, height - 1)
    depth = truth.depth[torch.arange(batch)[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    motion = torch.where(
        flip[:, None, None, None] > 0, mirror @ truth.source_from_target @ mirror, truth.source_from_target
    )
    return scale_crop_flip(snippets, scale_x, scale_y, left, top, flip), Truth(depth[:, None], motion)


def change_colours(snippets: Snippets, generator: torch.Generator) -> Snippets:
    """Saturation, colour balance, contrast, brightness, gamma and noise: of a snippet's frames alike, but the noise.

    Args:
        snippets: images in [0, 1].

    Returns:
        Images in [-1, 1].
    """
    images = torch.cat([snippets.target[:, None], snippets.sources], 1)
    batch = len(images)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, channels, 1, 1, generator=generator)

    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(2, keepdim=True)
    coloured = draw(0, 1) >= GREY_SHARE
    images = grey + torch.where(coloured, draw(0.4, 1.6), 0) * (images - grey)
    images = images * torch.where(coloured, draw(0.85, 1.15, 3), 1)
    mean = images.mean((1, 2, 3, 4), keepdim=True)
    images = (mean + draw(0.6, 1.4) * (images - mean)) * draw(0.6, 1.4)
    images = images.clamp(0, 1) ** torch.exp(draw(-0.4, 0.4))
    noise = torch.randn(images.shape, generator=generator) * draw(0, 0.02)
    images = 2 * (images + noise).clamp(0, 1) - 1
    return snippets._replace(target=images[:, 0], sources=images[:, 1:])


def guided_loss(model: SfMLearner, snippets: Snippets, truth: Truth) -> tuple[Tensor, Tensor]:
    """The losses of the depth network and of the pose network.

    Args:
        snippets: images in [-1, 1].
    """
    source_from_target, _ = model.pose_net(snippets.target, snippets.sources)
    motion = motion_guidance(source_from_target, truth, snippets.intrinsics)
    return depth_guidance(model.depth_net(snippets.target), truth.depth), motion


def motion_guidance(source_from_target: Tensor, truth: Truth, intrinsics: Tensor) -> Tensor:
    """Mean distance, as a share of the image's width, between where predicted and true motion bring the pixels.

    It weighs turns and translations by what they do to the image. A distance counts as a fifth of the width at most.

    Args:
        source_from_target: [B, N, 4, 4], predicted.
        intrinsics: [B, 3, 3].
    """
    width = truth.depth.shape[3]
    depth = torch.where(truth.depth > 0, truth.depth, SKY) / UNIT
    points = unproject(depth, intrinsics)[:, :, ::MOTION_STRIDE, ::MOTION_STRIDE].flatten(2)[:, None]
    repeated = intrinsics.repeat_interleave(source_from_target.shape[1], 0)
    pixels = []
    for motion in (source_from_target, truth.source_from_target):
        moved = (motion[:, :, :3, :3] @ points + motion[:, :, :3, 3:]).flatten(0, 1)
        # A point that a wrong motion brings behind the camera is kept before it.
        pixels.append(project(torch.cat([moved[:, :2], moved[:, 2:].clamp(min=NEAREST)], 1), repeated))
    return MOTION_WEIGHT * ((pixels[0] - pixels[1]).abs() / width).clamp(max=0.2).mean()


def depth_guidance(disparities: list[Tensor], depth: Tensor) -> Tensor:
    """Mean |log d - log d* - their mean| of each image with d the disparity and d* the true one, averaged over images.

    The mean difference is the image's scale. It costs little: what a scene's size is, a single image hardly shows when
    focal length and camera height differ. Where there is nothing, disparity beyond that of `FAR` costs.

    Args:
        disparities: of several scales, the finest first; scale s counts 1 / 2^s.
        depth: [B, 1, H, W] in metres, 0 where there is nothing.
    """
    known, sky = (depth > 0) & (depth < FAR), depth == 0
    count = known.sum((1, 2, 3)).clamp(min=1)
    total = depth.new_zeros(())
    for scale, disparity in enumerate(disparities[:SCALES]):
        if scale:
            disparity = functional.interpolate(disparity, depth.shape[2:], mode="bilinear", align_corners=False)
        difference = torch.where(known, torch.log(disparity * depth.clamp(min=1e-3) / UNIT), 0)
        shift = difference.sum((1, 2, 3)) / count
        aligned = (difference - shift[:, None, None, None]).abs()
        error = torch.where(known, aligned, 0).sum((1, 2, 3)) / count
        nearer = functional.relu(torch.log(disparity * FAR / UNIT) - shift[:, None, None, None])
        error = error + SCALE_WEIGHT * shift.abs() + SKY_WEIGHT * torch.where(sky, nearer, 0).mean((1, 2, 3))
        total = total + error.mean() / 2**scale
    return total
