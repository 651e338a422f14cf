"""Is the given focal length that of the images? A check of prepared scenes by bundle adjustment of short clips.

A turn by the angle r moves a pixel at x from the centre by r (f + x^2 / f): the images tell the focal length f where
the camera turns. So the clips are taken in which the view turns most, a few frames each, of all scenes. With K's focal
lengths scaled by each of several factors, motion and structure are fitted to the clips' tracks (`geometry.bundle`). The
factor is the one at which the residuals of all clips together are least. A single clip is a poor judge; the factor is
as certain as it stays when the clips are drawn anew (the bootstrap: Efron 1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.layout import Scene
from datasets.preparation.scene_check import spread
from datasets.preparation.turns import follow, grey_picture
from files.errors import InputError
from files.images import read_image
from geometry.bundle import ClipMotion, adjust_clips, first_motion
from geometry.two_view import follow_through

MOST_CLIPS = 32
MOST_PLACES = 400  # that are looked at for turns
FEWEST_CLIPS = 6
WORST_FIT = 1.0  # mean loss of a clip's tracks: 0.3 to 0.9 where one rigid scene explains them
LEAST_RIGID = 2 / 3  # share of the clips that must fit so: elsewhere moving things are part of the scene that fits
LEAST_TURN = 0.04  # of the image's width: how far the view moves sideways in a clip
LARGEST_DEVIATION = 0.08  # of the factor, from one draw of clips to another: beyond it the clips tell nothing
TOLERANCE = 0.15  # of the factor: a smaller difference may be the method's own error
_ASIDE = 4  # frames of a clip before its middle, and as many after it
_LEAST_STEP = 0.01  # of the width: the motion from one frame of a clip to the next
_LARGEST_STEP = 16  # frames
_LOOK_AHEAD = 2  # frames between the two pictures that show how much the view turns at a place
_LOOK_WIDTH = 256  # pixels of these pictures
_MOST_TRACKS = 150
_FEWEST_TRACKS = 30
_GRID = np.exp(0.12 * np.arange(-6, 7))  # factors of the focal length: 0.49 to 2.05
_FIRST_ITERATIONS, _ITERATIONS = 30, 7
_STARTS = (1.0, 0.6, 1.6)  # factors of the given focal length with which a first motion is tried
_DRAWS = 200
_CERTAINTY = 2.0  # standard deviations beyond the tolerance that make a mistake


class _Clip(NamedTuple):
    """Frames around a place of a scene in which the view turns."""

    scene: Scene
    middle: int
    step: int  # frames from one frame of the clip to the next
    turn: float  # sideways motion of the view over the clip, in widths


@dataclass(frozen=True)
class FocalCheck:
    """What a data set's images say of the focal length that it gives."""

    clips: int = 0
    given: float = math.nan  # pixels, fx, median over the clips
    factor: float | None = None  # the focal length that the images show, over the given one
    deviation: float = math.nan  # standard deviation of the factor's logarithm
    problem: str | None = None  # why nothing can be said

    @property
    def was_made(self) -> bool:
        return self.factor is not None or self.problem is not None

    @property
    def is_wrong(self) -> bool:
        """Whether the given focal length is certainly not that of the images."""
        if self.factor is None:
            return False
        return abs(math.log(self.factor)) > math.log(1 + TOLERANCE) + _CERTAINTY * self.deviation

    def __str__(self) -> str:
        if self.factor is None:
            return f"focal length: cannot be checked by the motion in the images: {self.problem}"
        return f"focal length: {self.finding}"

    @property
    def finding(self) -> str:
        """Both focal lengths; the one that the images show has its standard deviation."""
        if self.factor is None:
            return ""
        shown = f"{self.factor * self.given:.1f} (+- {100 * self.deviation:.0f} %)"
        if not self.is_within_range:
            shown = f"{'less' if self.factor < 1 else 'more'} than {self.factor * self.given:.1f}"
        return f"fx in cam.txt is {self.given:.1f} pixels, the motion in {self.clips} clips that turn shows {shown}"

    @property
    def is_within_range(self) -> bool:
        """Whether the focal length that the images show lies between the factors that are tried, so that it is one."""
        return self.factor is not None and bool(_GRID[0] < self.factor < _GRID[-1])

    def plain(self) -> dict[str, Any]:
        """The check as JSON."""
        return {
            "clips": self.clips,
            "given": None if math.isnan(self.given) else self.given,
            "factor": self.factor,
            "deviation": None if math.isnan(self.deviation) else self.deviation,
            "problem": self.problem,
        }


