"""The objective: photometric error, smoothness, explainability (paper, section 3).

Scales are lists with the finest first. Scale s of the images is the full image averaged over the area of each coarse
pixel, and K changes with it.

A new term is a field of `ObjectiveOptions`, a function, and two lines in `objective`. The command line, the logs and
the checkpoints follow by themselves (docs/extending.md).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from files.errors import UsageError
from files.options import check_options, option
from geometry.camera import scale_intrinsics
from geometry.snippets import Snippets
from inverse_warp import inverse_warp
from models.sfm_learner import Prediction

SMOOTHED = ("disparity", "normalised-disparity", "depth")


@dataclass(frozen=True)
class ObjectiveOptions:
    """The terms of the objective and their weights. The loss is the sum of weight x term (paper, section 3)."""

    photometric_weight: float = option(1.0, "weight of L_vs, the photometric error (eq. 3)", at_least=0)
    smoothness_weight: float = option(0.5, "lambda_s, the weight of L_smooth at the finest scale", at_least=0)
    smoothness_decay: float = option(2.0, "the weight of L_smooth at scale s is divided by this number^s", above=0)
    smoothed: str = option("disparity", "the map that L_smooth smooths", choices=SMOOTHED)
    explainability: bool = option(True, "predict masks that weigh the photometric error")
    explainability_weight: float = option(
        0.2, "lambda_e, the weight of L_reg, the cross-entropy of the masks to 1", at_least=0
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.explainability and self.explainability_weight == 0:
            raise UsageError(
                "--explainability-weight 0: without a penalty the masks become 0 everywhere, and nothing is learnt; "
                "expected a weight above 0, or --no-explainability"
            )


@dataclass(frozen=True)
class Warps:
    """The images that the photometric error compared at one scale, for pictures and diagnostics."""

    target: Tensor  # [B, 3, h, w]
    warped: Tensor  # [B, N, 3, h, w], sources seen from the target
    valid: Tensor  # [B, N, h, w], bool


@dataclass(frozen=True)
class Loss:
    """The loss of a batch and its terms: total = sum of weights[name] * terms[name]."""

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float]
    warps: list[Warps]  # of each scale


def objective(snippets: Snippets, prediction: Prediction, options: ObjectiveOptions) -> Loss:
    """The loss of a batch of snippets: the one place where terms are weighed and summed.

    Args:
        snippets: images in [-1, 1].
        prediction: of the model for these snippets, at four scales.
    """
    disparities, logits = prediction.disparities, prediction.mask_logits
    depths = [1 / disparity for disparity in disparities]
    photometric, warps = photometric_loss(snippets, depths, prediction)
    terms, weights = {"photometric": photometric}, {"photometric": options.photometric_weight}
    if options.smoothness_weight:
        smoothed = depths if options.smoothed == "depth" else disparities
        if options.smoothed == "normalised-disparity":
            smoothed = [disparity / disparity.mean((2, 3), keepdim=True) for disparity in disparities]
        terms["smoothness"] = smoothness_loss(smoothed, options.smoothness_decay)
        weights["smoothness"] = options.smoothness_weight
    if logits is not None:
        terms["explainability"] = explainability_loss(logits)
        weights["explainability"] = options.explainability_weight
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return Loss(total, terms, weights, warps)


def photometric_loss(snippets: Snippets, depths: list[Tensor], prediction: Prediction) -> tuple[Tensor, list[Warps]]:
    """L_vs (eq. 3 and 4): |target - warped source|, weighted by explainability, summed over sources and scales.

    At each scale it is the mean over all pixels and channels. A pixel that projects outside the source counts as 0.

    Args:
        depths: of each scale [B, 1, h_s, w_s].
        prediction: motion, camera and masks.
    """
    height, width = snippets.target.shape[2:]
    n_sources = snippets.sources.shape[1]
    total = snippets.target.new_zeros(())
    warps = []
    for scale, depth in enumerate(depths):
        h, w = depth.shape[2:]
        target = _reduce(snippets.target, h, w)
        sources = _reduce(snippets.sources.flatten(0, 1), h, w).unflatten(0, snippets.sources.shape[:2])
        scaled = scale_intrinsics(prediction.intrinsics, w / width, h / height)
        warped, valid = inverse_warp(sources, depth, prediction.source_from_target, scaled)
        error = (target[:, None] - warped).abs().mean(2) * valid  # [B, N, h, w]
        if prediction.mask_logits is not None:
            error = error * prediction.mask_logits[scale].sigmoid()
        total = total + n_sources * error.mean()
        warps.append(Warps(target, warped, valid))
    return total, warps


def smoothness_loss(maps: list[Tensor], decay: float) -> Tensor:
    """L_smooth: the L1 norm of second derivatives, scale s weighted 1 / decay^s (section 3.3).

    Args:
        maps: of each scale [B, 1, h_s, w_s], disparity or depth; at least 3 x 3 to have second derivatives.
    """
    total = maps[0].new_zeros(())
    for scale, values in enumerate(maps):
        if min(values.shape[2:]) < 3:
            continue
        dx, dy = values.diff(dim=3), values.diff(dim=2)
        dxdy = dx.diff(dim=2).abs().mean()  # equal to dydx: the differences commute
        total = total + (dx.diff(dim=3).abs().mean() + 2 * dxdy + dy.diff(dim=2).abs().mean()) / decay**scale
    return total


def explainability_loss(logits: list[Tensor]) -> Tensor:
    """L_reg: cross-entropy of the masks to 1, mean at each scale, summed over scales (section 3.4)."""
    # -log(sigmoid(x)) = softplus(-x), which does not overflow.
    return torch.stack([functional.softplus(-scale).mean() for scale in logits]).sum()


def _reduce(images: Tensor, height: int, width: int) -> Tensor:
    """[B, C, H, W] averaged over the area of each pixel of the smaller size."""
    if images.shape[2:] == (height, width):
        return images
    if images.shape[2] % height == 0 and images.shape[3] % width == 0:
        return functional.adaptive_avg_pool2d(images, (height, width))
    # Between whole factors the pooling's windows would overlap and lie beside where the scaled K has their pixels.
    rows, columns = _area_weights(images.shape[2], height, images), _area_weights(images.shape[3], width, images)
    return rows @ images @ columns.T


def _area_weights(old: int, new: int, like: Tensor) -> Tensor:
    """The share of each old pixel in each new one along an axis: [new, old], rows sum to 1."""
    pixels = torch.arange(old, dtype=like.dtype, device=like.device)
    edges = torch.arange(new + 1, dtype=like.dtype, device=like.device) * (old / new)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0) * (new / old)
