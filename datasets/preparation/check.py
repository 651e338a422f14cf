"""Can a prepared data set teach depth and motion? A look at its lists, cameras and a sample of its frames.

Two neighbouring frames teach something where the camera has moved by an amount that a warp can bridge, and K is that
of the images. What is certain to be wrong is refused; what may be wrong, or concerns some of the scenes, is a warning.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from path import Path
from tqdm import tqdm

from datasets.layout import Scene, read_scene, read_scene_names
from datasets.preparation.image_motion import FARTHEST, PairMotion, measure_pair
from files.errors import InputError
from files.images import image_size, read_image
from files.text import read_names

LISTS = ("train.txt", "val.txt")
FEWEST_SNIPPETS = 30  # to train on; below it is a warning
MIN_FOLLOWED = 0.4  # share of patches that a scene's median pair must find again
_STATIC_SHARE = 0.7  # of a scene's pairs
_ROTATION_SHARE = 0.7  # of a scene's moving pairs
_WHOLE_SET = 0.9  # of the training frames: then it is refused
_EVIDENCE = 20  # pairs that a refusal takes
_NO_MOTION = 0.25  # pixels: the median motion of a scene below it is that of noise
_FEWEST_JUDGED = 3  # pairs of a scene that a judgement of it takes
_FEWEST_PAIRS = 4  # of a scene that is compared at all
_FEWEST_SCENES = 100  # that are compared, or all

# What the causes mean and what to do, for people.
ADVICE = {
    "static video": "the camera stands: leave such frames out (prepare_kitti.py --static images)",
    "motion too large": "too little of a frame is found again in the next one: take more frames a second, and see that "
    "the frames are in order and from one recording",
    "rotation only": "the camera turns without moving, which shows nothing of depth: take recordings in which it moves",
    "no texture": "too few corners to see any motion by: is the lens covered, or the image black?",
    "wrong K": "cam.txt must be that of the images beside it: when images are resized, K changes with them",
    "unusual K": "right only if the camera is really like that; cam.txt must be that of the images beside it",
    "too few frames": "a snippet needs neighbouring frames of one scene; the paper's data have 40,000",
    "frames of different sizes": "resize all frames to one size, and each K with them",
    "damaged": "snippets with these frames are skipped",
    "in both lists": "validation on what was trained on says nothing: keep whole drives apart",
    "damaged scene": "mend it, or take it off the list",
}


@dataclass
class SceneCheck:
    """What was found in one scene."""

    name: str
    lists: list[str]
    frames: int = 0
    sizes: dict[tuple[int, int], Path] = field(default_factory=dict)  # (height, width): first frame that has it
    intrinsics: np.ndarray | None = None
    pairs: list[PairMotion] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # cause: what was found
    warned: dict[str, str] = field(default_factory=dict)

    @property
    def static_share(self) -> float:
        return _mean(pair.static for pair in self.pairs)

    @property
    def identity_error(self) -> float:
        """Mean photometric error of the identity warp, images in [-1, 1]."""
        return _mean(pair.identity_error for pair in self.pairs)

    @property
    def pixels(self) -> float:
        """Median motion of the moving pairs, pixels of the images."""
        return _median(pair.pixels for pair in self.pairs if pair.pixels is not None)

    @property
    def followed(self) -> float:
        """Share of patches found again, of the median moving pair."""
        return _median(pair.followed for pair in self.pairs if pair.followed is not None)

    @property
    def rotation_share(self) -> float:
        return _mean(pair.rotation_only for pair in self.pairs if pair.rotation_only is not None)

    def row(self) -> dict[str, str]:
        """For a table."""
        size = " ".join(f"{width} x {height}" for height, width in self.sizes)
        k = self.intrinsics
        camera = "" if k is None else " ".join(f"{value:.1f}" for value in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
        return {
            "scene": self.name,
            "list": " ".join(name.removesuffix(".txt") for name in self.lists),
            "frames": str(self.frames),
            "size": size,
            "fx fy cx cy": camera,
            "pairs": str(len(self.pairs)),
            "static": _percent(self.static_share),
            "identity error": "" if np.isnan(self.identity_error) else f"{self.identity_error:.3f}",
            "motion (px)": "" if np.isnan(self.pixels) else f"{self.pixels:.1f}",
            "found again": _percent(self.followed),
            "rotation only": _percent(self.rotation_share),
            "remarks": ", ".join([*(cause.upper() for cause in self.refused), *self.warned]),
        }

    def plain(self) -> dict:
        """For JSON."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else value

        return {
            "scene": self.name,
            "lists": self.lists,
            "frames": self.frames,
            "sizes": [[width, height] for height, width in self.sizes],
            "intrinsics": None if self.intrinsics is None else self.intrinsics.tolist(),
            "pairs": len(self.pairs),
            "static_share": number(self.static_share),
            "identity_error": number(self.identity_error),
            "motion_pixels": number(self.pixels),
            "found_again": number(self.followed),
            "rotation_share": number(self.rotation_share),
            "refused": self.refused,
            "warned": self.warned,
        }


