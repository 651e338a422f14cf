"""Networks whose prediction is the mean over several sizes of an image, or over the image and its mirror image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import rounded_size

FACTORS = (0.75, 1.0, 1.25)


class SizeAverage(nn.Module):
    """Predicts disparity as the mean over several sizes of the image, which errs less than one size does.

    The mean is that of the logarithms. Each size's disparity is brought to the mean logarithm of the image's own size
    before, so that the result has the scale of the network's usual prediction.

    Args:
        depth_net: images [B, 3, H, W] -> disparities, the finest first.
        factors: of the sides of the image; 1 is its own size.
    """

    def __init__(self, depth_net: nn.Module, factors: Sequence[float] = FACTORS) -> None:
        super().__init__()
        self.depth_net, self.factors = depth_net, _checked(factors)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The finest disparity alone, in a list: [B, 1, H, W] of images [B, 3, H, W] in [-1, 1]."""
        size = (image.shape[2], image.shape[3])
        own = self.depth_net(image)[0].log()
        level = own.mean((1, 2, 3), keepdim=True)
        logarithms = []
        for factor in self.factors:
            small = scaled_size(size, factor)
            if small == size:
                logarithms.append(own)
                continue
            disparity = self.depth_net(_resized(image, small))[0]
            logarithm = functional.interpolate(disparity, size, mode="bilinear", align_corners=False).log()
            logarithms.append(logarithm + level - logarithm.mean((1, 2, 3), keepdim=True))
        return [torch.stack(logarithms).mean(0).exp()]


class MotionAverage(nn.Module):
    """Predicts the motions of a snippet as the mean over sizes of its images, and over them and their mirror images.

    The mean of translations is taken of each number, that of rotations is the rotation next to the mean matrix.

    Args:
        pose_net: target [B, 3, H, W] and sources [B, N, 3, H, W] -> source_from_target [B, N, 4, 4] and masks.
        mirror: predict the mirrored images, too.
        factors: of the sides of the images; 1 is their own size.
    """

    def __init__(self, pose_net: Any, mirror: bool = True, factors: Sequence[float] = FACTORS) -> None:
        super().__init__()
        self.pose_net, self.mirror, self.factors = pose_net, mirror, _checked(factors)
        self.sources: int = pose_net.sources

    def forward(self, target: Tensor, sources: Tensor) -> tuple[Tensor, None]:
        """source_from_target [B, N, 4, 4], and None for the masks."""
        size = (target.shape[2], target.shape[3])
        motions = []
        for factor in self.factors:
            small = scaled_size(size, factor)
            images = [target, *sources.unbind(1)]
            if small != size:
                images = [_resized(image, small) for image in images]
            motions.append(self.pose_net(images[0], torch.stack(images[1:], 1))[0])
            if self.mirror:
                mirrored = [image.flip(-1) for image in images]
                motions.append(mirrored_motion(self.pose_net(mirrored[0], torch.stack(mirrored[1:], 1))[0]))
        mean = torch.stack(motions).mean(0)
        left, _, right = torch.linalg.svd(mean[..., :3, :3])
        mean[..., :3, :3] = left @ right
        return mean, None


def averaged_motion(pose_net: Any, mirror: bool, sizes: bool) -> Any:
    """The pose network, or its `MotionAverage` over mirror images, sizes, or both."""
    return MotionAverage(pose_net, mirror, FACTORS if sizes else (1.0,)) if mirror or sizes else pose_net


def mirrored_motion(a_from_b: Tensor) -> Tensor:
    """The motion [..., 4, 4] that a mirror across the plane x = 0 shows in place of another one; its own inverse."""
    signs = a_from_b.new_tensor([-1.0, 1.0, 1.0, 1.0])
    return signs[:, None] * a_from_b * signs


def scaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) times a factor, rounded to what the networks like. Example: (64, 208) by 0.75 is (48, 160)."""
    return size if factor == 1 else rounded_size(size, factor)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def _checked(factors: Sequence[float]) -> tuple[float, ...]:
    if not factors or min(factors) <= 0:
        raise ValueError(f"factors are {list(factors)}, expected one or more numbers above 0")
    return tuple(factors)
