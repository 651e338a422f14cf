"""Measures one scene of a prepared data set: its frames, their sizes, K, and the motion between neighbours."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from path import Path

from datasets.layout import Scene
from datasets.preparation.image_motion import PairMotion, measure_pair
from datasets.preparation.repeated_frames import find_repeated_frames, have_one_name
from datasets.view_pairs import LARGEST_GAP, LEAST_MOTION, find_pair
from files.errors import InputError
from files.images import image_size, read_image

STATIC_SHARE = 0.7  # of a scene's pairs: then the camera stands
LITTLE_MOTION = 1.0  # pixels: below it a larger gap between frames is proposed
_MOST_GAP_PAIRS = 8  # that are compared to measure the motion over a larger gap
_PAIRS_PER_TRACKED = 10  # compared pairs for each frame whose points are tracked
_FEWEST_TRACKED = 2  # frames of a scene
_SMALLEST_SIDE = 16  # pixels: motion is not measured in smaller images


@dataclass(frozen=True)
class FrameGap:
    """The motion of frames that are `gap` frames apart."""

    gap: int
    pixels: float  # median motion of the moving pairs, or `gap` times that of neighbouring frames
    pairs: list[PairMotion]  # that were compared

    @property
    def moving(self) -> list[PairMotion]:
        """The pairs whose motion could be measured; if there are none, `pixels` is extrapolated."""
        return [pair for pair in self.pairs if pair.pixels is not None]

    def __str__(self) -> str:
        how = f"measured on {len(self.moving)} pairs" if self.moving else "extrapolated"
        nth = "3rd" if self.gap == 3 else f"{self.gap}th"
        return f"every {nth} frame would move by {self.pixels:.1f} ({how})"

    def plain(self) -> dict:
        """The gap as JSON."""
        return {"gap": self.gap, "motion_pixels": self.pixels, "pairs": len(self.moving)}


@dataclass
class Parallax:
    """What tracks of points in some frames show (`datasets.view_pairs.find_pair`)."""

    frames: int = 0  # that were tried
    gaps: list[int] = field(default_factory=list)  # to the nearest frame with enough motion, of each frame with points
    pixels: list[float] = field(default_factory=list)  # median motion over this gap
    points: list[int] = field(default_factory=list)  # triangulated in each frame
    problems: Counter[str] = field(default_factory=Counter)  # why the other frames have no points

    def plain(self) -> dict:
        """The tracks as JSON."""
        return {
            "frames": self.frames,
            "with_parallax": len(self.gaps),
            "gap": median(self.gaps) if self.gaps else None,
            "motion_pixels": median(self.pixels) if self.gaps else None,
            "points": median(self.points) if self.gaps else None,
            "problems": dict(self.problems),
        }


@dataclass
class SceneCheck:
    """What was measured in one scene, and the causes for which it is refused or warned of."""

    name: str
    lists: list[str]  # that name it: train.txt, val.txt
    frames: int = 0
    snippets: int = 0  # runs of neighbouring frames without a break
    sizes: dict[tuple[int, int], Path] = field(default_factory=dict)  # (height, width): first frame that has it
    intrinsics: np.ndarray | None = None
    repeated: int = 0  # frames that repeat the frame before them
    repeated_example: str | None = None
    pairs: list[PairMotion] = field(default_factory=list)  # of neighbouring frames, without the repeated ones
    frame_gap: FrameGap | None = None  # where neighbouring frames move by little
    parallax: Parallax | None = None  # of a scene whose pairs were compared
    refused: dict[str, str] = field(default_factory=dict)  # cause: finding
    warned: dict[str, str] = field(default_factory=dict)

    @property
    def static_share(self) -> float:
        """Share of the pairs in which the camera stands."""
        return mean(pair.static for pair in self.pairs)

    @property
    def identity_error(self) -> float:
        """Mean photometric error of the identity warp, images in [-1, 1]."""
        return mean(pair.identity_error for pair in self.pairs)

    @property
    def pixels(self) -> float:
        """Median motion of the moving pairs, pixels of the images."""
        return median(pair.pixels for pair in self.pairs if pair.pixels is not None)

    @property
    def followed(self) -> float:
        """Share of patches found again, of the median moving pair."""
        return median(pair.followed for pair in self.pairs if pair.followed is not None)

    @property
    def rotation_share(self) -> float:
        """Share of the moving pairs that a rotation of the camera explains."""
        return mean(pair.rotation_only for pair in self.judged_pairs)

    @property
    def judged_pairs(self) -> list[PairMotion]:
        """The pairs that tell a rotation from parallax: where neighbouring frames move by little, those farther apart.

        A motion of half a pixel leaves less parallax than the error of its measurement.
        """
        pairs = self.frame_gap.moving if self.frame_gap is not None and self.frame_gap.moving else self.pairs
        return [pair for pair in pairs if pair.rotation_only is not None]

    def row(self) -> dict[str, str]:
        """The scene as a row of a table."""
        size = " ".join(f"{width} x {height}" for height, width in self.sizes)
        k = self.intrinsics
        camera = "" if k is None else " ".join(f"{value:.1f}" for value in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
        return {
            "scene": self.name,
            "list": " ".join(name.removesuffix(".txt") for name in self.lists),
            "frames": str(self.frames),
            "repeated": str(self.repeated),
            "size": size,
            "fx fy cx cy": camera,
            "pairs": str(len(self.pairs)),
            "static": percent(self.static_share),
            "identity error": "" if np.isnan(self.identity_error) else f"{self.identity_error:.3f}",
            "motion (px)": "" if np.isnan(self.pixels) else f"{self.pixels:.1f}",
            "found again": percent(self.followed),
            "rotation only": percent(self.rotation_share),
            "remarks": ", ".join([*(cause.upper() for cause in self.refused), *self.warned]),
        }

    def plain(self) -> dict:
        """The scene as JSON."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else value

        return {
            "scene": self.name,
            "lists": self.lists,
            "frames": self.frames,
            "snippets": self.snippets,
            "repeated_frames": self.repeated,
            "repeated_example": self.repeated_example,
            "sizes": [[width, height] for height, width in self.sizes],
            "intrinsics": None if self.intrinsics is None else self.intrinsics.tolist(),
            "pairs": len(self.pairs),
            "static_share": number(self.static_share),
            "identity_error": number(self.identity_error),
            "motion_pixels": number(self.pixels),
            "frame_gap": None if self.frame_gap is None else self.frame_gap.plain(),
            "found_again": number(self.followed),
            "rotation_share": number(self.rotation_share),
            "parallax": None if self.parallax is None else self.parallax.plain(),
            "refused": self.refused,
            "warned": self.warned,
        }