@dataclass
class DataCheck:
    """What was found in a data set: by scene, and a line for each cause."""

    scenes: list[SceneCheck]
    refusals: list[str]
    warnings: list[str]

    @property
    def pairs(self) -> int:
        return sum(len(scene.pairs) for scene in self.scenes)

    def plain(self) -> dict:
        """For JSON."""
        return {
            "refused": self.refusals,
            "warnings": self.warnings,
            "pairs": self.pairs,
            "scenes": [scene.plain() for scene in self.scenes],
        }


def check_data(root: Path, length: int, most_pairs: int, all_headers: bool = True) -> DataCheck:
    """Check a prepared data set.

    Args:
        root: its folder.
        length: frames of a snippet.
        most_pairs: pairs of neighbouring frames that are compared, about 0.03 s each; every scene gets its share, and 4
            at least. Of very many scenes (Cityscapes has thousands) a selection is compared: one for each 4 pairs, and
            100 at least.
        all_headers: look at every frame's size, and name damaged frames. Without it, for who opens the data set anyway
            and names them, only the compared frames count.

    Raises:
        InputError: where there is no data set, or no `train.txt`.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, expected a prepared data set (see data/prepare_kitti.py)")
    names = {LISTS[0]: read_scene_names(root / LISTS[0])}
    names[LISTS[1]] = read_names(root / LISTS[1]) if (root / LISTS[1]).is_file() else []
    checks: dict[str, SceneCheck] = {}
    for scene_list in LISTS:
        for name in names[scene_list]:
            checks.setdefault(str(name), SceneCheck(str(name), [])).lists.append(scene_list)
    scenes = {}
    for name, check in checks.items():
        if len(set(check.lists)) > 1:
            check.warned["in both lists"] = f"named in {' and in '.join(dict.fromkeys(check.lists))}"
        try:
            scenes[name] = read_scene(root / name)
        except (InputError, OSError) as error:
            check.refused["wrong K" if "cam.txt" in str(error) else "damaged scene"] = str(error)

    names_found = list(scenes)
    wanted = max(_FEWEST_SCENES, most_pairs // _FEWEST_PAIRS)
    compared = {names_found[number] for number in _spread(len(names_found), wanted)}
    total = sum(len(scene.frames) for scene in scenes.values())
    total_compared = sum(len(scenes[name].frames) for name in compared)
    with tqdm(total=total, desc="checking the data", unit="frame", leave=False, delay=2, disable=None) as bar:
        for name, scene in scenes.items():
            pairs = 0
            if name in compared:
                pairs = max(_FEWEST_PAIRS, round(most_pairs * len(scene.frames) / total_compared))
            _look_at(checks[name], scene, length, pairs, all_headers)
            bar.update(len(scene.frames))
    for check in checks.values():
        _judge_motion(check)
        _judge_camera(check)
    _compare_scenes(list(checks.values()))
    return _sum_up(root, list(checks.values()), length)


def _look_at(check: SceneCheck, scene: Scene, length: int, pairs: int, all_headers: bool) -> None:
    check.frames, check.intrinsics = len(scene.frames), scene.intrinsics
    damaged: list[str] = []
    headers = scene.frames if all_headers else [] if pairs else scene.frames[:1]
    for frame in headers:
        try:
            check.sizes.setdefault(image_size(frame), frame)
        except InputError as error:
            damaged.append(str(error))
    for first in _spread(len(scene.frames) - 1, pairs):
        try:
            images = [read_image(frame) for frame in scene.frames[first : first + 2]]
        except InputError as error:
            damaged.append(str(error))
            continue
        for image, frame in zip(images, scene.frames[first : first + 2], strict=True):
            check.sizes.setdefault((image.shape[0], image.shape[1]), frame)
        if images[0].shape == images[1].shape and min(images[0].shape[:2]) >= 16:
            check.pairs.append(measure_pair(images[0], images[1], scene.intrinsics))
    if damaged and all_headers:
        check.warned["damaged"] = f"{len(set(damaged))} frames cannot be read, e.g. {damaged[0]}"
    if len(scene.frames) < length:
        check.warned["too few frames"] = f"{len(scene.frames)} frames, a snippet has {length}: the scene is not used"
    if len(check.sizes) > 1:
        (size, frame), (other_size, other) = list(check.sizes.items())[:2]
        found = f"{frame} has {size[1]} x {size[0]} pixels, {other.name} {other_size[1]} x {other_size[0]}"
        check.refused["frames of different sizes"] = found


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers 0 .. count - 1, evenly spread."""
    if count < 1:
        return []
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()))


