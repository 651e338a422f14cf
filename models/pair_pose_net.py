"""Motion from pairs of frames, with an encoder that was trained for another task.

The decoder is that of Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation" (ICCV 2019), which
SC-SfMLearner uses, too: a 1 x 1 and two 3 x 3 convolutions on the coarsest feature map, and the mean of the outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from geometry.pose import invert, pose_to_matrix
from models.encoders import Encoder
from models.pose_exp_net import POSE_SCALE, check_motion, orbit

ORDERS = ("time", "target-first")


class PairPoseNet(nn.Module):
    """Predicts the motion between the target and each source on its own, so snippets may have any length. No masks.

    Args:
        sources: number of source frames of the training's snippets. The weights do not depend on it.
        encoder: see `models.encoders.Encoder`. It sees two frames, stacked.
        order: of the two frames. "time", as in monodepth2: the earlier frame comes first, and the network predicts
            later_from_earlier, which is inverted for a source that lies before the target. "target-first", as in
            SC-SfMLearner: the network predicts source_from_target.
        rotation: meaning of the last three of the six outputs: "axis-angle", "euler" (R = Rx Ry Rz) or "quaternion".
        translation_scale, rotation_scale: the depth's unit, and radians, per unit of the last layer's output.
        orbit_depth: couples x/y translation with the rotation that keeps points at this depth fixed in the image, see
            `models.pose_exp_net`. None: no coupling.
        statistics: of the encoder's images, see `models.encoders.Encoder`.
    """

    initial_arguments = ("sources",)  # --start-from may change it
    pose_scales: Tensor

    def __init__(
        self,
        sources: int = 2,
        encoder: str = "resnet18",
        order: str = "time",
        rotation: str = "axis-angle",
        translation_scale: float = POSE_SCALE,
        rotation_scale: float = POSE_SCALE,
        orbit_depth: float | None = None,
        statistics: str = "imagenet",
    ) -> None:
        super().__init__()
        if sources < 1:
            raise ValueError(f"sources is {sources}, expected 1 or more")
        if order not in ORDERS:
            raise ValueError(f"order is {order!r:.40}, expected one of {', '.join(ORDERS)}")
        check_motion(rotation, translation_scale, rotation_scale, orbit_depth)
        self.sources, self.order, self.rotation, self.orbit_depth = sources, order, rotation, orbit_depth
        scales = torch.tensor([translation_scale] * 3 + [rotation_scale] * 3)
        self.register_buffer("pose_scales", scales, persistent=False)
        self.encoder = Encoder(encoder, frames=2, statistics=statistics)
        self.squeeze = nn.Conv2d(self.encoder.channels[-1], 256, 1)
        self.conv1 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 256, 3, padding=1)
        self.pose_pred = nn.Conv2d(256, 6, 1)

    def forward(self, target: Tensor, sources: Tensor) -> tuple[Tensor, None]:
        """The motion to each source.

        Args:
            target: [B, 3, H, W] in [-1, 1], the middle frame.
            sources: [B, N, 3, H, W], the other frames in order of time; N is any number.

        Returns:
            source_from_target [B, N, 4, 4], and None for the masks.
        """
        before = self._sources_before(sources)
        matrices = pose_to_matrix(self.pose_vectors(target, sources), self.rotation)
        return torch.cat([invert(matrices[:, :before]), matrices[:, before:]], 1), None

    def pose_vectors(self, target: Tensor, sources: Tensor) -> Tensor:
        """The networks' outputs, scaled: [B, N, 6] = (tx, ty, tz, rx, ry, rz).

        They are the motion from the first to the second frame of each pair: see the argument `order`.
        """
        if target.ndim != 4 or sources.ndim != 5:
            raise ValueError(
                f"got target {list(target.shape)} and sources {list(sources.shape)}, "
                "expected [B, 3, H, W] and [B, N, 3, H, W]"
            )
        before = self._sources_before(sources)
        targets = target[:, None].expand_as(sources)
        pairs = torch.cat(
            [
                torch.cat([sources[:, :before], targets[:, :before]], 2),
                torch.cat([targets[:, before:], sources[:, before:]], 2),
            ],
            1,
        )
        x = functional.relu(self.squeeze(self.encoder(pairs.flatten(0, 1))[-1]))
        x = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        with torch.autocast(x.device.type, enabled=False):  # motion needs more than the 8 bits of bfloat16
            outputs = self.pose_pred(x.to(self.pose_scales.dtype)).mean((2, 3))
        poses = self.pose_scales * outputs.unflatten(0, sources.shape[:2])
        return poses if self.orbit_depth is None else orbit(poses, self.orbit_depth)

    def _sources_before(self, sources: Tensor) -> int:
        """Number of the sources that are the first of their pair: those before the target in order of time."""
        return sources.shape[1] // 2 if self.order == "time" else 0
