"""Where the camera of a video turns, by the images alone: the sections that tell the focal length best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np

from datasets.formats.video import Reading
from datasets.preparation.video_inputs import Input
from files.errors import InputError
from files.parallel import in_parallel

FRAMES_PER_SECOND = 10.0  # that are looked at
SECTION_IMAGES = 30  # of a section, about
FEWEST_IMAGES = 20
LEAST_TURN = 0.25  # of the picture's width: how far the view moves sideways in a section that is worth a trial
_STEP = 0.04  # of the width: the motion from one image of a section to the next
_WIDTH = 256  # pixels: pictures are reduced to this width before points are followed
_POINTS = 150
_FEWEST_POINTS = 20  # fewer that are followed: the frame is no neighbour of the one before
_FRAMES_AHEAD = 8


class FrameMotion(NamedTuple):
    """The motion of the picture from the frame before."""

    number: int
    follows: bool  # False: the first frame, a cut, damage, a gap in time
    sideways: float  # median horizontal motion of points, in widths of the picture
    length: float  # median length of the motion of points, in widths


@dataclass(frozen=True)
class Section:
    """Frames of an input, at equal steps of motion."""

    source: int  # which of the inputs
    frames: tuple[int, ...]  # numbers, ascending
    turn: float  # largest sideways motion of the view between two of the frames, in widths


def measure_motion(
    source: Input, most: int, threads: int, count: Callable[[int], None] = lambda frames: None
) -> list[FrameMotion]:
    """The motion of each of the first `most` frames of an input, at `FRAMES_PER_SECOND`.

    Corners are followed by Lucas and Kanade's method on small pictures. The median of their horizontal motion is about
    the camera's turn: the expansion of a forward motion has both signs.

    Args:
        threads: of the decoder, and for the conversion.
        count: called with 1 for each frame.
    """
    motions: list[FrameMotion] = []
    before: np.ndarray | None = None
    frames = source.frames(FRAMES_PER_SECOND, Reading(), threads)
    for number, after_gap, small in in_parallel(_reduced, frames, threads, _FRAMES_AHEAD):
        follows, sideways, length = False, 0.0, 0.0
        if before is not None and small is not None and not after_gap:
            follows, sideways, length = follow(before, small)
        motions.append(FrameMotion(number, follows, sideways, length))
        before = small
        count(1)
        if len(motions) == most:
            break
    return motions


def _reduced(frame: Any) -> tuple[int, bool, np.ndarray | None]:
    """(number, whether it is after a gap, small grey picture; None: damaged) of a frame."""
    try:
        grey = grey_picture(frame.image(), _WIDTH)
    except (InputError, OSError):
        return frame.number, frame.after_gap, None
    return frame.number, frame.after_gap, grey


def grey_picture(image: np.ndarray, longest: int) -> np.ndarray:
    """An image uint8 [H, W, 3] in grey, uint8 [h, w], reduced so that neither side is longer than `longest`."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = longest / max(grey.shape)
    if scale >= 1:
        return grey
    width, height = (max(1, round(scale * pixels)) for pixels in grey.shape[::-1])
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)


def follow(first: np.ndarray, second: np.ndarray) -> tuple[bool, float, float]:
    """(whether enough points of the first grey picture are found in the second, median horizontal motion, median
    length of the motion), both in widths of the picture."""
    width = first.shape[1]
    corners = cv2.goodFeaturesToTrack(first, _POINTS, 0.01, 6)
    if corners is None or first.shape != second.shape:
        return False, 0.0, 0.0
    places, found, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, corners.copy(), winSize=(13, 13), maxLevel=3)
    motion = (places - corners)[found.ravel() == 1].reshape(-1, 2) / width
    if len(motion) < _FEWEST_POINTS:
        return False, 0.0, 0.0
    return True, float(np.median(motion[:, 0])), float(np.median(np.linalg.norm(motion, axis=1)))


def choose_sections(motions: Sequence[Sequence[FrameMotion]], most: int) -> list[Section]:
    """The sections in which the view turns most, at most `most`, the best one first. They do not overlap.

    Args:
        motions: of each input.
    """
    found: list[Section] = []
    for source, frames in enumerate(motions):
        for numbers, views in key_frames(frames):
            for first in range(max(1, len(numbers) - SECTION_IMAGES + 1)):
                part = slice(first, first + SECTION_IMAGES)
                found.append(Section(source, tuple(numbers[part]), float(np.ptp(views[part]))))
    chosen: list[Section] = []
    for section in sorted(found, key=lambda one: -one.turn):
        if section.turn < LEAST_TURN or len(chosen) == most:
            break
        if not any(map(partial(_overlap, section), chosen)):
            chosen.append(section)
    return chosen


def key_frames(motions: Sequence[FrameMotion]) -> list[tuple[list[int], list[float]]]:
    """(numbers, direction of view in widths of the picture) of frames at equal steps of motion, for each part of an
    input without a cut. Parts with fewer than `FEWEST_IMAGES` such frames are left out."""
    parts: list[tuple[list[int], list[float]]] = []
    view = moved = 0.0
    for motion in motions:
        view, moved = view + motion.sideways, moved + motion.length
        if not motion.follows:
            parts.append(([motion.number], [view]))
            moved = 0.0
        elif moved >= _STEP:
            parts[-1][0].append(motion.number)
            parts[-1][1].append(view)
            moved = 0.0
    return [part for part in parts if len(part[0]) >= FEWEST_IMAGES]


def _overlap(one: Section, other: Section) -> bool:
    return one.source == other.source and one.frames[0] <= other.frames[-1] and other.frames[0] <= one.frames[-1]
