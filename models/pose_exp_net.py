"""PoseExpNet: camera motion and explainability of a snippet (paper, section 3.5 and figure 4b)."""

from typing import Any

import torch
from torch import Tensor, nn

from geometry.pose import ROTATIONS, pose_to_matrix
from models.layers import channels, conv, crop_like, initialise, upconv

MOTION_ARGUMENTS = ("translation_scale", "rotation_scale", "orbit_depth")  # see `rescale_motion`
POSE_SCALE = 0.01  # keeps the first warps near the identity, where the photometric error has a gradient to follow


class PoseExpNet(nn.Module):
    """Predicts poses after seven halvings, and explainability masks by five doublings from the fifth halving on.

    The parameters' names and shapes are those of the well-known PyTorch port's PoseExpNet.

    Args:
        sources: number of source frames of a snippet (2 for snippets of 3 frames, 4 for 5).
        explainability: whether the network has a decoder for the masks.
        translation_scale: the depth's unit per unit of the last layer's output.
        rotation_scale: radians per unit of the last layer's output. While depth is flat, a rotation and a sideways
            translation move the image alike, and training follows the one that moves it more per output. At the
            depth of 0.2 where DispNet begins, equal scales favour the translation fivefold. A larger scale for
            rotations lets training find the turns.
        orbit_depth: couples x/y translation with the rotation that keeps points at this depth, in the depth's unit,
            fixed in the image. The outputs then are a motion of the whole image (rotation) and parallax
            (translation), which training does not have to tell apart. The coupling is in radians; as the vector of a
            quaternion, which is half as large, it keeps points at half the depth fixed. None, as in the paper: no
            coupling.
        width: share of the paper's channels that each layer has, a multiple of 1/16 up to 2.
        rotation: meaning of the last three of the six outputs: "euler" (R = Rx Ry Rz), "quaternion" or "axis-angle".
    """

    def __init__(
        self,
        sources: int = 2,
        explainability: bool = True,
        translation_scale: float = POSE_SCALE,
        rotation_scale: float = POSE_SCALE,
        orbit_depth: float | None = None,
        width: float = 1.0,
        rotation: str = "euler",
    ) -> None:
        super().__init__()
        if sources < 1:
            raise ValueError(f"sources is {sources}, expected 1 or more")
        check_motion(rotation, translation_scale, rotation_scale, orbit_depth)
        self.sources = sources
        self.explainability = explainability
        self.orbit_depth = orbit_depth
        self.rotation = rotation
        # Not among the weights, whose names and shapes are shared with the port.
        scales = torch.tensor([translation_scale] * 3 + [rotation_scale] * 3)
        self.register_buffer("pose_scales", scales, persistent=False)
        c16, c32, c64, c128, c256 = channels(width, 16, 32, 64, 128, 256)
        self.conv1 = nn.Sequential(*conv(3 * (1 + sources), c16, 7, stride=2))
        self.conv2 = nn.Sequential(*conv(c16, c32, 5, stride=2))
        self.conv3 = nn.Sequential(*conv(c32, c64, 3, stride=2))
        self.conv4 = nn.Sequential(*conv(c64, c128, 3, stride=2))
        self.conv5 = nn.Sequential(*conv(c128, c256, 3, stride=2))
        self.conv6 = nn.Sequential(*conv(c256, c256, 3, stride=2))
        self.conv7 = nn.Sequential(*conv(c256, c256, 3, stride=2))
        self.pose_pred = nn.Conv2d(c256, 6 * sources, 1)
        if explainability:
            self.upconv5 = upconv(c256, c256, 4)
            self.upconv4 = upconv(c256, c128, 4)
            self.upconv3 = upconv(c128, c64, 4)
            self.upconv2 = upconv(c64, c32, 4)
            self.upconv1 = upconv(c32, c16, 4)
            self.predict_mask4 = nn.Conv2d(c128, sources, 3, padding=1)
            self.predict_mask3 = nn.Conv2d(c64, sources, 3, padding=1)
            self.predict_mask2 = nn.Conv2d(c32, sources, 3, padding=1)
            self.predict_mask1 = nn.Conv2d(c16, sources, 3, padding=1)
        initialise(self)
        with torch.no_grad():  # half of the first features begin as differences between the frames, which show motion
            weight = self.conv1[0].weight[: max(1, c16 // 2)]  # type: ignore[index]
            weight[:, :3] = -weight[:, 3:].unflatten(1, (sources, 3)).sum(1)

    def forward(self, target: Tensor, sources: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """The motion to each source, and how well a rigid scene explains each target pixel in it.

        Args:
            target: [B, 3, H, W] in [-1, 1], the middle frame.
            sources: [B, N, 3, H, W], the other frames in order of time.

        Returns:
            source_from_target [B, N, 4, 4], and four masks of logits [B, N, ceil(H / 2^s), ceil(W / 2^s)], the finest
            (s = 0) first; None without explainability.
        """
        poses, logits = self.pose_vectors(target, sources)
        return pose_to_matrix(poses, self.rotation), logits

    def pose_vectors(self, target: Tensor, sources: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """As `forward`, with the poses as [B, N, 6] = (tx, ty, tz, rx, ry, rz), target to source."""
        if target.ndim != 4 or sources.ndim != 5 or sources.shape[1] != self.sources:
            raise ValueError(
                f"got target {list(target.shape)} and sources {list(sources.shape)}, "
                f"expected [B, 3, H, W] and [B, {self.sources}, 3, H, W]"
            )
        frames = torch.cat([target, sources.flatten(1, 2)], 1)
        conv1 = self.conv1(frames)
        conv2 = self.conv2(conv1)
        conv3 = self.conv3(conv2)
        conv4 = self.conv4(conv3)
        conv5 = self.conv5(conv4)
        conv7 = self.conv7(self.conv6(conv5))
        with torch.autocast(conv7.device.type, enabled=False):  # motion needs more than the 8 bits of bfloat16
            poses = self.pose_pred(conv7.to(self.pose_scales.dtype)).mean((2, 3))
        poses = self.pose_scales * poses.view(-1, self.sources, 6)
        if self.orbit_depth is not None:
            poses = orbit(poses, self.orbit_depth)
        if not self.explainability:
            return poses, None

        upconv5 = crop_like(self.upconv5(conv5), conv4)
        upconv4 = crop_like(self.upconv4(upconv5), conv3)
        upconv3 = crop_like(self.upconv3(upconv4), conv2)
        upconv2 = crop_like(self.upconv2(upconv3), conv1)
        upconv1 = crop_like(self.upconv1(upconv2), frames)
        logits = [
            self.predict_mask1(upconv1),
            self.predict_mask2(upconv2),
            self.predict_mask3(upconv3),
            self.predict_mask4(upconv4),
        ]
        return poses, [scale.to(poses.dtype) for scale in logits]


def check_motion(rotation: str, translation_scale: float, rotation_scale: float, orbit_depth: float | None) -> None:
    """ValueError unless a pose network can have these arguments."""
    if rotation not in ROTATIONS:
        raise ValueError(f"rotation is {rotation!r:.40}, expected one of {', '.join(ROTATIONS)}")
    for name, value in (("translation_scale", translation_scale), ("rotation_scale", rotation_scale)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}, expected a number greater than 0")
    if orbit_depth is not None and not 0 < orbit_depth < float("inf"):
        raise ValueError(f"orbit_depth is {orbit_depth}, expected a number greater than 0")


def orbit(poses: Tensor, depth: float) -> Tensor:
    """Add to poses [..., 6] the rotation that keeps points at this depth fixed while the camera moves sideways."""
    # Near the axis a point moves by tx / z + ry to the right and by ty / z - rx down, in units of the focal length.
    tx, ty, tz, rx, ry, rz = poses.unbind(-1)
    return torch.stack([tx, ty, tz, rx + ty / depth, ry - tx / depth, rz], -1)


def can_rescale_motion(network: nn.Module) -> bool:
    """Whether a pose network has what `rescale_motion` changes; a network of another kind need not have it."""
    return all(hasattr(network, name) for name in ("pose_pred", "pose_scales", "orbit_depth"))


@torch.no_grad()
def rescale_motion(network: Any, scales: Tensor, orbit_depth: float | None) -> None:
    """Give a pose network other scales of its outputs and another orbit depth, and the same motion as before.

    The last layer is linear, and so is the orbit: its weights make up for the change.

    Args:
        network: with `pose_pred`, `pose_scales` and `orbit_depth`; it is changed.
        scales: [6], of translation and rotation, see `PoseExpNet`.
    """
    before, after = (0.0 if depth is None else 1 / depth for depth in (network.orbit_depth, orbit_depth))
    for parameter in (network.pose_pred.weight, network.pose_pred.bias):
        outputs = network.pose_scales.double()[:, None] * parameter.double().view(-1, 6, parameter[0].numel())
        outputs[:, 3] += (before - after) * outputs[:, 1]
        outputs[:, 4] -= (before - after) * outputs[:, 0]
        parameter.copy_((outputs / scales.double()[:, None]).view_as(parameter))
    network.pose_scales.copy_(scales)
    network.orbit_depth = orbit_depth
