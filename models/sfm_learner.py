"""The whole model: a depth network, a pose network and a camera as one module."""

from typing import NamedTuple

from torch import Tensor, nn

from geometry.snippets import Snippets


class Prediction(NamedTuple):
    """What the model says about a batch of snippets. Scales are lists with the finest (s = 0) first."""

    disparities: list[Tensor]  # [B, 1, h_s, w_s], 1 / depth of the target
    source_from_target: Tensor  # [B, N, 4, 4], X_source = source_from_target @ X_target, for each source
    mask_logits: list[Tensor] | None  # explainability [B, N, h_s, w_s]; None for a pose network without masks
    intrinsics: Tensor  # [B, 3, 3], K in pixels of the snippets' images: the given one, or what a camera has learned


class GivenCamera(nn.Module):
    """The camera of the data set: K as it was measured."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, snippets: Snippets) -> Tensor:
        return snippets.intrinsics


class SfMLearner(nn.Module):
    """Predicts depth of the target, motion to the sources, and the camera (paper, figure 2).

    One `to`, one `DistributedDataParallel`, one `compile` and one list of parameters serve all three.

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

    def forward(self, snippets: Snippets) -> Prediction:
        disparities = self.depth_net(snippets.target)
        source_from_target, mask_logits = self.pose_net(snippets.target, snippets.sources)
        return Prediction(disparities, source_from_target, mask_logits, self.camera(snippets))
