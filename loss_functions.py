"""The objective: photometric error, smoothness, geometry consistency, prior, explainability.

The terms are those of three papers, and any combination of their options runs:

- paper: Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017 (the defaults);
- monodepth2: Godard et al., "Digging into Self-Supervised Monocular Depth Estimation", ICCV 2019;
- SC-SfMLearner: Bian et al., "Unsupervised Scale-consistent Depth and Ego-motion Learning from Monocular Video",
  NeurIPS 2019.

Direct alignment (`--align-steps`) follows a fourth one: Wang et al., "Learning Depth from Monocular Videos using Direct
Methods", CVPR 2018.

Scales are lists with the finest first. Scale s of the images is the full image averaged over the area of each coarse
pixel, and K changes with it.

A new term is a field of `ObjectiveOptions`, a function, and two lines in `objective`. The command line, the logs and
the checkpoints follow by themselves (docs/extending.md).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from files.errors import UsageError
from files.options import check_options, option
from geometry.camera import scale_intrinsics
from geometry.snippets import Snippets
from geometry.structural_similarity import dissimilarity, window_sums
from inverse_warp import PADDINGS, depth_in_source, inverse_warp
from models.direct_alignment import align, displacement
from models.sfm_learner import Prediction

ERRORS = ("l1", "ssim")
RANGES = {"signed": (1.0, 0.0), "unit": (0.5, 0.5), "normalised": (0.5 / 0.225, 0.05 / 0.225)}  # factor, offset
OVER_SOURCES = ("sum", "mean", "minimum")
OVER_SCALES = ("sum", "mean")
OVER_PIXELS = ("all", "valid")
AUTO_MASKS = ("off", "minimum", "exclude")
SCALE_SIZES = ("own", "full")
SMOOTHED = ("disparity", "normalised-disparity", "depth", "normalised-depth")
SMOOTHNESSES = ("second-order", "edge-aware")

SSIM_SHARE = 0.85  # of the error "ssim"; the rest is L1
MIN_COMPARED_DEPTH = 1e-3  # of a point in the source camera; nearer and behind it there is no depth to compare
TIE_NOISE = 1e-5  # standard deviation; breaks ties between the identity's error and a warp's


@dataclass(frozen=True)
class ObjectiveOptions:
    """The terms of the objective and their weights. The loss is the sum of weight x term (paper, section 3)."""

    photometric_weight: float = option(1.0, "weight of L_vs, the photometric error (eq. 3)", at_least=0)
    photometric_error: str = option(
        "l1",
        "photometric error of a pixel: l1 is the mean absolute difference; ssim is 0.85 (1 - SSIM) / 2 + 0.15 L1",
        choices=ERRORS,
    )
    error_range: str = option(
        "signed",
        "range of the images that are compared: signed [-1, 1]; unit [0, 1]; normalised (unit - 0.45) / 0.225",
        choices=tuple(RANGES),
    )
    largest_difference: float | None = option(
        None, "L1 differences of a channel above this count as this (SC-SfMLearner: 1; default: no limit)", above=0
    )
    over_sources: str = option(
        "sum",
        "how the errors of the sources are combined; minimum: each pixel counts its smallest error, so that a source "
        "that does not see the pixel is ignored",
        choices=OVER_SOURCES,
    )
    over_scales: str = option("sum", "how every term is combined over the scales", choices=OVER_SCALES)
    over_pixels: str = option(
        "all",
        "mean over all pixels, where those without an error count as 0; or over the valid ones alone",
        choices=OVER_PIXELS,
    )
    padding: str = option(
        "zeros",
        "pixels that project outside the source: zeros leaves them out; border compares them with the source's border",
        choices=PADDINGS,
    )
    auto_mask: str = option(
        "off",
        "masks pixels that do not change between frames: minimum includes the unwarped source's error in each pixel's "
        "minimum; exclude leaves out pixels whose unwarped source fits at least as well",
        choices=AUTO_MASKS,
    )
    scales: int = option(4, "the objective uses at most so many scales, the finest first", at_least=1)
    scale_size: str = option(
        "own", "size of the images at coarse scales: own, or full with the disparity enlarged", choices=SCALE_SIZES
    )

    smoothness: str = option(
        "second-order",
        "second-order: L1 norm of second derivatives; edge-aware: of first derivatives, less at the image's edges",
        choices=SMOOTHNESSES,
    )
    smoothness_weight: float = option(0.5, "lambda_s, the weight of L_smooth at the finest scale", at_least=0)
    smoothness_decay: float = option(2.0, "the weight of L_smooth at scale s is divided by this number^s", above=0)
    smoothed: str = option(
        "disparity", "the map that L_smooth smooths; normalised: divided by its mean", choices=SMOOTHED
    )

    geometry_weight: float = option(
        0.0,
        "weight of the geometry consistency: |D_a - D_b| / (D_a + D_b) of target and sources, in both directions; the "
        "depth of the sources is predicted, too",
        at_least=0,
    )
    geometry_mask: bool = option(False, "weigh the photometric error by 1 - the geometry inconsistency of each pixel")

    align_steps: int = option(
        0,
        "Gauss-Newton steps of direct alignment at half the size, after which there is one at full size: with the "
        "predicted depth they correct the predicted motion before the images are compared. The pose network learns "
        "the corrected motion, and depth does not learn the errors of the pose network. Use it with --scale-weight, "
        "or the scale of depth and motion drifts",
        at_least=0,
    )
    motion_weight: float = option(
        0.05,
        "with --align-steps, the weight of the difference between the predicted and the corrected motion: the mean "
        "displacement in pixels, along x and along y",
        above=0,
    )

    scale_weight: float = option(
        0.0,
        "weight of log(m)^2, where m is the mean disparity of the batch. The images do not show the scale that depth "
        "and translation share; this term holds m near 1, far from the ends of disparity's range",
        at_least=0,
    )

    prior_weight: float = option(
        0.0,
        "weight of the prior: the mean difference of log disparity from what another network predicts (--prior), up to "
        "a scale for each image. It holds depth where the photometric error misleads: on cars that move",
        at_least=0,
    )

    explainability: bool = option(True, "predict masks that weigh the photometric error")
    explainability_weight: float = option(
        0.2,
        "lambda_e, the weight of L_reg, the cross-entropy of the masks to 1, a mean over the sources; the authors' "
        "code sums over them: its 0.2 is 0.4 here with 3 frames, 0.8 with 5",
        at_least=0,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.explainability and self.explainability_weight == 0:
            raise UsageError(
                "--explainability-weight 0: without a penalty the masks become 0 everywhere, and nothing is learnt; "
                "expected a weight above 0, or --no-explainability"
            )
        if self.align_steps and self.compares_depth:
            raise UsageError(
                f"--align-steps {self.align_steps}: does not go with --geometry-weight or --geometry-mask, which "
                "compare depth by the predicted motion"
            )

    @property
    def compares_depth(self) -> bool:
        """Whether the objective needs the depth of the sources."""
        return self.geometry_weight > 0 or self.geometry_mask


@dataclass(frozen=True)
class Warps:
    """What the photometric error compared at one scale, for pictures and diagnostics; without a graph."""

    target: Tensor  # [B, 3, h, w]
    warped: Tensor  # [B, N, 3, h, w], sources seen from the target
    valid: Tensor  # [B, N, h, w], bool
    auto_mask: Tensor | None = None  # [B, 1 or N, h, w], bool: pixels that a warped source explains best
    geometry_mask: Tensor | None = None  # [B, N, h, w], 1 where the depths of target and source agree
    error_range: str = "signed"  # of the images, see `ObjectiveOptions`

    def signed(self) -> "Warps":
        """The same with images in [-1, 1]."""
        factor, offset = RANGES[self.error_range]
        target, warped = ((images - offset) / factor for images in (self.target, self.warped))
        return replace(self, target=target, warped=warped, error_range="signed")


@dataclass(frozen=True)
class Loss:
    """The loss of a batch and its terms: total = sum of weights[name] * terms[name]."""

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float]
    warps: list[Warps]  # of each scale


@dataclass(frozen=True)
class View:
    """A target and its sources at one scale. Images are in the range that is compared (`ObjectiveOptions`)."""

    target: Tensor  # [B, 3, h, w]
    sources: Tensor  # [B, N, 3, h, w]
    depth: Tensor  # [B, 1, h, w], of the target
    source_depth: Tensor | None  # [B, N, 1, h, w]
    source_from_target: Tensor  # [B, N, 4, 4]
    intrinsics: Tensor  # [B, 3, 3], of images of this size
    mask_logits: Tensor | None  # explainability [B, N, h, w]


def objective(
    snippets: Snippets, prediction: Prediction, options: ObjectiveOptions, noise: Tensor | None = None
) -> Loss:
    """The loss of a batch of snippets: the one place where terms are weighed and summed.

    Args:
        snippets: images in [-1, 1].
        prediction: of the model for these snippets. Where the options compare depths, it has those of the sources.
        noise: standard normal [H, W]. It breaks the ties of the auto-mask "minimum"; without it the warp wins a tie.
    """
    scales = range(min(options.scales, len(prediction.disparities)))
    images = _comparable(snippets, options)
    photometric, geometry, warps = [], [], []
    terms: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    if options.align_steps:
        prediction, terms["motion"] = corrected(snippets, prediction, options.align_steps)
        weights["motion"] = options.motion_weight
    if options.scale_weight:
        terms["scale"] = prediction.disparities[0].mean().log() ** 2
        weights["scale"] = options.scale_weight
    for scale in scales:
        view = make_view(images, prediction, scale, options)
        error, inconsistency, warp = compare(view, options, noise)
        warps.append(warp)
        if options.compares_depth:
            back = [compare(reversed_view(view, prediction, n), options, noise) for n in range(view.sources.shape[1])]
            share = 1 if options.over_sources == "sum" else 1 / len(back)
            error = error + share * torch.stack([one[0] for one in back]).sum()
            inconsistency = inconsistency + share * torch.stack([one[1] for one in back]).sum()
        photometric.append(error)
        geometry.append(inconsistency)
    terms["photometric"], weights["photometric"] = _over_scales(photometric, options), options.photometric_weight
    if options.smoothness_weight:
        smoothness = [smoothness_of_scale(images, prediction, scale, options) for scale in scales]
        terms["smoothness"], weights["smoothness"] = _over_scales(smoothness, options), options.smoothness_weight
    if options.geometry_weight:
        terms["geometry"], weights["geometry"] = _over_scales(geometry, options), options.geometry_weight
    if options.prior_weight:
        if prediction.prior_disparity is None:
            raise ValueError("the objective has a prior, but the prediction has no prior_disparity")
        terms["prior"] = prior_distance(prediction.disparities[0], prediction.prior_disparity)
        weights["prior"] = options.prior_weight
    if prediction.mask_logits is not None:
        penalties = [explainability_loss(prediction.mask_logits[scale]) for scale in scales]
        terms["explainability"] = _over_scales(penalties, options)
        weights["explainability"] = options.explainability_weight
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return Loss(total, terms, weights, warps)


def make_view(images: Snippets, prediction: Prediction, scale: int, options: ObjectiveOptions) -> View:
    """What the objective compares at a scale: images, depths, K and masks of one size.

    Args:
        images: in the range that is compared, at full size.
    """
    height, width = images.target.shape[2:]
    disparity, source_disparity = prediction.disparities[scale], None
    if prediction.source_disparities is not None:
        source_disparity = prediction.source_disparities[scale]
    logits = None if prediction.mask_logits is None else prediction.mask_logits[scale]
    h, w = disparity.shape[2:]
    if options.scale_size == "full" and (h, w) != (height, width):
        h, w = height, width
        disparity = _enlarge(disparity, h, w)
        if source_disparity is not None:
            source_disparity = _enlarge(source_disparity.flatten(0, 1), h, w).unflatten(0, source_disparity.shape[:2])
        logits = None if logits is None else _enlarge(logits, h, w)
    # A learned camera learns at the finest scale alone. A wrong focal length moves pixels by tenths there, and what
    # smaller images show of that is biased: they drew the camera away from the true one (docs/experiments.md).
    finest = scale == 0 or (h, w) == (height, width)
    intrinsics = prediction.intrinsics if finest else prediction.intrinsics.detach()
    return View(
        _reduce(images.target, h, w),
        _reduce(images.sources.flatten(0, 1), h, w).unflatten(0, images.sources.shape[:2]),
        1 / disparity,
        None if source_disparity is None else 1 / source_disparity,
        prediction.source_from_target,
        scale_intrinsics(intrinsics, w / width, h / height),
        logits,
    )


def corrected(snippets: Snippets, prediction: Prediction, steps: int) -> tuple[Prediction, Tensor]:
    """The prediction with its motion corrected by direct alignment, and how far the network's own motion is from that.

    The corrected motion has no gradient. Near the minimum of the error over motions none is needed: there depth's
    gradient is the same as if the motion followed it.

    Args:
        snippets: images in [-1, 1].
    """
    height, width = snippets.target.shape[2:]
    h, w = -(-height // 2), -(-width // 2)
    disparity = prediction.disparities[min(1, len(prediction.disparities) - 1)].detach()
    if disparity.shape[2:] != (h, w):  # there is one scale
        disparity = _reduce(disparity, h, w)
    target = _reduce(snippets.target, h, w)
    sources = _reduce(snippets.sources.flatten(0, 1), h, w).unflatten(0, snippets.sources.shape[:2])
    intrinsics = scale_intrinsics(prediction.intrinsics.detach(), w / width, h / height)
    motion = align(target, sources, 1 / disparity, prediction.source_from_target.detach(), intrinsics, steps)
    # At half size sideways translations are noisy; one step at full size halves that noise.
    finest = 1 / prediction.disparities[0].detach()
    motion = align(snippets.target, snippets.sources, finest, motion, prediction.intrinsics.detach(), 1)
    distance = displacement(1 / disparity, prediction.source_from_target, motion, intrinsics).mean()
    return prediction._replace(source_from_target=motion), distance * (width / w)


def reversed_view(view: View, prediction: Prediction, source: int) -> View:
    """A source as the target, whose only source is the target."""
    if view.source_depth is None or prediction.target_from_source is None:
        raise ValueError("the objective compares depths, but the prediction has no depth of the sources")
    return View(
        view.sources[:, source],
        view.target[:, None],
        view.source_depth[:, source],
        view.depth[:, None],
        prediction.target_from_source[:, source, None],
        view.intrinsics,
        None,
    )


def compare(view: View, options: ObjectiveOptions, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Warps]:
    """L_vs (eq. 3 and 4) and the geometry inconsistency of one view, and what was compared.

    Masks weigh a pixel's error before its minimum over the sources is taken.

    Returns:
        The photometric error and the inconsistency, scalars, and what was compared.
    """
    layers = view.sources if view.source_depth is None else torch.cat([view.sources, view.source_depth], 2)
    layers, valid = inverse_warp(layers, view.depth, view.source_from_target, view.intrinsics, options.padding)
    warped, counted = layers[:, :, :3], valid
    if options.padding == "border":
        counted = torch.ones_like(valid)
    elif options.photometric_error == "ssim":  # its windows reach beyond valid pixels: they find zeros there
        warped = warped * valid[:, :, None]
    target_sums = window_sums(view.target) if options.photometric_error == "ssim" else None
    error, difference = photometric_error(view.target, warped, options, target_sums)
    inconsistency, geometry_mask, auto_mask = error.new_zeros(()), None, None
    if options.auto_mask == "exclude":
        counted = auto_mask = counted & (difference < (view.target[:, None] - view.sources).abs().mean(2))
    if view.source_depth is not None:
        disagreement = depth_disagreement(view, layers[:, :, 3])
        inconsistency = _over_sources(disagreement, counted & valid, options, minimum=False)
        geometry_mask = 1 - disagreement
        if options.geometry_mask:
            error = error * geometry_mask
    if view.mask_logits is not None:
        error = error * view.mask_logits.sigmoid()
    if options.auto_mask == "minimum":
        with torch.no_grad():
            identity_error, _ = photometric_error(view.target, view.sources, options, target_sums)
        error, counted, auto_mask = _join_identity(error, counted, identity_error, options, noise)
    photometric = _over_sources(error, counted, options, minimum=options.over_sources == "minimum")
    if geometry_mask is not None:
        geometry_mask = geometry_mask.detach()
    seen = Warps(view.target, warped.detach(), valid, auto_mask, geometry_mask, options.error_range)
    return photometric, inconsistency, seen


def photometric_error(
    target: Tensor, images: Tensor, options: ObjectiveOptions, target_sums: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The error of each pixel between a target [B, 3, h, w] and images [B, N, 3, h, w].

    Args:
        target_sums: `window_sums(target)`, which several calls can share.

    Returns:
        The error by `options.photometric_error`, and the mean L1 difference of the channels, both [B, N, h, w].
    """
    difference = _MeanDifference.apply(target, images, options.largest_difference)
    if options.photometric_error == "l1":
        return difference, difference
    structure = dissimilarity(target, images, target_sums)
    return SSIM_SHARE * structure + (1 - SSIM_SHARE) * difference, difference


