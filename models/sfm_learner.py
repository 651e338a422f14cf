"""The whole model: a depth network, a pose network and a camera as one module."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from geometry.pose import invert
from geometry.snippets import Snippets


class Prediction(NamedTuple):
    """What the model says about a batch of snippets. Scales are lists with the finest (s = 0) first."""

    disparities: list[Tensor]  # [B, 1, h_s, w_s], 1 / depth of the target
    source_from_target: Tensor  # [B, N, 4, 4], X_source = source_from_target @ X_target, for each source
    mask_logits: list[Tensor] | None  # explainability [B, N, h_s, w_s]; None for a pose network without masks
    intrinsics: Tensor  # [B, 3, 3], K in pixels of the snippets' images: the given one, or what a camera has learned
    # Of a model with `predicts_source_depth`, else None.
    source_disparities: list[Tensor] | None = None  # [B, N, 1, h_s, w_s]
    target_from_source: Tensor | None = None  # [B, N, 4, 4]
    # Of another network, where a training has a prior:
    prior_disparity: Tensor | None = None  # [B, 1, H, W], of the target


class GivenCamera(nn.Module):
    """The camera of the data set: K as it was measured."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, snippets: Snippets) -> Tensor:
        return snippets.intrinsics


class SfMLearner(nn.Module):
    """Predicts depth of the target, motion to the sources, and the camera (paper, figure 2).

    One `to`, one `DistributedDataParallel`, one `compile` and one list of parameters serve all three.

    The attribute `predicts_source_depth` decides whether the depth of the sources is predicted, too, for objectives
    that compare it with the target's. The attribute `scales` is the largest number of scales of disparities and masks
    that the prediction holds, for objectives that use fewer than the networks predict.

    Args:
        depth_net: images [B, 3, H, W] in [-1, 1] -> disparities, as in `Prediction`.
        pose_net: target [B, 3, H, W] and sources [B, N, 3, H, W] in [-1, 1] -> (source_from_target, mask_logits), as
            in `Prediction`.
        camera: snippets -> K [B, 3, 3]; without one, the snippets' own K.
    """

    def __init__(self, depth_net: nn.Module, pose_net: nn.Module, camera: nn.Module | None = None) -> None:
        super().__init__()
        self.depth_net = depth_net
        self.pose_net = pose_net
        self.camera = GivenCamera() if camera is None else camera
        self.predicts_source_depth = False
        self.scales: int | None = None

    def forward(self, snippets: Snippets) -> Prediction:
        source_from_target, mask_logits = self.pose_net(snippets.target, snippets.sources)
        mask_logits = None if mask_logits is None else mask_logits[: self.scales]
        prediction = Prediction([], source_from_target, mask_logits, self.camera(snippets))
        if not self.predicts_source_depth:
            return prediction._replace(disparities=self.depth_net(snippets.target)[: self.scales])
        batch, n_sources = snippets.sources.shape[:2]
        disparities = self.depth_net(torch.cat([snippets.target, snippets.sources.flatten(0, 1)]))[: self.scales]
        return prediction._replace(
            disparities=[scale[:batch] for scale in disparities],
            source_disparities=[scale[batch:].unflatten(0, (batch, n_sources)) for scale in disparities],
            target_from_source=invert(source_from_target),
        )
