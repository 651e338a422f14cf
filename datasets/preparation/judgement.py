"""What the measurements of a data set's scenes mean: which causes keep a network from learning, and what to do."""

import numpy as np

from datasets.preparation.image_motion import FARTHEST
from datasets.preparation.scene_check import LITTLE_MOTION, STATIC_SHARE, SceneCheck, median, percent
from geometry.two_view import NO_ESSENTIAL_MATRIX

MIN_FOLLOWED = 0.4  # share of patches that a scene's median pair must find again
_ROTATION_SHARE = 0.7  # of a scene's moving pairs
_REPEATED_SHARE = 0.2  # of a scene's frames
_NO_MOTION = 0.25  # pixels: a median motion below it can be noise
_FEWEST_JUDGED = 3  # pairs that a judgement of a scene takes
_FOCAL_OF_ANOTHER_CAMERA = 1.7  # factor between a focal length and that of the other scenes
LITTLE = "little motion"
WRONG_FOCAL = "wrong focal length"
_NORMALISED = 3.0  # pixels: no image has such short focal lengths, so K is in units of the image's width and height

# What to do about each cause. Reports list the causes in this order.
ADVICE = {
    "static video": "the camera stands: leave such frames out (prepare_kitti.py --static images)",
    "motion too large": "too few patches of a frame are found again in the next one: use a higher frame rate, and "
    "check that the frames are in order and from one recording",
    "rotation only": "the camera rotates without moving, which contains no information about depth: use recordings in "
    "which it moves",
    "no rigid scene": "K is wrong, or moving things fill the picture: check cam.txt, and leave such frames out",
    "no texture": "too few corners to measure motion: is the lens covered, or the image black?",
    "repeated frames": "a repeated frame shows no motion while the camera moves: store each frame once (with ffmpeg: "
    "-fps_mode passthrough)",
    LITTLE: "so little parallax is hard to tell from noise: prepare it with a larger gap between frames",
    "wrong K": "cam.txt must be K of the images beside it: when images are resized, K changes with them",
    WRONG_FOCAL: "likely K of images of another size, cropped or enlarged since, or a guess: cam.txt must be K of the "
    "images beside it; measure it, or train with --camera learned",
    "unusual K": "correct only if the camera is really like that; cam.txt must be K of the images beside it",
    "too few frames": "a snippet needs neighbouring frames of one scene; the paper's data have 40,000",
    "frames of different sizes": "resize all frames to one size, and K with them",
    "damaged": "snippets with these frames are skipped",
    "named twice": "its snippets count once: name it once",
    "in both lists": "validation on training scenes measures nothing: keep whole drives apart",
    "damaged scene": "repair it, or remove it from the list",
}


def judge_lists(check: SceneCheck, named_in: list[str]) -> None:
    """Warn of a scene that is named more than once. `named_in` has a list's name for each time."""
    if len(check.lists) > 1:
        check.warned["in both lists"] = f"named in {' and in '.join(check.lists)}"
    for scene_list in check.lists:
        if named_in.count(scene_list) > 1:
            check.warned["named twice"] = f"named {named_in.count(scene_list)} times in {scene_list}"


def judge_motion(check: SceneCheck) -> None:
    """Causes that the compared pairs show, as warnings; `check.check_data` refuses a whole set for them."""
    moving = [pair for pair in check.pairs if pair.followed is not None]
    measured = [pair for pair in check.pairs if pair.pixels is not None]
    blank = [pair for pair in check.pairs if not pair.static and pair.followed is None]
    slow = _moves_over_larger_gap(check)
    if check.pairs and check.static_share >= STATIC_SHARE and not slow:
        check.warned["static video"] = f"{percent(check.static_share)} of its frames show no motion since the last"
    elif moving and check.pixels < _NO_MOTION and not slow:
        check.warned["static video"] = f"the median motion from frame to frame is {check.pixels:.2f} pixels"
    elif len(check.judged_pairs) >= _FEWEST_JUDGED and check.rotation_share >= _ROTATION_SHARE:
        found = f"a rotation alone explains {percent(check.rotation_share)} of the compared pairs of frames"
        check.warned["rotation only"] = found
    elif check.frame_gap is not None and (slow or len(measured) >= _FEWEST_JUDGED):
        motion = f"move by {check.pixels:.1f} pixels" if measured else "show no motion"
        check.warned[LITTLE] = f"neighbouring frames {motion}; {check.frame_gap}"
    if len(moving) >= min(_FEWEST_JUDGED, max(1, len(check.pairs))) and check.followed < MIN_FOLLOWED:
        check.warned["motion too large"] = (
            f"{percent(check.followed)} of the textured patches are found again within {percent(FARTHEST)} of the "
            f"width, expected {percent(MIN_FOLLOWED)} at least"
        )
    _judge_parallax(check)
    if len(blank) > len(check.pairs) / 2:
        check.warned["no texture"] = f"{len(blank)} of {len(check.pairs)} compared pairs have no texture to follow"
    if check.repeated >= _REPEATED_SHARE * max(1, check.frames) and "static video" not in check.warned:
        check.warned["repeated frames"] = (
            f"{check.repeated} of {check.frames} frames repeat the frame before them, e.g. {check.repeated_example}"
        )


