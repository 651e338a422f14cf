"""How far the predicted depth of each pixel can be trusted: by its agreement with other predictions of the same point.

Two predictions stand beside that of the image itself: that of its mirror image, and those of the neighbouring frames,
seen along the predicted trajectory (the depth consistency of Bian et al., "Unsupervised scale-consistent depth and
ego-motion learning from monocular video", NeurIPS 2019, eq. 6).
"""

import numpy as np
import torch
from torch import Tensor

from geometry.camera import unproject
from inference.clip import PredictedClip
from inverse_warp import inverse_warp

HALF_SURE = 0.1  # relative disagreement at which the confidence is 1 / 2


def confidence(
    clip: PredictedClip, index: int, world_from_camera: np.ndarray | None, intrinsics: np.ndarray
) -> np.ndarray:
    """Confidence of a frame's depth: float32 [h, w], 1 = all predictions agree, towards 0 as they differ.

    It is 1 / (1 + disagreement / HALF_SURE). The disagreement is the mean of the mirror image's and the neighbours'
    relative differences; a neighbour counts where it shows the point.

    Args:
        clip: with `mirror_difference`.
        world_from_camera: [F, 3, 4] in the networks' unit; without it the mirror image decides alone.
        intrinsics: K at the size of the disparities.
    """
    if clip.mirror_difference is None:
        raise ValueError("clip: has no mirror_difference; predict it with mirror=True")
    disagreement = clip.mirror_difference[index]
    if world_from_camera is not None and len(clip.disparity) > 1:
        difference, seen = neighbour_difference(clip, index, world_from_camera, intrinsics)
        disagreement = np.where(seen, 0.5 * (disagreement + difference), disagreement)
    return (1 / (1 + disagreement / HALF_SURE)).astype(np.float32)


def neighbour_difference(
    clip: PredictedClip, index: int, world_from_camera: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Relative difference between a frame's depth and its neighbours', float32 [h, w], and where one shows the point.

    It is |z - z_n| / mean of both, z the depth of the frame's point in the neighbour's camera, z_n what the
    neighbour's own depth says there; of two neighbours the mean.
    """
    others = [other for other in (index - 1, index + 1) if 0 <= other < len(clip.disparity)]
    disparity = torch.from_numpy(clip.disparity[index].copy())[None, None]
    sources = torch.from_numpy(np.stack([clip.disparity[other] for other in others]))[None, :, None]
    to_homogeneous = [np.vstack([world_from_camera[k], [0, 0, 0, 1]]) for k in (*others, index)]
    source_from_target = np.linalg.inv(to_homogeneous[:-1]) @ to_homogeneous[-1]
    motion = torch.from_numpy(source_from_target).float()[None]
    camera = torch.from_numpy(intrinsics).float()[None]
    theirs, valid = inverse_warp(sources, 1 / disparity, motion, camera, "border")
    points = unproject(1 / disparity, camera).flatten(2)  # [1, 3, h * w]
    z = (motion[0, :, 2, :3] @ points[0] + motion[0, :, 2, 3:]).view(valid.shape[1:])
    return _mean_difference(z, theirs[0, :, 0], valid[0] & (z > 0))


def _mean_difference(z: Tensor, disparity: Tensor, seen: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of depths z [N, h, w] and disparities of the same points: |z - 1 / d| over the mean of both, where seen."""
    product = z * disparity  # z / z_n
    difference = torch.where(seen, 2 * (product - 1).abs() / (product + 1), 0)
    count = seen.sum(0)
    return (difference.sum(0) / count.clamp(min=1)).numpy(), (count > 0).numpy()