def check_focal(scenes: Sequence[Scene], most_clips: int = MOST_CLIPS, most_places: int = MOST_PLACES) -> FocalCheck:
    """Compare the scenes' focal lengths with what their images show; one factor for all scenes.

    Args:
        most_clips: that are looked at closely, about 0.3 s each.
        most_places: that are looked at for turns, about 5 ms each.
    """
    places = find_turns(scenes, most_places)
    if not places:
        return FocalCheck(problem=f"no {2 * _ASIDE + 1} frames of a scene in which the view turns")
    tracks, intrinsics, motions = _track_clips(places, most_clips)
    if len(motions) < FEWEST_CLIPS:
        problem = f"{len(motions)} clips that turn have enough corners to follow, expected {FEWEST_CLIPS}"
        return FocalCheck(problem=problem)
    costs = _profile(tracks, intrinsics, motions)
    seen = [np.isfinite(one[..., 0]).sum() - one.shape[1] for one in tracks]  # without the reference
    rigid = costs.min(0) / seen <= WORST_FIT
    if rigid.sum() < max(FEWEST_CLIPS, LEAST_RIGID * len(rigid)):
        problem = (
            f"{rigid.sum()} of {len(rigid)} clips that turn show one rigid scene; moving things may fill the others"
        )
        return FocalCheck(problem=problem)
    given = float(np.median([matrix[0, 0] for matrix in intrinsics]))
    return judge_profile(costs[:, rigid], given)


def find_turns(scenes: Sequence[Scene], most: int) -> list[_Clip]:
    """Clips around at most `most` places of the scenes, evenly spread, those that turn most first."""
    runs = [run for scene in scenes for run in scene.runs()]
    places = [(run, number) for run in runs for number in range(_ASIDE, len(run.frames) - _ASIDE)]
    clips = []
    for place in tqdm(
        spread(len(places), most), desc="looking for turns", unit="place", leave=False, delay=2, disable=None
    ):
        run, middle = places[place]
        try:
            pictures = [grey_picture(read_image(run.frames[middle + k]), _LOOK_WIDTH) for k in (0, _LOOK_AHEAD)]
        except (InputError, OSError):
            continue
        found, sideways, length = follow(*pictures)
        if not found or length == 0:
            continue
        step = min(_LARGEST_STEP, math.ceil(_LEAST_STEP * _LOOK_AHEAD / length))
        turn = abs(sideways) / _LOOK_AHEAD * step * 2 * _ASIDE
        if turn >= LEAST_TURN and _ASIDE * step <= middle < len(run.frames) - _ASIDE * step:
            clips.append(_Clip(run, middle, step, turn))
    return sorted(clips, key=lambda clip: -clip.turn)


def _track_clips(clips: Sequence[_Clip], most: int) -> tuple[list[np.ndarray], list[np.ndarray], list[ClipMotion]]:
    """Tracks [k, n, 2], K and first motion of at most `most` clips, which overlap by half at most."""
    taken: list[_Clip] = []
    tracks, intrinsics, motions = [], [], []
    with tqdm(total=most, desc="checking the focal length", unit="clip", leave=False, delay=2, disable=None) as bar:
        for clip in clips:
            if any(_overlaps(clip, other) for other in taken):
                continue
            try:
                images = [read_image(file) for file in _files(clip)]
            except (InputError, OSError):
                continue
            if len({image.shape for image in images}) > 1:
                continue
            points = follow_through(images, _ASIDE, _MOST_TRACKS)
            points = points[:, np.isfinite(points[..., 0]).sum(0) > _ASIDE]
            motion = _first_motion(points, clip.scene.intrinsics) if points.shape[1] >= _FEWEST_TRACKS else None
            if motion is None:
                continue
            taken.append(clip)
            tracks.append(points)
            intrinsics.append(clip.scene.intrinsics)
            motions.append(motion)
            bar.update()
            if len(taken) == most:
                break
    return tracks, intrinsics, motions