class _MeanDifference(torch.autograd.Function):
    """Mean over the channels of min(|target - image|, largest), for `photometric_error`.

    The backward pass is written by hand: one pass over the images, where autograd's derivation makes four.
    """

    @staticmethod
    def forward(ctx: Any, target: Tensor, images: Tensor, largest: float | None) -> Tensor:
        """[B, C, h, w] and [B, N, C, h, w] to [B, N, h, w]."""
        difference = images - target[:, None]
        slope = difference.sign() if any(ctx.needs_input_grad) else None
        difference.abs_()
        if largest is not None:
            if slope is not None:
                slope.masked_fill_(difference > largest, 0)
            difference.clamp_(max=largest)
        if slope is not None:
            ctx.save_for_backward(slope)
        return difference.mean(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        by_images = slope * (gradient / slope.shape[2])[:, :, None]
        return -by_images.sum(1) if ctx.needs_input_grad[0] else None, by_images, None


def depth_disagreement(view: View, sampled_depth: Tensor) -> Tensor:
    """|D_a - D_b| / (D_a + D_b), clamped to [0, 1], of each pixel (SC-SfMLearner, eq. 3): [B, N, h, w].

    D_a is the depth of the target's pixel in the source camera, D_b the source's own depth, sampled there.

    Args:
        sampled_depth: [B, N, h, w].
    """
    depth = depth_in_source(view.depth, view.source_from_target, view.intrinsics).clamp(min=MIN_COMPARED_DEPTH)
    # Outside the source both may be 0; such pixels are not valid.
    return ((depth - sampled_depth).abs() / (depth + sampled_depth)).clamp(0, 1)


def smoothness_of_scale(images: Snippets, prediction: Prediction, scale: int, options: ObjectiveOptions) -> Tensor:
    """L_smooth of a scale: of the target, and of the sources where their depth is predicted."""
    maps = [(prediction.disparities[scale], images.target)]
    if prediction.source_disparities is not None:
        source_disparities = prediction.source_disparities[scale]
        maps += zip(source_disparities.unbind(1), images.sources.unbind(1), strict=True)
    total = images.target.new_zeros(())
    for disparity, image in maps:
        values = 1 / disparity if options.smoothed.endswith("depth") else disparity
        if options.smoothed.startswith("normalised"):
            values = values / values.mean((2, 3), keepdim=True)
        if options.smoothness == "edge-aware":
            total = total + edge_aware_smoothness(values, _reduce(image, *values.shape[2:]))
        else:
            total = total + second_order_smoothness(values)
    return total / options.smoothness_decay**scale


def second_order_smoothness(values: Tensor) -> Tensor:
    """The L1 norm of the second derivatives of a map [B, 1, h, w] (paper, section 3.3); 0 below 3 x 3 pixels."""
    if min(values.shape[2:]) < 3:
        return values.new_zeros(())
    dx, dy = values.diff(dim=3), values.diff(dim=2)
    dxdy = dx.diff(dim=2).abs().mean()  # equal to dydx: the differences commute
    return dx.diff(dim=3).abs().mean() + 2 * dxdy + dy.diff(dim=2).abs().mean()


def edge_aware_smoothness(values: Tensor, image: Tensor) -> Tensor:
    """Mean |d values| exp(-|d image|) in x, plus the same in y (monodepth2, eq. 3).

    Args:
        values: [B, 1, h, w], h and w from 2 on.
        image: [B, 3, h, w]; |d image| is the mean over its channels.
    """
    total = values.new_zeros(())
    for axis in (3, 2):
        weight = (-image.diff(dim=axis).abs().mean(1, keepdim=True)).exp()
        total = total + (values.diff(dim=axis).abs() * weight).mean()
    return total


def prior_distance(disparity: Tensor, prior: Tensor) -> Tensor:
    """Mean |log d - log p - the image's mean of that| of disparity d and its prior p, both [B, 1, h, w].

    SC-DepthV3 (Sun et al., TPAMI 2023) has a trained network's depth as a guide for cars that move, too, by ranks and
    normals. The logarithm makes this one blind to the scale, which a monocular training chooses by itself.
    """
    difference = disparity.log() - prior.log()
    return (difference - difference.mean((1, 2, 3), keepdim=True)).abs().mean()


def explainability_loss(logits: Tensor) -> Tensor:
    """L_reg: mean cross-entropy of the masks of a scale to 1 (section 3.4)."""
    # -log(sigmoid(x)) = softplus(-x), which does not overflow.
    return functional.softplus(-logits).mean()


def _join_identity(
    error: Tensor, counted: Tensor, identity_error: Tensor, options: ObjectiveOptions, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The smaller one of a warp's error and the unwarped source's, which counts everywhere (monodepth2, eq. 5).

    Returns:
        The errors and where they count, [B, n, h, w] with n = 1 for the minimum over the sources, else N; and where a
        warp won.
    """
    if noise is not None:
        identity_error = identity_error + TIE_NOISE * noise[: error.shape[2], : error.shape[3]]
    error = error.masked_fill(~counted, torch.inf)
    if options.over_sources == "minimum":
        error, identity_error = error.amin(1, keepdim=True), identity_error.amin(1, keepdim=True)
    auto_mask = error <= identity_error
    return torch.where(auto_mask, error, identity_error), torch.ones_like(auto_mask), auto_mask


def _over_sources(error: Tensor, counted: Tensor, options: ObjectiveOptions, minimum: bool) -> Tensor:
    """Errors [B, N, h, w] of the pixels that count as one number."""
    if minimum and error.shape[1] > 1:
        error = error.masked_fill(~counted, torch.inf).amin(1, keepdim=True)
        counted = counted.any(1, keepdim=True)
        error = torch.where(counted, error, 0)
    else:
        error = error * counted  # a product, so that an image that is not finite shows in the loss
    n_sources = error.shape[1]
    if options.over_pixels == "all":
        mean = error.mean()
    else:  # each source's mean, then the mean over the sources
        mean = (error.sum((0, 2, 3)) / counted.sum((0, 2, 3)).clamp(min=1)).mean()
    return n_sources * mean if options.over_sources == "sum" else mean


def _over_scales(values: list[Tensor], options: ObjectiveOptions) -> Tensor:
    total = torch.stack(values).sum()
    return total / len(values) if options.over_scales == "mean" else total


def _comparable(snippets: Snippets, options: ObjectiveOptions) -> Snippets:
    """Images in [-1, 1] in the range that is compared."""
    if options.error_range == "signed":
        return snippets
    factor, offset = RANGES[options.error_range]
    return snippets._replace(target=snippets.target * factor + offset, sources=snippets.sources * factor + offset)


def _enlarge(maps: Tensor, height: int, width: int) -> Tensor:
    """[B, C, h, w] enlarged to the full size."""
    return functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


def _reduce(images: Tensor, height: int, width: int) -> Tensor:
    """[B, C, H, W] averaged over the area of each pixel of the smaller size."""
    if images.shape[2:] == (height, width):
        return images
    down, across = images.shape[2] // height, images.shape[3] // width
    if images.shape[2:] == (down * height, across * width):
        # Slices are added: four times as fast as pooling on a CPU.
        rows = _sum([images[:, :, start::down] for start in range(down)])
        return _sum([rows[..., start::across] for start in range(across)]).div_(down * across)
    # Between whole factors the pooling's windows would overlap and lie beside where the scaled K has their pixels.
    rows, columns = _area_weights(images.shape[2], height, images), _area_weights(images.shape[3], width, images)
    return rows @ images @ columns.T


def _sum(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape, as a new tensor."""
    total = parts[0].clone(memory_format=torch.contiguous_format)
    for part in parts[1:]:
        total += part
    return total


def _area_weights(old: int, new: int, like: Tensor) -> Tensor:
    """The share of each old pixel in each new one along an axis: [new, old], rows sum to 1."""
    pixels = torch.arange(old, dtype=like.dtype, device=like.device)
    edges = torch.arange(new + 1, dtype=like.dtype, device=like.device) * (old / new)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0) * (new / old)