def _judge_motion(check: SceneCheck) -> None:
    """Causes that the compared pairs show, as warnings; `_sum_up` refuses what holds for the whole set."""
    judged = [pair for pair in check.pairs if pair.rotation_only is not None]
    moving = [pair for pair in check.pairs if pair.followed is not None]
    blank = [pair for pair in check.pairs if not pair.static and pair.followed is None]
    if check.pairs and check.static_share >= _STATIC_SHARE:
        check.warned["static video"] = f"{_percent(check.static_share)} of its frames show no motion since the last"
    elif moving and check.pixels < _NO_MOTION:  # noise alone keeps its frames from being the same
        check.warned["static video"] = f"the median motion from frame to frame is {check.pixels:.2f} pixels"
    elif len(judged) >= _FEWEST_JUDGED and check.rotation_share >= _ROTATION_SHARE:
        found = f"a rotation alone explains {_percent(check.rotation_share)} of the compared pairs of frames"
        check.warned["rotation only"] = found
    if len(moving) >= min(_FEWEST_JUDGED, max(1, len(check.pairs))) and check.followed < MIN_FOLLOWED:
        check.warned["motion too large"] = (
            f"{_percent(check.followed)} of the textured patches are found again within {_percent(FARTHEST)} of the "
            f"width, expected {_percent(MIN_FOLLOWED)} at least"
        )
    if len(blank) > len(check.pairs) / 2:
        check.warned["no texture"] = f"{len(blank)} of {len(check.pairs)} compared pairs have no texture to follow"


def _judge_camera(check: SceneCheck) -> None:
    if check.intrinsics is None or len(check.sizes) != 1:
        return
    height, width = next(iter(check.sizes))
    for certain, text in judge_intrinsics(check.intrinsics, height, width):
        if certain:
            check.refused.setdefault("wrong K", text)
        else:
            check.warned.setdefault("unusual K", text)