def _files(clip: _Clip) -> list[Any]:
    return [clip.scene.frames[clip.middle + k * clip.step] for k in range(-_ASIDE, _ASIDE + 1)]


def _overlaps(clip: _Clip, other: _Clip) -> bool:
    near = _ASIDE * max(clip.step, other.step)
    return clip.scene.frames is other.scene.frames and abs(clip.middle - other.middle) < near


def _first_motion(tracks: np.ndarray, intrinsics: np.ndarray) -> ClipMotion | None:
    for factor in _STARTS:
        motion = first_motion(tracks, scaled(intrinsics, factor), _ASIDE)
        if motion is not None:
            return motion
    return None


def scaled(intrinsics: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """K [..., 3, 3] with its focal lengths times a factor."""
    return intrinsics * np.array([[factor, factor, 1], [1, factor, 1], [1, 1, 1]])


def _profile(
    tracks: Sequence[np.ndarray], intrinsics: Sequence[np.ndarray], motions: Sequence[ClipMotion]
) -> np.ndarray:
    """The least cost of each clip with its focal length times each factor of the grid, [factors, clips]."""
    most = max(one.shape[1] for one in tracks)
    padded = np.full((len(tracks), tracks[0].shape[0], most, 2), np.nan)
    inverse_depth = np.ones((len(tracks), most))
    for number, (one, motion) in enumerate(zip(tracks, motions, strict=True)):
        padded[number, :, : one.shape[1]] = one
        inverse_depth[number, : one.shape[1]] = motion.inverse_depth
    rotation, translation = (np.stack([motion[k] for motion in motions]) for k in range(2))
    start = ClipMotion(rotation, translation, inverse_depth, np.full(len(tracks), np.inf))
    matrices = np.stack(intrinsics)
    middle, last = len(_GRID) // 2, len(_GRID) - 1
    start = adjust_clips(padded, matrices, start, _ASIDE, _FIRST_ITERATIONS)
    costs = np.full((len(_GRID), len(tracks)), np.inf)
    # From the given focal length to the shortest and back, and to the longest and back: a clip that is held in a local
    # minimum on one way is not on the other.
    for end in (0, last):
        motion, outward = start, 1 if end else -1
        for number in (*range(middle, end, outward), *range(end, middle - outward, -outward)):
            motion = adjust_clips(padded, scaled(matrices, _GRID[number]), motion, _ASIDE, _ITERATIONS)
            costs[number] = np.minimum(costs[number], motion.cost)
    return costs


def judge_profile(costs: np.ndarray, given: float) -> FocalCheck:
    """What costs [factors, clips] say.

    Args:
        given: the given focal length in pixels.
    """
    clips = costs.shape[1]
    factor = _least(costs.sum(1))
    random = np.random.default_rng(0)
    drawn = [_least(costs[:, random.integers(0, clips, clips)].sum(1)) for _ in range(_DRAWS)]
    deviation = float(np.log(drawn).std())
    if deviation > LARGEST_DEVIATION:
        problem = f"{clips} clips that turn leave it open to {100 * deviation:.0f} %"
        return FocalCheck(clips, given, None, deviation, problem)
    return FocalCheck(clips, given, factor, deviation)


def _least(costs: np.ndarray) -> float:
    """The factor of the least cost, between the grid's by a parabola."""
    best = int(np.argmin(costs))
    if best in (0, len(costs) - 1):
        return float(_GRID[best])
    before, least, after = costs[best - 1 : best + 2]
    offset = 0.5 * (before - after) / (before - 2 * least + after)
    return float(_GRID[best] * (_GRID[1] / _GRID[0]) ** offset)
