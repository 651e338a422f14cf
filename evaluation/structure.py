"""A judge of depth that needs no ground truth: does predicted disparity rank points as two-view geometry does?

Frames that are far enough apart show structure by classical geometry (`geometry.two_view`). A network's disparity at
the triangulated points should grow with their inverse depth, in whatever unit. Spearman's rank correlation is 1 for
depth in the right order, near 0 for depth without structure, and negative for depth upside down. docs/training.md says
what it has been measured for, and what it cannot tell.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from path import Path
from torch import Tensor, nn
from tqdm import tqdm

from datasets.augmentation import normalise
from datasets.snippets import SnippetDataset
from datasets.view_pairs import find_pair
from files.errors import InputError
from files.images import read_image
from geometry.two_view import TwoViews
from inverse_warp import sample

MOST_PAIRS = 32
MOST_FRAMES = 64  # that are tried
FEWEST_PAIRS, FEWEST_POINTS = 4, 200  # by which depth can be judged
_ENOUGH_TRIED = 16  # frames after which too few points are a property of the video, not of a short validation
_ROUNDING = 1e-6
DAMAGED = "a frame cannot be read"


def is_enough(pairs: float, points: float) -> bool:
    """Whether points in so many frames, each paired with another one, are enough to judge depth by."""
    return pairs >= FEWEST_PAIRS and points >= FEWEST_POINTS


@dataclass(frozen=True)
class StructurePoints:
    """Points of one frame with their inverse depth, triangulated with another frame of the scene."""

    frame: Path
    gap: int  # frames to the other one; negative: it comes before
    motion: float  # pixels, median of the tracks
    pixels: np.ndarray  # [n, 2]
    inverse_depth: np.ndarray  # [n], up to scale


@dataclass
class Structure:
    """The triangulated points of a data set's frames."""

    frames: list[StructurePoints] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)  # why other frames that were tried have no points

    @property
    def points(self) -> int:
        return sum(len(frame.inverse_depth) for frame in self.frames)

    @property
    def is_too_little(self) -> bool:
        """Whether many frames were tried, and too few of them have points to judge depth by."""
        tried = len(self.frames) + self.problems.total()
        return tried >= _ENOUGH_TRIED and not is_enough(len(self.frames), self.points)

    @property
    def row_score(self) -> float:
        """The score of a disparity that only grows from the top of the image to its bottom, as a road's does."""
        return _median([rank_correlation(frame.pixels[:, 1], frame.inverse_depth) for frame in self.frames])

    def __str__(self) -> str:
        """One line: what depth is judged by, or why it cannot be judged."""
        tried = len(self.frames) + self.problems.total()
        why = "; ".join(f"{count} x {problem}" for problem, count in self.problems.most_common())
        if not self.frames:
            return f"structure: depth is not judged by two-view geometry: no points in {tried} validation frames: {why}"
        gaps = sorted(abs(frame.gap) for frame in self.frames)
        apart = f"{gaps[0]}" if gaps[0] == gaps[-1] else f"{gaps[0]} to {gaps[-1]}"
        motion = _median([frame.motion for frame in self.frames])
        line = (
            f"structure: {self.points} triangulated points in {len(self.frames)} of {tried} validation frames judge "
            f"depth ({apart} frames apart, median motion {motion:.1f} pixels); the image row alone has "
            f"{self.row_score:.2f}"
        )
        return f"{line}; no points: {why}" if why else line


def find_structure(dataset: SnippetDataset, most_pairs: int = MOST_PAIRS, most_frames: int = MOST_FRAMES) -> Structure:
    """Triangulate points in a sample of a data set's target frames, the same ones each time, from images and K alone.

    Each frame is paired with the nearest one that shows enough motion, which takes some tens of milliseconds for images
    of 416 x 128 pixels.

    Args:
        most_pairs: frames with points after which it stops.
        most_frames: frames that are tried.
    """

    def find(index: int) -> tuple[Path, tuple[int, TwoViews] | None]:
        scene, first = dataset.snippet(index)
        number = first + dataset.length // 2
        return scene.frames[number], find_pair(scene.frames, number, scene.intrinsics)

    return collect_structure(len(dataset), find, most_pairs, most_frames)


def collect_structure(
    count: int,
    find: Callable[[int], tuple[Path, tuple[int, TwoViews] | None]],
    most_pairs: int = MOST_PAIRS,
    most_frames: int = MOST_FRAMES,
) -> Structure:
    """The triangulated points of a sample of frames.

    Args:
        count: of the frames.
        find: from a frame's number to its name and what `find_pair` says of it.
        most_pairs, most_frames: see `find_structure`.
    """
    structure = Structure()
    order = np.random.default_rng(0).permutation(count)[:most_frames]
    with tqdm(total=len(order), desc="tracking points", unit="frame", leave=False, delay=2, disable=None) as bar:
        for number in order:
            frame, found = find(int(number))
            if found is None:
                structure.problems[DAMAGED] += 1
            elif found[1].problem is not None:
                structure.problems[found[1].problem] += 1
            else:
                gap, views = found
                structure.frames.append(StructurePoints(frame, gap, views.motion, views.pixels, views.inverse_depth))
            bar.update()
            if len(structure.frames) >= most_pairs:
                break
    return structure


@torch.no_grad()
def score_structure(depth_net: nn.Module, structure: Structure, batch_size: int) -> dict[str, float]:
    """The rank correlation of a network's disparity with the triangulated inverse depth.

    Args:
        depth_net: in evaluation mode; images [B, 3, H, W] in [-1, 1] to a list of disparities, the first of full size.

    Returns:
        `structure`, the median over frames, and the numbers `structure_pairs` and `structure_points`. Nothing where no
        frame has points.
    """
    device = next(depth_net.parameters()).device
    scores, points = [], 0
    for start in range(0, len(structure.frames), batch_size):
        frames, images = [], []
        for frame in structure.frames[start : start + batch_size]:
            try:
                images.append(torch.from_numpy(read_image(frame.frame)).permute(2, 0, 1))
            except (InputError, OSError):  # it was whole when the points were made
                continue
            frames.append(frame)
        if not frames:
            continue
        disparity = depth_net(normalise(torch.stack(images).to(device)))[0]
        for frame, predicted in zip(frames, disparity, strict=True):
            scores.append(rank_correlation(sample_at(predicted, frame.pixels), frame.inverse_depth))
            points += len(frame.inverse_depth)
    if not scores:
        return {}
    return {
        "structure": _median(scores),
        "structure_pairs": float(len(scores)),
        "structure_points": float(points),
    }


def sample_at(values: Tensor, pixels: np.ndarray) -> np.ndarray:
    """Bilinear samples [n] of a map [1, H, W] at pixels [n, 2]."""
    x, y = torch.from_numpy(pixels).to(values).T
    return sample(values[None], x[None, None], y[None, None], "border")[0, 0, 0].cpu().numpy()


def rank_correlation(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays [n]; 0 where one of them is constant or not finite."""
    if _is_constant(predicted) or _is_constant(truth):
        return 0.0
    from scipy.stats import spearmanr  # here: its import takes half a second, and most commands need none of it

    return float(spearmanr(predicted, truth).statistic)


def _is_constant(values: np.ndarray) -> bool:
    """Whether values are equal but for the rounding of float32, which would have ranks of its own; or not finite."""
    return not np.isfinite(values).all() or bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan
