"""The prior: a depth network that a training stays near (--prior)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from files.errors import InputError, UsageError
from models.averages import SizeAverage, scaled_size
from models.checkpoint import checkpoint_file, load_model
from training.options import TrainOptions


class Prior(nn.Module):
    """Predicts disparity with a depth network, at about the image size that the network was trained on.

    A network that was trained on small images has larger errors on large ones. So larger images are reduced by a common
    factor of both sides, and the disparity is enlarged again. The mean over three sizes (`SizeAverage`) of the
    predictions for the image and for its mirror image is taken, which errs less than a single prediction.

    Args:
        depth_net: without gradients.
        pixels: number of pixels of its training images; None: images are never reduced.
    """

    def __init__(self, depth_net: nn.Module, pixels: int | None) -> None:
        super().__init__()
        self.depth_net, self.pixels = SizeAverage(depth_net.eval().requires_grad_(False)), pixels

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Disparity [B, 1, H, W] of images [B, 3, H, W] in [-1, 1]."""
        height, width = image.shape[2:]
        size = self.size_for(height, width)
        if size != (height, width):
            image = functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
        disparity = 0.5 * (self.depth_net(image)[0] + self.depth_net(image.flip(-1))[0].flip(-1))
        if size == (height, width):
            return disparity
        return functional.interpolate(disparity, (height, width), mode="bilinear", align_corners=False)

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which images of this size are predicted. Example: of 128 x 416, with 64 * 208, half."""
        if self.pixels is None or height * width <= self.pixels:
            return height, width
        return scaled_size((height, width), math.sqrt(self.pixels / (height * width)))


def load_prior(options: TrainOptions, device: torch.device) -> Prior | None:
    """The network of --prior; None without a prior.

    Raises:
        UsageError: one of --prior and --prior-weight is missing.
        InputError: the checkpoint has no depth network.
    """
    weight = options.objective.prior_weight
    if options.prior is None:
        if weight:
            raise UsageError(f"--prior-weight {weight:g}: expected --prior FILE beside it, or --prior world")
        return None
    if not weight:
        raise UsageError(f"--prior {options.prior}: expected --prior-weight above 0 beside it, for example 0.1")
    loaded = load_model(checkpoint_file(options.prior), device)
    if loaded.depth_net is None:
        raise InputError(f"--prior {options.prior}: holds no depth network")
    return Prior(loaded.depth_net, loaded.height * loaded.width if loaded.height and loaded.width else None)
