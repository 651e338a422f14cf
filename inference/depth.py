"""Depth of images by a trained network."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from datasets.augmentation import normalise
from files.errors import InputError
from files.images import read_image, resize_area
from models.layers import SMALLEST_SIDE

DEFAULT_SIZE = (128, 416)  # height and width of the paper, for checkpoints that do not store theirs


def input_size(by_flag: tuple[int | None, int | None], of_training: tuple[int | None, int | None]) -> tuple[int, int]:
    """The (height, width) that images are resized to: the flags' values, else the training's, else the paper's."""
    sides = [
        flag or trained or default for flag, trained, default in zip(by_flag, of_training, DEFAULT_SIZE, strict=True)
    ]
    if min(sides) < SMALLEST_SIDE:
        raise InputError(f"--height {sides[0]} --width {sides[1]}: the networks take images from {SMALLEST_SIDE} on")
    return sides[0], sides[1]


def read_resized(file: Path, height: int, width: int) -> np.ndarray:
    """An image at the network's size: uint8 [3, height, width]. A file that has this size already is not touched, so
    a full-size image and the same image resized beforehand give the same prediction."""
    return np.ascontiguousarray(resize_area(read_image(file), height, width).transpose(2, 0, 1))


@torch.inference_mode()
def predict_depth(
    depth_net: torch.nn.Module,
    images: Iterator[np.ndarray],
    count: int,
    batch_size: int,
    device: torch.device,
    flip_average: bool = False,
) -> Iterator[np.ndarray]:
    """The network's depth, 1 / disparity at the finest scale, of `count` images, one after another: float32 [H, W].

    Args:
        depth_net: in eval mode, on `device`.
        images: uint8 [3, H, W] each, all of one size (`read_resized`).
        flip_average: predict the mirrored image, too, and take `blend_flipped` of both.
    """
    with tqdm(total=count, desc=f"predicting on {device}", unit="image") as progress:
        while batch := list(islice(images, batch_size)):
            frames = normalise(torch.from_numpy(np.stack(batch)).to(device))
            disparity = depth_net(frames)[0]
            if flip_average:
                disparity = blend_flipped(disparity, depth_net(frames.flip(-1))[0].flip(-1))
            yield from (1 / disparity).squeeze(1).cpu().numpy()
            progress.update(len(batch))


def blend_flipped(disparity: Tensor, of_flipped: Tensor) -> Tensor:
    """An image's disparity and that of its mirror image (mirrored back), both [..., H, W], in one.

    The post-processing of Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency"
    (monodepth, CVPR 2017): their mean, but within 5 % of the left border only the mirror image's, within 5 % of the
    right border only the image's own, and a linear change over the 5 % that follow.
    """
    width = disparity.shape[-1]
    position = torch.linspace(0, 1, width, device=disparity.device, dtype=disparity.dtype)
    left = 1 - (20 * (position - 0.05)).clamp(0, 1)
    right = left.flip(-1)
    return right * disparity + left * of_flipped + (1 - left - right) * 0.5 * (disparity + of_flipped)
