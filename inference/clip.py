"""The first reading of a clip: depth of all frames, onto the disk, and the camera's motion in all snippets."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from datasets.augmentation import normalise
from evaluation.metrics.trajectory import chain_snippets
from files.disk_array import DiskArray
from files.errors import InputError
from files.images import resize_area
from inference.depth import blend_flipped
from inference.frames import Clip, Frame
from inference.motion import predict_snippets

_BINS = 2000  # of the histogram of log disparity, which spans 1e-6 to 1e6
_LOG_RANGE = (math.log(1e-6), math.log(1e6))
_LONGEST_VIEW = 640  # pixels


@dataclass
class PredictedClip:
    """What the networks say about a clip, in the networks' unit and at their size, and the clip's frames in grey."""

    names: list[str]
    times: list[float]
    disparity: DiskArray  # float32 [h, w] of each frame
    mirror_difference: DiskArray | None  # float32 [h, w]: |d - m| / mean of both, m from the mirror image
    snippets: np.ndarray | None  # first_from_frame float64 [N, n, 3, 4]; None: no pose network, or too few frames
    histogram: np.ndarray  # of log disparity over all pixels
    seconds: float  # that reading and predicting took
    notes: list[str] = field(default_factory=list)
    grey: DiskArray | None = None  # uint8 [h, w], each frame of a film; None for single images
    views: DiskArray | None = None  # the same at `view_size`, uint8 [H, W], for two-view geometry

    def disparity_quantile(self, share: float) -> float:
        """The disparity below which this share of all pixels of the clip lies, to half a percent."""
        sums = np.cumsum(self.histogram)
        place = int(np.searchsorted(sums, share * sums[-1], side="right"))
        low, high = _LOG_RANGE
        return math.exp(low + (high - low) * (min(place, _BINS - 1) + 0.5) / _BINS)

    def world_from_camera(self) -> np.ndarray | None:
        """The trajectory, first_from_frame float64 [F, 3, 4] in the networks' unit; None without poses."""
        return None if self.snippets is None else chain_snippets(self.snippets)


def resized(frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """A frame at the networks' size, as `inference.depth.read_resized` has it: uint8 [3, h, w]."""
    return np.ascontiguousarray(resize_area(frame.image, *size).transpose(2, 0, 1))


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which frames are kept for two-view geometry: their own, at most 640 pixels along a side.

    Corners are found better there than at the networks' size, which may also be of another aspect.
    """
    factor = min(1.0, _LONGEST_VIEW / max(size))
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))


def store_frames(clip: Clip, size: tuple[int, int], scratch: Path) -> DiskArray:
    """All frames of a clip at the networks' size, uint8 [3, h, w] each, on the disk."""
    frames = DiskArray(scratch, (3, *size), np.uint8)
    for frame in tqdm(clip.read([]), total=clip.count, desc=f"{clip.name}: reading", unit="image"):
        frames.append(resized(frame, size))
    return frames


def predict_clip(
    clip: Clip,
    depth_net: torch.nn.Module,
    pose_net: Any,
    size: tuple[int, int],
    scratch: Path,
    batch_size: int,
    device: torch.device,
    mirror: bool,
    flip_average: bool,
) -> PredictedClip:
    """Predict depth of all frames, and the motion in all snippets of neighbouring frames.

    Args:
        depth_net, pose_net: in eval mode, on `device`; without a pose network there is no motion.
        size: (height, width) of the networks' input.
        scratch: folder of the unnamed files that hold the depth.
        mirror: predict the mirror images, too, for the confidence.
        flip_average: take `blend_flipped` of both as the depth.

    Raises:
        InputError: no frame can be read, or what the network predicts is no depth.
    """
    result = PredictedClip(
        [], [], DiskArray(scratch, size, np.float32), DiskArray(scratch, size, np.float32) if mirror else None, None,
        np.zeros(_BINS, np.int64), 0.0, grey=DiskArray(scratch, size, np.uint8) if clip.ordered else None,
        views=DiskArray(scratch, view_size(clip.size), np.uint8) if clip.ordered else None,
    )  # fmt: skip
    start, snippets = time.perf_counter(), []
    window: list[np.ndarray] = []
    frames = clip.read(result.notes)
    with tqdm(total=clip.count, desc=f"{clip.name}: predicting on {device}", unit="image") as progress:
        while batch := _next_batch(frames, batch_size, size, view_size(clip.size), result):
            images = torch.from_numpy(np.stack(batch)).to(device)
            _predict_depth(depth_net, images, result, flip_average)
            if result.grey is not None:
                for one in batch:
                    result.grey.append(cv2.cvtColor(one.transpose(1, 2, 0), cv2.COLOR_RGB2GRAY))
            if pose_net is not None and clip.ordered:
                window += batch
                if len(window) > pose_net.sources:
                    stacked = torch.from_numpy(np.stack(window)).to(device)
                    snippets.append(predict_snippets(pose_net, stacked).numpy())
                    window = window[len(window) - pose_net.sources :]
            progress.update(len(batch))
    if not result.names:
        raise InputError(f"{clip.source}: no frame can be read{f'; {result.notes[0]}' if result.notes else ''}")
    if snippets:
        result.snippets = np.concatenate(snippets)
    result.seconds = time.perf_counter() - start
    return result


def _next_batch(
    frames: Iterator[Frame], most: int, size: tuple[int, int], of_views: tuple[int, int], result: PredictedClip
) -> list[np.ndarray]:
    batch = []
    for frame in islice(frames, most):  # only the small image of each is kept
        result.names.append(frame.name)
        result.times.append(frame.time)
        batch.append(resized(frame, size))
        if result.views is not None:
            result.views.append(resize_area(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), *of_views))
    return batch


@torch.inference_mode()
def _predict_depth(
    depth_net: Callable[[Tensor], list[Tensor]], images: Tensor, result: PredictedClip, flip_average: bool
) -> None:
    """Append the depth of a batch, uint8 [B, 3, h, w], to the result."""
    frames = normalise(images)
    disparity = depth_net(frames)[0]
    if flip_average or result.mirror_difference is not None:
        mirrored = depth_net(frames.flip(-1))[0].flip(-1)
        if result.mirror_difference is not None:
            difference = (disparity - mirrored).abs() / (0.5 * (disparity + mirrored))
            for one in difference.squeeze(1).float().cpu().numpy():
                result.mirror_difference.append(one)
        if flip_average:
            disparity = blend_flipped(disparity, mirrored)
    stored = disparity.squeeze(1).float().cpu().numpy()
    good = np.isfinite(stored).all((1, 2)) & (stored > 0).all((1, 2))
    if not good.all():
        name = result.names[len(result.disparity) + int(np.argmin(good))]
        raise InputError(f"frame {name}: the network's disparities are not finite or not above 0: no depth")
    for one in stored:
        result.disparity.append(one)
    result.histogram += np.histogram(np.log(stored), _BINS, _LOG_RANGE)[0]