def judge_intrinsics(intrinsics: np.ndarray, height: int, width: int) -> list[tuple[bool, str]]:
    """What is wrong with a K [3, 3] for images of this size: (certain, what was found), the worst first."""
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    found: list[tuple[bool, str]] = []
    image = f"the {width} x {height} image"
    # A camera's centre is about the middle of its image, so K tells the size that it was made for.
    own_width, own_height = 2 * cx + 1, 2 * cy + 1
    across, down = own_width / width, own_height / height
    centre = f"its centre ({cx:.1f}, {cy:.1f})"
    if not (0 <= across <= 2 and 0 <= down <= 2):
        found.append((True, f"{centre} lies outside {image}"))
    elif 0.7 < across / max(down, 1e-6) < 1.4 and not (0.6 < across < 1.5 or 0.6 < down < 1.5):
        found.append(
            (True, f"{centre} is that of an image of about {own_width:.0f} x {own_height:.0f}, not of {image}")
        )
    elif not (0.4 < across < 1.6 and 0.4 < down < 1.6):
        found.append((False, f"{centre} is far from the middle of {image}"))
    elif abs(across / down - 1) < 0.08 and not (1 / 1.2 < across < 1.2 or 1 / 1.2 < down < 1.2):
        found.append(
            (False, f"{centre} is rather that of an image of {own_width:.0f} x {own_height:.0f} than of {image}")
        )
    ratio = max(fx, fy) / min(fx, fy)
    if ratio > 1.5:
        found.append((ratio > 2.5, f"focal lengths {fx:.1f} and {fy:.1f} are far apart, a factor of {ratio:.2f}"))
    angle_x, angle_y = np.degrees(2 * np.arctan([width / fx / 2, height / fy / 2]))
    angle = max(angle_x, angle_y)
    if not 40 <= angle <= 120:
        certain = not 15 <= angle <= 150
        text = f"focal lengths {fx:.1f}, {fy:.1f} give {image} a field of view of {angle_x:.0f} x {angle_y:.0f} degrees"
        found.append((certain, f"{text}; are they those of another size?"))
    return sorted(found, key=lambda item: not item[0])


def _compare_scenes(checks: list[SceneCheck]) -> None:
    """Sizes and focal lengths of the scenes beside each other's."""
    sized = [check for check in checks if len(check.sizes) == 1]
    sizes = [next(iter(check.sizes)) for check in sized]
    for check, (height, width) in zip(sized, sizes, strict=True):
        if (height, width) != sizes[0]:
            found = f"{width} x {height} pixels, {sized[0].name} has {sizes[0][1]} x {sizes[0][0]}"
            check.refused["frames of different sizes"] = found
    focals = [(check, check.intrinsics[0, 0]) for check in sized if check.intrinsics is not None]
    usual = _median(focal for _, focal in focals)
    for check, focal in focals:
        if not 1 / 1.7 < focal / usual < 1.7:
            check.warned.setdefault("unusual K", f"focal length {focal:.1f}, that of most scenes is about {usual:.1f}")


def _sum_up(root: Path, checks: list[SceneCheck], length: int) -> DataCheck:
    training = [check for check in checks if LISTS[0] in check.lists]
    frames = sum(check.frames for check in training)
    compared = sum(check.frames for check in training if check.pairs)
    evidence = sum(len(check.pairs) for check in training)
    for causes in (("motion too large",), ("static video", "rotation only")):  # of the latter each scene has one
        share = sum(check.frames for check in training if check.warned.keys() & set(causes)) / max(1, compared)
        if share >= _WHOLE_SET and evidence >= _EVIDENCE:
            for check in training:
                for cause in check.warned.keys() & set(causes):
                    check.refused[cause] = check.warned.pop(cause)
    refusals = [_line(cause, "refused", checks) for cause in ADVICE if any(cause in c.refused for c in checks)]
    warnings = [_line(cause, "warned", checks) for cause in ADVICE if any(cause in c.warned for c in checks)]
    snippets = sum(max(0, check.frames - length + 1) for check in training)
    if snippets < FEWEST_SNIPPETS:
        text = f"too few frames: {root / LISTS[0]} has {frames} frames in {len(training)} scenes, that is {snippets} "
        text += f"snippets of {length}; {ADVICE['too few frames']}"
        (warnings if snippets else refusals).append(text)
    return DataCheck(checks, refusals, warnings)


def _line(cause: str, level: str, checks: list[SceneCheck]) -> str:
    """A cause with the scenes that have it, what was found in the first, and what to do."""
    found = [(check.name, getattr(check, level)[cause]) for check in checks if cause in getattr(check, level)]
    names = ", ".join(name for name, _ in found[:3])
    if len(found) > 3:
        names = f"{len(found)} of {len(checks)} scenes ({names}, ...)"
    return f"{cause}: {names}: {found[0][1]}; {ADVICE[cause]}"


def _mean(values: Iterable) -> float:
    numbers = [float(value) for value in values]
    return float(np.mean(numbers)) if numbers else float("nan")


def _median(values: Iterable) -> float:
    numbers = [float(value) for value in values]
    return float(np.median(numbers)) if numbers else float("nan")


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.0f} %"