def _judge_parallax(check: SceneCheck) -> None:
    """Warn of a scene whose tracks fit no essential matrix."""
    if check.parallax is None:
        return
    unfit = check.parallax.problems[NO_ESSENTIAL_MATRIX]
    if unfit >= _FEWEST_JUDGED and unfit > check.parallax.frames / 2:
        check.warned["no rigid scene"] = (
            f"no essential matrix fits the tracks of {unfit} of {check.parallax.frames} frames"
        )


def _moves_over_larger_gap(check: SceneCheck) -> bool:
    """Whether a motion too small to be seen between neighbouring frames adds up over a larger gap; noise does not."""
    gap = check.frame_gap
    if gap is None or len(gap.moving) < max(_FEWEST_JUDGED, STATIC_SHARE * len(gap.pairs)):
        return False
    return gap.pixels >= LITTLE_MOTION


def judge_camera(check: SceneCheck) -> None:
    """Causes that K and the size of the images show: refusals where it is certainly wrong, else warnings."""
    if check.intrinsics is None or len(check.sizes) != 1:
        return
    height, width = next(iter(check.sizes))
    for certain, text in judge_intrinsics(check.intrinsics, height, width):
        if certain:
            check.refused.setdefault("wrong K", text)
        else:
            check.warned.setdefault("unusual K", text)


def judge_intrinsics(intrinsics: np.ndarray, height: int, width: int) -> list[tuple[bool, str]]:
    """The faults of a K [3, 3] for images of this size: (certainly wrong, finding), the certain ones first."""
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    if max(fx, fy) < _NORMALISED:
        text = f"focal lengths {fx:.3g} and {fy:.3g}: K looks normalised; multiply its first row by the width {width} "
        return [(True, text + f"and its second row by the height {height}")]
    found = [
        _judge_centre(cx, cy, height, width),
        _judge_focal_ratio(fx, fy),
        _judge_field_of_view(fx, fy, height, width),
    ]
    return sorted((fault for fault in found if fault is not None), key=lambda fault: not fault[0])


def _judge_centre(cx: float, cy: float, height: int, width: int) -> tuple[bool, str] | None:
    image = f"the {width} x {height} image"
    # A camera's centre is about the middle of its image, so K tells the size that it was made for.
    own_width, own_height = 2 * cx + 1, 2 * cy + 1
    across, down = own_width / width, own_height / height
    centre = f"its centre ({cx:.1f}, {cy:.1f})"
    if not (0 <= across <= 2 and 0 <= down <= 2):
        return True, f"{centre} lies outside {image}"
    if 0.7 < across / max(down, 1e-6) < 1.4 and not (0.6 < across < 1.5 or 0.6 < down < 1.5):
        return True, f"{centre} is that of an image of about {own_width:.0f} x {own_height:.0f}, not of {image}"
    if not (0.4 < across < 1.6 and 0.4 < down < 1.6):
        return False, f"{centre} is far from the middle of {image}"
    if abs(across / down - 1) < 0.08 and not (1 / 1.2 < across < 1.2 or 1 / 1.2 < down < 1.2):
        return False, f"{centre} is rather that of an image of {own_width:.0f} x {own_height:.0f} than of {image}"
    return None


def _judge_focal_ratio(fx: float, fy: float) -> tuple[bool, str] | None:
    ratio = max(fx, fy) / min(fx, fy)
    if ratio <= 1.5:
        return None
    return ratio > 2.5, f"focal lengths {fx:.1f} and {fy:.1f} are far apart, a factor of {ratio:.2f}"


def _judge_field_of_view(fx: float, fy: float, height: int, width: int) -> tuple[bool, str] | None:
    angle_x, angle_y = np.degrees(2 * np.arctan([width / fx / 2, height / fy / 2]))
    angle = max(angle_x, angle_y)
    if 40 <= angle <= 120:
        return None
    text = f"focal lengths {fx:.1f}, {fy:.1f} give the {width} x {height} image a field of view of "
    text += f"{angle_x:.0f} x {angle_y:.0f} degrees; are they those of another size?"
    return not 15 <= angle <= 150, text


def compare_scenes(checks: list[SceneCheck]) -> None:
    """Refuse scenes whose images have another size than the first scene's; warn of unlike focal lengths."""
    sized = [check for check in checks if len(check.sizes) == 1]
    sizes = [next(iter(check.sizes)) for check in sized]
    for check, (height, width) in zip(sized, sizes, strict=True):
        if (height, width) != sizes[0]:
            found = f"{width} x {height} pixels, {sized[0].name} has {sizes[0][1]} x {sizes[0][0]}"
            check.refused["frames of different sizes"] = found
    focals = [(check, check.intrinsics[0, 0]) for check in sized if check.intrinsics is not None]
    usual = median(focal for _, focal in focals)
    for check, focal in focals:
        if not 1 / _FOCAL_OF_ANOTHER_CAMERA < focal / usual < _FOCAL_OF_ANOTHER_CAMERA:
            check.warned.setdefault("unusual K", f"focal length {focal:.1f}, that of most scenes is about {usual:.1f}")
