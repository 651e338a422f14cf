"""The objective: photometric error, smoothness, explainability (paper, section 3).

Scales are lists with the finest first. Scale s of the images is the full image averaged over the area of each coarse
pixel, and K changes with it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from geometry.camera import scale_intrinsics
from inverse_warp import inverse_warp
from training.recipes import Recipe


@dataclass(frozen=True)
class Warps:
    """What the photometric error compared at one scale; for pictures and diagnostics."""

    target: Tensor  # [B, 3, h, w]
    warped: Tensor  # [B, N, 3, h, w], sources seen from the target
    valid: Tensor  # [B, N, h, w], bool


@dataclass(frozen=True)
class Objective:
    """The loss of a batch, and what it is made of: loss = sum of weights[name] * terms[name]."""

    loss: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float]
    warps: list[Warps]  # of each scale


def objective(
    frames: Tensor,
    disparities: list[Tensor],
    source_from_target: Tensor,
    logits: list[Tensor] | None,
    intrinsics: Tensor,
    recipe: Recipe,
) -> Objective:
    """The loss of a batch of snippets: the one place where terms are weighed and summed.

    Args:
        frames: [B, L, 3, H, W] in order of time, the target in the middle.
        disparities: of the target, four of [B, 1, h_s, w_s].
        source_from_target: [B, L - 1, 4, 4].
        logits: explainability, four of [B, L - 1, h_s, w_s]; None without masks.
        intrinsics: [B, 3, 3], of the full size.
        recipe: which terms, and their weights.
    """
    depths = [1 / disparity for disparity in disparities]
    photometric, warps = photometric_loss(frames, depths, source_from_target, logits, intrinsics)
    terms, weights = {"photometric": photometric}, {"photometric": recipe.photometric_weight}
    if recipe.smoothness_weight:
        smoothed = depths if recipe.smoothed == "depth" else disparities
        if recipe.smoothed == "normalised-disparity":
            smoothed = [disparity / disparity.mean((2, 3), keepdim=True) for disparity in disparities]
        terms["smoothness"] = smoothness_loss(smoothed, recipe.smoothness_decay)
        weights["smoothness"] = recipe.smoothness_weight
    if logits is not None:
        terms["explainability"] = explainability_loss(logits)
        weights["explainability"] = recipe.explainability_weight
    loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return Objective(loss, terms, weights, warps)


def photometric_loss(
    frames: Tensor,
    depths: list[Tensor],
    source_from_target: Tensor,
    logits: list[Tensor] | None,
    intrinsics: Tensor,
) -> tuple[Tensor, list[Warps]]:
    """L_vs (eq. 3 and 4): |target - warped source|, weighted by explainability, summed over sources and scales.

    At each scale it is the mean over all pixels and channels; a pixel that falls outside the source counts as 0.
    Arguments as in `objective`, with depths [B, 1, h_s, w_s] for disparities.
    """
    batch, length, channels, height, width = frames.shape
    n_sources = length - 1
    total = frames.new_zeros(())
    warps = []
    for scale, depth in enumerate(depths):
        h, w = depth.shape[2:]
        images = _reduce(frames.flatten(1, 2), h, w).view(batch, length, channels, h, w)
        target, sources = split_snippet(images)
        scaled = scale_intrinsics(intrinsics, w / width, h / height)
        warped, valid = inverse_warp(sources, depth, source_from_target, scaled)
        error = (target[:, None] - warped).abs().mean(2) * valid  # [B, N, h, w]
        if logits is not None:
            error = error * logits[scale].sigmoid()
        total = total + n_sources * error.mean()
        warps.append(Warps(target, warped, valid))
    return total, warps


def split_snippet(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The target [B, 3, H, W] and its sources [B, L - 1, 3, H, W], in order of time, of frames [B, L, 3, H, W]."""
    middle = frames.shape[1] // 2
    return frames[:, middle].contiguous(), torch.cat([frames[:, :middle], frames[:, middle + 1 :]], 1)


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