def measure_scene(check: SceneCheck, scene: Scene, length: int, pairs: int, all_headers: bool) -> None:
    """Fill in `check` from a scene's files: what is measured, and the causes that need no judgement.

    Args:
        length: frames per snippet.
        pairs: pairs of neighbouring frames to compare; 0 compares none and opens one frame only.
        all_headers: read the size of every frame, and name damaged frames.
    """
    check.frames, check.intrinsics = len(scene.frames), scene.intrinsics
    longest = max(len(run.frames) for run in scene.runs())
    check.snippets = sum(max(0, len(run.frames) - length + 1) for run in scene.runs())
    damaged: dict[Path, str] = {}  # frames that cannot be read, and why
    headers = scene.frames if all_headers else [] if pairs else scene.frames[:1]
    for frame in headers:
        try:
            check.sizes.setdefault(image_size(frame), frame)
        except InputError as error:
            damaged[frame] = str(error)
    distinct = _without_repeated(check, scene) if pairs else [run.frames for run in scene.runs()]
    check.pairs = _compare(check, scene, distinct, 1, pairs, damaged)
    if check.pairs and (check.pixels < LITTLE_MOTION or check.static_share >= STATIC_SHARE):
        check.frame_gap = _find_gap(check, scene, distinct, damaged)
    if check.pairs and len(check.sizes) == 1:
        check.parallax = _find_parallax(scene, distinct, max(_FEWEST_TRACKED, pairs // _PAIRS_PER_TRACKED))
    if damaged and all_headers:
        check.warned["damaged"] = f"{len(damaged)} frames cannot be read, e.g. {next(iter(damaged.values()))}"
    if longest < length:
        breaks = f" between {len(scene.breaks)} breaks, at most {longest} of them neighbours" if scene.breaks else ""
        found = f"{len(scene.frames)} frames{breaks}, a snippet has {length}: the scene is not used"
        check.warned["too few frames"] = found
    if len(check.sizes) > 1:
        (size, frame), (other_size, other) = list(check.sizes.items())[:2]
        found = f"{frame} has {size[1]} x {size[0]} pixels, {other.name} {other_size[1]} x {other_size[0]}"
        check.refused["frames of different sizes"] = found


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers 0 .. count - 1, evenly spread."""
    if count < 1:
        return []
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()))


def _without_repeated(check: SceneCheck, scene: Scene) -> list[Sequence[Path]]:
    """The frames that do not repeat the frame before them, by run; all frames where each one does."""
    repeated = find_repeated_frames(scene.frames)
    check.repeated = len(repeated)
    if repeated:
        first, second = scene.frames[repeated[0] - 1], scene.frames[repeated[0]]
        how = "have one name" if have_one_name(first, second) else "are equal in every pixel"
        check.repeated_example = f"{first} and {second.name} {how}"
    copies = {scene.frames[number] for number in repeated}
    runs = [run.frames for run in scene.runs()]
    distinct: list[Sequence[Path]] = [[frame for frame in run if frame not in copies] for run in runs]
    return distinct if sum(map(len, distinct)) > 1 else runs


def _compare(
    check: SceneCheck, scene: Scene, runs: list[Sequence[Path]], gap: int, wanted: int, damaged: dict[Path, str]
) -> list[PairMotion]:
    """Motion of at most `wanted` pairs of frames that are `gap` apart in one run, evenly spread; notes damage and
    sizes."""
    neighbours = [pair for run in runs for pair in zip(run, run[gap:], strict=False)]
    motions = []
    for number in spread(len(neighbours), wanted):
        images = []
        for file in neighbours[number]:
            try:
                images.append(read_image(file))
                check.sizes.setdefault((images[-1].shape[0], images[-1].shape[1]), file)
            except (InputError, OSError) as error:
                damaged[file] = str(error)
        if len(images) == 2 and images[0].shape == images[1].shape and min(images[0].shape[:2]) >= _SMALLEST_SIDE:
            motions.append(measure_pair(images[0], images[1], scene.intrinsics))
    return motions


def _find_gap(check: SceneCheck, scene: Scene, runs: list[Sequence[Path]], damaged: dict[Path, str]) -> FrameGap | None:
    """The gap that gives enough motion: estimated from the motion of neighbours, then measured if it can be.

    None where frames show no motion at any distance.
    """
    known = check.pixels if check.pixels > 0 and check.static_share < STATIC_SHARE else 0.0
    gap = min(math.ceil(LEAST_MOTION / known), LARGEST_GAP) if known else LARGEST_GAP
    pairs = _compare(check, scene, runs, gap, min(_MOST_GAP_PAIRS, len(check.pairs)), damaged)
    measured = median(pair.pixels for pair in pairs if pair.pixels is not None)
    pixels = gap * check.pixels if math.isnan(measured) else measured
    return None if math.isnan(pixels) else FrameGap(gap, pixels, pairs)


def _find_parallax(scene: Scene, runs: list[Sequence[Path]], wanted: int) -> Parallax:
    """Track points in at most `wanted` frames, evenly spread over the runs."""
    places = [(run, number) for run in runs for number in range(len(run))]
    parallax = Parallax()
    for place in spread(len(places), wanted):
        run, number = places[place]
        found = find_pair(run, number, scene.intrinsics)
        parallax.frames += 1
        if found is None:
            parallax.problems["a frame cannot be read, or has no neighbour"] += 1
        elif found[1].problem is not None:
            parallax.problems[found[1].problem] += 1
        else:
            parallax.gaps.append(abs(found[0]))
            parallax.pixels.append(found[1].motion)
            parallax.points.append(len(found[1].pixels))
    return parallax


def mean(values: Iterable) -> float:
    """Mean of numbers; nan if there are none."""
    numbers = [float(value) for value in values]
    return float(np.mean(numbers)) if numbers else float("nan")


def median(values: Iterable) -> float:
    """Median of numbers; nan if there are none."""
    numbers = [float(value) for value in values]
    return float(np.median(numbers)) if numbers else float("nan")


def percent(share: float) -> str:
    """A share as text for people, "70 %"; empty for nan."""
    return "" if np.isnan(share) else f"{100 * share:.0f} %"
